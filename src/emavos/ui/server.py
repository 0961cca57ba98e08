"""The page's HTTP server, a thin layer over `Desk`. Requires starlette: import this module only to serve."""

from __future__ import annotations

import gzip
import io
import json
import os
import re
from collections.abc import Awaitable, Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from emavos.io import IdMask
from emavos.io.ids import ids_of_picture
from emavos.io.images import FORMATS, decode_image
from emavos.io.spool import named_temporary
from emavos.ui.desk import Desk
from emavos.ui.facts import LARGEST_ID
from emavos.ui.guard import Guard
from emavos.ui.job import in_words
from emavos.ui.project import Project
from emavos.ui.switches import parse_switches
from emavos.ui.table import Busy, Outdated, tag_of

MASK_FILE_LIMIT = 32 << 20  # largest mask file to load, in bytes; ids compress well
_SCRIPTS = (
    *("page", "server", "state", "acting", "sync", "describe", "edits", "tools", "clips", "objects"),
    *("tracking", "playback", "review", "keys", "pointer", "view", "painting", "clicks", "timeline"),
)
_ASSETS = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "favicon.svg": ("favicon.svg", "image/svg+xml"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}
_FRESH = {"cache-control": "no-store"}


class _TooLarge(ValueError):
    """The request is larger than the limit."""


class _Unsaid(ValueError):
    """A request that changes something lacks the state shown by the page."""


