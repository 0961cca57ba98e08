"""A Hugging Face Hub on loopback: as much of the protocol as a model needs to get there and back.

What it answers follows the Hub: files behind `resolve`, large ones by a redirect to a store of objects and
known by their sha256; uploads by preupload, Git LFS batch, and one commit of lines of JSON; errors by status
and `X-Error-Code`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import socket
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

TOKEN = "hf_local"


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Put these files on top of a branch; returns the id of the commit."""
        whole = self.commits.get(self.branches.get(branch, ""), {}) | files
        tree = sorted((name, etag(name, content)) for name, content in whole.items())
        id = hashlib.sha1(repr((len(self.commits), tree)).encode()).hexdigest()
        self.commits[id], self.branches[branch] = whole, id
        return id

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


def is_large(name: str) -> bool:
    return name.endswith((".safetensors", ".bin", ".pth"))


def etag(name: str, content: bytes) -> str:
    if is_large(name):
        return hashlib.sha256(content).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()  # as Git names it


class LocalHub(ThreadingHTTPServer):
    """Serves `repositories`. `requests` are those it got, as (method, path, Range)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.endpoint = f"http://127.0.0.1:{self.server_port}"
        self.store = f"http://localhost:{self.server_port}/objects"  # another host, as the Hub's is
        self.clear()
        self._thread: threading.Thread | None = None

    def clear(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.breaks: list[int] = []  # each next transfer of an object ends after so many bytes
        self.corrupt = False  # objects arrive with a byte changed
        self.failing: set[str] = set()  # methods that are answered with 503

    def start(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
            self._thread.start()

    def close(self) -> None:
        if self._thread is not None:
            self.shutdown()
        self.server_close()

    def create(self, name: str, files: dict[str, bytes], **kind: bool) -> Repository:
        self.repositories[name] = repository = Repository(**kind)
        repository.commit(files)
        self.objects |= {etag(name, x): x for name, x in files.items() if is_large(name)}
        return repository

    def count(self, method: str, part: str) -> int:
        return sum(m == method and part in path for m, path, _ in self.requests)


class _Handler(BaseHTTPRequestHandler):
    server: LocalHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = unquote(urlsplit(self.path).path)
        self.server.requests.append((self.command, path, self.headers.get("Range")))
        if self.command in self.server.failing:
            return self._send(503)
        if self.headers.get("Authorization") not in (None, f"Bearer {TOKEN}"):
            return self._send(401, {"X-Error-Message": "Invalid credentials in Authorization header"})
        for method, pattern, answer in _ROUTES:
            if method == self.command and (match := re.fullmatch(pattern, path)):
                return answer(self, **match.groupdict())
        return self._send(404)

    @property
    def _known(self) -> bool:
        return "Authorization" in self.headers

    def _send(self, status: int, headers: dict[str, str] | None = None, content: object = b"") -> None:
        data = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(data))} | (headers or {})).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _find(self, name: str, revision: str | None = None) -> tuple[Repository, str] | None:
        """The repository and the commit, or None where the answer, an error, is already given."""
        repository = self.server.repositories.get(name)
        if repository is None or (repository.private and not self._known):
            self._send(404 if self._known else 401, {"X-Error-Code": "RepoNotFound"})
        elif (commit := repository.find(revision or "main")) is None:
            self._send(404, {"X-Error-Code": "RevisionNotFound"})
        elif repository.gated and not self._known:
            self._send(401, {"X-Error-Code": "GatedRepo"})
        else:
            return repository, commit
        return None

    def _resolve(self, name: str, revision: str, file: str) -> None:
        if (found := self._find(name, revision)) is None:
            return None
        repository, commit = found
        content = repository.commits[commit].get(file)
        headers = {"X-Repo-Commit": commit}
        if content is None:
            return self._send(404, headers | {"X-Error-Code": "EntryNotFound"})
        tag = etag(file, content)
        if is_large(file):
            linked = {"X-Linked-Etag": f'"{tag}"', "X-Linked-Size": str(len(content))}
            return self._send(302, headers | linked | {"Location": f"{self.server.store}/{tag}"})
        return self._send(200, headers | {"ETag": f'"{tag}"'}, content)

    def _download(self, oid: str) -> None:
        content = self.server.objects[oid]
        if self.server.corrupt:
            content = content[:-1] + bytes([content[-1] ^ 1])
        start = int(re.findall(r"\d+", self.headers.get("Range", "0"))[0])
        part = content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(part)))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if self.command == "HEAD":
            return
        if self.server.breaks:
            self.wfile.write(part[: self.server.breaks.pop(0)])
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True
        else:
            self.wfile.write(part)

    def _tree(self, name: str, revision: str) -> None:
        if found := self._find(name, revision):
            files = found[0].commits[found[1]]
            rows = [
                {"type": "file", "path": file, "size": len(x), "oid": etag(file, x)}
                for file, x in files.items()
            ]
            self._send(200, content=rows)

    def _create(self) -> None:
        asked = json.loads(self.body)
        name = f"{asked['organization']}/{asked['name']}"
        if not self._known:
            return self._send(401, {"X-Error-Message": "Invalid username or password."})
        if asked["organization"] != "user":
            return self._send(403, {"X-Error-Message": "You don't have the rights to create a model there"})
        answer = {"url": f"{self.server.endpoint}/{name}", "name": name}
        if name in self.server.repositories:
            return self._send(409, content=answer)
        private = asked.get("visibility") == "private" or asked.get("private") is True  # newer and older
        self.server.create(name, {}, private=private)
        return self._send(200, content=answer)

    def _branch(self, name: str, branch: str) -> None:
        if found := self._find(name):
            repository, commit = found
            known = branch in repository.branches
            repository.branches.setdefault(branch, commit)
            self._send(409 if known else 201)

    def _preupload(self, name: str, revision: str) -> None:
        if self._find(name, revision):
            files = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if is_large(file["path"]) else "regular",
                    "shouldIgnore": False,
                }
                for file in json.loads(self.body)["files"]
            ]
            self._send(200, content={"files": files})

    def _batch(self, name: str) -> None:
        objects = [
            {**wanted, "actions": {"upload": {"href": f"{self.server.store}/{wanted['oid']}"}}}
            if wanted["oid"] not in self.server.objects
            else wanted
            for wanted in json.loads(self.body)["objects"]
        ]
        self._send(200, content={"transfer": "basic", "objects": objects})

    def _store(self, oid: str) -> None:
        if hashlib.sha256(self.body).hexdigest() != oid:
            return self._send(400)
        self.server.objects[oid] = self.body
        return self._send(200)

    def _commit(self, name: str, revision: str) -> None:
        if (found := self._find(name, revision)) is None:
            return
        files = {}
        for line in self.body.splitlines():
            item = json.loads(line)
            value = item["value"]
            if item["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif item["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        id = found[0].commit(files, revision)
        url = f"{self.server.endpoint}/{name}/commit/{id}"
        self._send(200, content={"success": True, "commitUrl": url, "commitOid": id, "hookOutput": ""})

    def _validate(self) -> None:
        card = json.loads(self.body)["content"]
        well = card.startswith("---\n") and "\n---\n" in card[4:]
        self._send(200 if well else 400, content={"errors": [], "warnings": []})


_NAME = r"(?P<name>[^/]+/[^/]+)"
_ROUTES = [
    ("HEAD", rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler._resolve),
    ("GET", rf"/{_NAME}/resolve/(?P<revision>[^/]+)/(?P<file>.+)", _Handler._resolve),
    ("HEAD", r"/objects/(?P<oid>\w+)", _Handler._download),
    ("GET", r"/objects/(?P<oid>\w+)", _Handler._download),
    ("PUT", r"/objects/(?P<oid>\w+)", _Handler._store),
    ("GET", rf"/api/models/{_NAME}/tree/(?P<revision>[^/]+)", _Handler._tree),
    ("POST", r"/api/repos/create", _Handler._create),
    ("POST", r"/api/validate-yaml", _Handler._validate),
    ("POST", rf"/api/models/{_NAME}/branch/(?P<branch>[^/]+)", _Handler._branch),
    ("POST", rf"/api/models/{_NAME}/preupload/(?P<revision>[^/]+)", _Handler._preupload),
    ("POST", rf"/{_NAME}\.git/info/lfs/objects/batch", _Handler._batch),
    ("POST", rf"/api/models/{_NAME}/commit/(?P<revision>[^/]+)", _Handler._commit),
]


def install() -> LocalHub:
    """A hub, not yet started, that the Hub's library will ask; before that library is imported."""
    hub = LocalHub()
    os.environ |= {
        "HF_ENDPOINT": hub.endpoint,
        "HF_HUB_DISABLE_XET": "1",  # the transfers are then plain HTTP, which is what is served here
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE"):
        os.environ.pop(name, None)
    return hub