class _Json(JSONResponse):
    """JSON in ASCII: names of files that are no UTF-8 have letters that UTF-8 lacks."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def make_app(desk: Desk, token: str, host: str = "127.0.0.1", upload_limit: int = 4 << 30) -> Guard:
    """The page as an ASGI application.

    desk: state of the page.
    token: secret token, part of the printed address.
    host: address the server listens on.
    upload_limit: largest size of an uploaded video, in bytes.
    """
    page = _Page(desk, upload_limit)
    get, put, post, delete = (["GET"], ["PUT"], ["POST"], ["DELETE"])
    routes = [
        ("/api/state", page.state, get),
        ("/api/confidence", page.confidence, get),
        ("/api/frames/{index:int}", page.frame, get),
        ("/api/masks/{index:int}", page.mask, get),
        ("/api/masks/{index:int}", page.give, put),
        ("/api/masks/{index:int}", page.take_back, delete),
        ("/api/drafts/{index:int}", page.draft, get),
        ("/api/drafts/{index:int}", page.save_draft, put),
        ("/api/drafts/{index:int}", page.forget_draft, delete),
        ("/api/looks/{index:int}", page.look, post),
        ("/api/clicks/{index:int}", page.click, post),
        ("/api/undo", page.undo, post),
        ("/api/redo", page.redo, post),
        ("/api/clips", page.clips, get),
        ("/api/clips/{name}", page.open_clip, post),
        ("/api/clips/{name}", page.remove_clip, delete),
        ("/api/thumbnails/{name}", page.thumbnail, get),
        ("/api/queue", page.track_all, post),
        ("/api/mask-file", page.read_mask, post),
        ("/api/objects/{id:int}", page.remove, delete),
        ("/api/objects/{id:int}", page.rename, put),
        ("/api/switches", page.switch, put),
        ("/api/video", page.open_video, put),
        ("/api/track", page.track, post),
        ("/api/review", page.review, get),
        ("/api/stop", page.stop, post),
        ("/api/downloads/{name}", page.download, post),
        ("/api/downloads/{name}", page.fetch_download, get),
        ("/{name}", page.asset, get),
        ("/", page.asset, get),
    ]
    app = Starlette(routes=[Route(path, _telling(answer), methods=how) for path, answer, how in routes])
    return Guard(app, token, host, ["/", *(f"/{name}" for name in _ASSETS)])


class _Page:
    def __init__(self, desk: Desk, upload_limit: int) -> None:
        self.desk = desk
        self.upload_limit = upload_limit

    async def asset(self, request: Request) -> Response:
        name = request.path_params.get("name", "")
        if name not in _ASSETS:
            return _Json({"error": "there is no such page"}, 404)
        file, kind = _ASSETS[name]
        body = files("emavos.ui").joinpath("static", file).read_bytes()
        return Response(body, media_type=kind, headers=_FRESH)

    async def state(self, request: Request) -> Response:
        return _Json({**self.desk.state(), "upload_limit": self.upload_limit}, headers=_FRESH)

    async def confidence(self, request: Request) -> Response:
        """{frame: {id: confidence}} from frame `start` on."""
        start = request.query_params.get("start", "0")
        sure = dict(self._shown(request).confidence)  # a copy, as tracking adds entries meanwhile
        begin = int(start) if start.isdecimal() else 0
        return _Json({i: of for i, of in sure.items() if i >= begin}, headers=_FRESH)

    async def frame(self, request: Request) -> Response:
        """A frame as JPEG. Browsers may cache the response if the address has the project's unique key."""
        project, index = self._shown(request), request.path_params["index"]
        body = await run_in_threadpool(project.frame_bytes, index)
        keep = {"cache-control": "private, max-age=86400"} if _key(request) else _FRESH
        return Response(body, media_type="image/jpeg", headers=keep)

    async def mask(self, request: Request) -> Response:
        """A frame's mask as H x W bytes, one id each, gzipped. Changing the mask requires its ETag."""
        project, index = self._shown(request), request.path_params["index"]
        mask = await run_in_threadpool(project.mask, index)
        body = gzip.compress(mask.astype(np.uint8).tobytes(), compresslevel=1)
        headers = {"content-encoding": "gzip", "etag": f'"{tag_of(mask)}"', "x-mask": project.kind(index)}
        headers |= {"x-draft": str(int(index in project.drafts))} | _FRESH
        return Response(body, media_type="application/octet-stream", headers=headers)

    async def give(self, request: Request) -> Response:
        """Give a mask: the body is H x W bytes, one id each."""
        seen = _key_of_change(request), _tag_of_change(request)
        mask = await self._sent_mask(request)
        ids = await run_in_threadpool(self.desk.give, request.path_params["index"], mask, *seen)
        tag = await run_in_threadpool(self.desk.tag, request.path_params["index"])
        return _Json({"ids": ids}, headers={"etag": f'"{tag}"'})

    async def _sent_mask(self, request: Request) -> IdMask:
        """The mask in the body of a request: H x W bytes, one id each."""
        height, width = self._shown(request).size
        body = await _body(request, height * width)
        if len(body) != height * width:
            raise ValueError(f"a mask of this video has {height * width} bytes, not {len(body)}")
        return np.frombuffer(body, np.uint8).reshape(height, width).astype(np.int32)

    async def draft(self, request: Request) -> Response:
        """A frame's mask with strokes that were not kept yet, as H x W bytes."""
        project, index = self._shown(request), request.path_params["index"]
        mask = await run_in_threadpool(project.draft, index)
        if mask is None:
            raise ValueError(f"frame {index} has no strokes that were not kept")
        body = mask.astype(np.uint8).tobytes()
        return Response(body, media_type="application/octet-stream", headers=_FRESH)

    async def save_draft(self, request: Request) -> Response:
        """Store strokes that were not kept yet: the body is the mask with the strokes, H x W bytes."""
        seen = _key_of_change(request), _tag_of_change(request)
        mask = await self._sent_mask(request)
        await run_in_threadpool(self.desk.save_draft, request.path_params["index"], mask, *seen)
        return _Json({})

    async def forget_draft(self, request: Request) -> Response:
        seen = _key_of_change(request), _tag_of_change(request)
        await run_in_threadpool(self.desk.save_draft, request.path_params["index"], None, *seen)
        return _Json({})

    async def look(self, request: Request) -> Response:
        """Encode a frame ahead of the first click."""
        self._shown(request)
        await run_in_threadpool(self.desk.look, request.path_params["index"])
        return _Json({})

    async def click(self, request: Request) -> Response:
        """The mask of one object from clicks, as H x W bytes of 0 and 1; stores nothing.

        `prompt` in the address is JSON: points, labels and box. The body is the mask of the object before the
        clicks, H x W bytes, or empty.
        """
        project = self._shown(request)
        height, width = project.size
        points, labels, box = _prompt(request.query_params.get("prompt", ""))
        body = await _body(request, height * width)
        if body and len(body) != height * width:
            raise ValueError(f"a mask of this video has {height * width} bytes, not {len(body)}")
        before = np.frombuffer(body, np.uint8).reshape(height, width) != 0 if body else None
        clicked = await run_in_threadpool(
            self.desk.click, request.path_params["index"], points, labels, box, before
        )
        found = gzip.compress(clicked.mask.astype(np.uint8).tobytes(), compresslevel=1)
        headers = {"content-encoding": "gzip", "x-score": f"{clicked.score:.3f}", **_FRESH}
        return Response(found, media_type="application/octet-stream", headers=headers)

    async def undo(self, request: Request) -> Response:
        """Undo the last edit; If-Match is `edits` of the state. Returns what it was, and its frame."""
        what, frame = await run_in_threadpool(self.desk.undo, *_edits_of_change(request))
        return _Json({"what": what, "frame": frame})

    async def redo(self, request: Request) -> Response:
        what, frame = await run_in_threadpool(self.desk.redo, *_edits_of_change(request))
        return _Json({"what": what, "frame": frame})

    async def clips(self, request: Request) -> Response:
        return _Json(await run_in_threadpool(self.desk.clips), headers=_FRESH)

    async def open_clip(self, request: Request) -> Response:
        """Show another clip; tracking of this one goes on."""
        key = _key_of_change(request)
        await run_in_threadpool(self.desk.open_clip, request.path_params["name"], key)
        return _Json({})

    async def remove_clip(self, request: Request) -> Response:
        """Delete a clip and its masks."""
        _key_of_change(request)
        await run_in_threadpool(self.desk.remove_clip, request.path_params["name"])
        return _Json({})

    async def thumbnail(self, request: Request) -> Response:
        body = await run_in_threadpool(self.desk.thumbnail, request.path_params["name"])
        return Response(body, media_type="image/jpeg", headers=_FRESH)

    async def track_all(self, request: Request) -> Response:
        """Track all clips that have masks and frames left, one after another."""
        _key_of_change(request)
        return _Json({"clips": await run_in_threadpool(self.desk.track_all)})

    async def take_back(self, request: Request) -> Response:
        seen = _key_of_change(request), _tag_of_change(request)
        await run_in_threadpool(self.desk.take_back, request.path_params["index"], *seen)
        return _Json({})

    async def remove(self, request: Request) -> Response:
        seen = _edits_of_change(request)
        await run_in_threadpool(self.desk.remove, request.path_params["id"], *seen)
        return _Json({})

    async def rename(self, request: Request) -> Response:
        """Name an object: the body is its name in UTF-8, or empty."""
        key, label = _key_of_change(request), (await _body(request, 1000)).decode("utf-8", "replace")
        await run_in_threadpool(self.desk.rename, request.path_params["id"], label, key)
        return _Json({})

    async def switch(self, request: Request) -> Response:
        """Hide, show alone and lock objects: the body is JSON of all switches."""
        key, switches = _key_of_change(request), parse_switches(await _body(request, 10_000))
        await run_in_threadpool(self.desk.switch, switches, key)
        return _Json({})

    async def read_mask(self, request: Request) -> Response:
        """Returns the ids of a PNG as H x W bytes to paint on; stores nothing."""
        body = await _body(request, MASK_FILE_LIMIT)
        mask = await run_in_threadpool(_ids_of_file, body, self.desk.the_project().size)
        return Response(mask.tobytes(), media_type="application/octet-stream")

    async def open_video(self, request: Request) -> Response:
        """Open a sent video; with `add=1` in the address, only add the video to the list of clips."""
        name, key = _plain_name(request.query_params.get("name", "")), _key_of_change(request)
        show = request.query_params.get("add", "") != "1"
        if show:
            self.desk.check_key(key)  # checked before the whole upload
        folder = await run_in_threadpool(self.desk.upload_folder)
        try:
            with named_temporary(), (folder / name).open("wb") as file:
                async for chunk in _chunks(request, self.upload_limit):
                    await run_in_threadpool(file.write, chunk)
            await run_in_threadpool(self.desk.open_video, folder / name, name, True, key, show=show)
        except BaseException as error:
            (folder / name).unlink(missing_ok=True)
            folder.rmdir()
            if isinstance(error, ValueError):
                raise type(error)(str(error).replace(f"{folder}/", "")) from error
            raise
        return _Json({})

    async def track(self, request: Request) -> Response:
        """Track: `way`, `frames`, `first` and `last` in the address, as for `Desk.track`."""
        asked = request.query_params
        numbers = {name: _number(asked.get(name, ""), name) for name in ("frames", "first", "last")}
        way, key = asked.get("way", "forward"), _key(request)
        await run_in_threadpool(self.desk.track, key=key, direction=way, **numbers)
        return _Json({})

    async def review(self, request: Request) -> Response:
        """The frames to fix, the most useful first."""
        self._shown(request)
        return _Json(await run_in_threadpool(self.desk.suggestions), headers=_FRESH)

    async def stop(self, request: Request) -> Response:
        self.desk.stop(request.query_params.get("all", "") == "1")
        return _Json({})

    async def download(self, request: Request) -> Response:
        outdated = request.query_params.get("outdated", "") == "1"
        self.desk.download(request.path_params["name"], _key(request), outdated)
        return _Json({})

    async def fetch_download(self, request: Request) -> Response:
        name, project = request.path_params["name"], self._shown(request)
        file = self.desk.open_download(name)
        stem = re.sub(r"[^A-Za-z0-9.-]+", "_", Path(project.name).stem)[:100] or "video"
        headers = {
            "content-length": str(os.fstat(file.fileno()).st_size),
            "content-disposition": f'attachment; filename="{stem}-{name}"',
            **_FRESH,
        }
        return StreamingResponse(_pieces(file), media_type="application/octet-stream", headers=headers)

    def _shown(self, request: Request) -> Project:
        """Returns the current project. Raises Outdated if the page shows another."""
        self.desk.check_key(_key(request))
        return self.desk.the_project()


def _key(request: Request) -> str | None:
    """The key of the project shown by the page, or None."""
    return request.headers.get("x-project", request.query_params.get("project"))


def _key_of_change(request: Request) -> str:
    key = _key(request)
    if key is None:
        raise _Unsaid("a change says of which project it is, as x-project: the key of /api/state")
    return key


def _tag_of_change(request: Request) -> str:
    tag = request.headers.get("if-match")
    if tag is None:
        raise _Unsaid("a change says what it was made on, as If-Match: the ETag of a mask, or edits")
    return tag.strip('"')


def _edits_of_change(request: Request) -> tuple[str, int]:
    edits = _tag_of_change(request)
    return _key_of_change(request), int(edits) if re.fullmatch(r"\d{1,15}", edits, re.ASCII) else -1


def _number(text: str, name: str) -> int | None:
    """A whole number of the address; None if it is empty. Raises ValueError if it is none."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{name} is a whole number, not {text!r:.40}")
    return int(text)


def _prompt(text: str) -> tuple[list[tuple[float, float]], list[int], list[float] | None]:
    """Points, labels and box of a prompt in JSON. Raises ValueError unless they are numbers."""
    try:
        said = json.loads(text)
        points = [(float(x), float(y)) for x, y in said["points"]]
        labels = [int(label) for label in said["labels"]]
        box = None if said.get("box") is None else [float(side) for side in said["box"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"a prompt is JSON with points, labels and box, not {text!r:.60}") from error
    return points, labels, box


def _pieces(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while piece := file.read(1 << 20):
            yield piece


def _telling(answer: Callable[[Request], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """Wrap a handler so that errors become one-line JSON responses, never tracebacks."""

    async def told(request: Request) -> Response:
        try:
            return await answer(request)
        except ClientDisconnect:  # the tab was closed during an upload; nobody reads the answer
            return Response(status_code=400)
        except Exception as error:
            foreseen = isinstance(error, (ValueError, OSError, ImportError))
            statuses: dict[type[Exception], int] = {_TooLarge: 413, Busy: 409, Outdated: 409, _Unsaid: 428}
            status = statuses.get(type(error), 400) if foreseen else 500
            return _Json({"error": in_words(error), "outdated": isinstance(error, Outdated)}, status)

    return told


async def _chunks(request: Request, limit: int) -> Any:
    """Yield the body as it arrives. Raises _TooLarge as soon as it exceeds `limit` bytes."""
    declared, read = request.headers.get("content-length", "0"), 0
    too_large = _TooLarge(f"this is larger than {limit:,} bytes, which is the limit")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    async for chunk in request.stream():
        read += len(chunk)
        if read > limit:
            raise too_large
        yield chunk


async def _body(request: Request, limit: int) -> bytes:
    return b"".join([chunk async for chunk in _chunks(request, limit)])


def _plain_name(name: str) -> str:
    """A safe file name without folders: letters, digits, dots, dashes and underscores."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", re.split(r"[/\\]", name)[-1]).lstrip(".")
    return plain[-100:].lstrip(".") or "video"


def _ids_of_file(body: bytes, size: tuple[int, int]) -> Any:
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as picture:  # reads only the header
            shape = (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("this is not an image; a mask is a PNG of ids") from error
    if shape != size:
        have, want = ("x".join(map(str, s)) for s in (shape, size))
        raise ValueError(f"the mask is {have} but the video is {want} (height x width); resize it")
    mask = ids_of_picture(decode_image(io.BytesIO(body), "the mask"))
    if mask.min() < 0 or mask.max() > LARGEST_ID:
        raise ValueError(f"the mask has id {mask.max()}; the page takes ids from 1 to {LARGEST_ID}")
    return mask.astype(np.uint8)
