"""Access control of the page: only requests with the token, sent from the page itself."""

from __future__ import annotations

import hmac
import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_LONGEST_PATH = 256  # a number with thousands of digits would be an error of Python
TOKEN_HEADER = "x-emavos-token"
_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """ASGI middleware that rejects all requests except those of the application's own page.

    A request is rejected if its Host is not a name of this server (as in DNS rebinding), its Origin is
    another site, or the token is missing. Every response forbids the page to load content from other sites or
    to be framed by them.

    The printed address contains the token and redirects to the page with the token after `#`, visible only to
    the page's script. The script sends the token as a header (`TOKEN_HEADER`) with each request. Browsers
    send the cookies of a host to every server on the host, whatever the port. A browser's cookie therefore
    opens only the public files of the page. A program that keeps cookies (curl, httpx) visits no other server
    unasked, so its cookie counts as the token.

    app: ASGI application to protect.
    token: secret token.
    host: address the server listens on. If not loopback, numeric addresses and this machine's names are
        accepted as Host too.
    public: paths opened by a browser's cookie.
    """

    def __init__(self, app: Any, token: str, host: str = "127.0.0.1", public: Iterable[str] = ()) -> None:
        self.app = app
        self.token = token
        self.public = frozenset(public)
        self.names = {"localhost"}
        self.digits = not is_loopback(host)
        if self.digits:
            self.names |= {host.lower(), socket.gethostname().lower(), socket.getfqdn().lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        host = headers.get("host", "")
        token = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        if not self._is_ours(host):
            await _refuse(send_with_headers, 400, "this server has another name; see the Host header")
        elif headers.get("origin", f"http://{host}") != f"http://{host}":
            await _refuse(send_with_headers, 403, "requests of other pages are refused")
        elif self._same(token):
            browser = "mozilla" in headers.get("user-agent", "").lower()  # sent by all browsers
            cookie = f"{_cookie(host)}={self._derived('page' if browser else 'program', host)}"
            answer = [
                (b"location", f"/#{token}".encode("latin-1")),
                (b"set-cookie", f"{cookie}; Path=/; HttpOnly; SameSite=Lax".encode("latin-1")),
            ]
            await _answer(send_with_headers, 303, "", answer)
        elif not self._lets_in(scope["path"], headers, host):
            await _refuse(send_with_headers, 403, "open the address that `emavos ui` printed, token included")
        elif len(scope["path"]) > _LONGEST_PATH:
            await _refuse(send_with_headers, 404, "there is no such page")
        else:
            await self.app(scope, receive, send_with_headers)

    def _lets_in(self, path: str, headers: Mapping[str, str], host: str) -> bool:
        if self._same(headers.get(TOKEN_HEADER, "")):
            return True
        kinds = ["program", "page"] if path in self.public else ["program"]
        good = [self.token, *(self._derived(kind, host) for kind in kinds)]
        sent = _cookies(headers.get("cookie", ""), _cookie(host))
        return any(_equal(value, one) for value in sent for one in good)

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).lower()
        return name in self.names or is_loopback(name) or (self.digits and _is_address(name))

    def _same(self, token: str) -> bool:
        return _equal(token, self.token)

    def _derived(self, kind: str, host: str) -> str:
        """A cookie value derived from the token and port; the token cannot be recovered from it."""
        return hmac.new(self.token.encode(), f"{kind} {_port(host)}".encode(), "sha256").hexdigest()


def is_loopback(host: str) -> bool:
    """Whether a listening address is reachable only from this machine."""
    return host == "localhost" or (_is_address(host) and ipaddress.ip_address(host).is_loopback)


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _port(host: str) -> str:
    return host.rpartition(":")[2] if ":" in host and host[-1].isdecimal() else ""


def _cookie(host: str) -> str:
    """The name of the page's cookie, with the port, since browsers share cookies between ports."""
    return f"emavos-{_port(host)}".rstrip("-")


def _cookies(header: str, name: str) -> list[str]:
    """All values sent for the cookie `name`; other programs on this host may add cookies of their own."""
    pairs = (part.partition("=") for part in header.split(";"))
    return [value.strip().strip('"') for key, _, value in pairs if key.strip() == name]


def _equal(sent: str, secret: str) -> bool:
    return secrets.compare_digest(sent.encode("utf-8", "replace"), secret.encode())


async def _refuse(send: Send, status: int, text: str) -> None:
    """Send an error and close the connection, so that a rejected client cannot keep connections open."""
    await _answer(send, status, text, [(b"connection", b"close")])


async def _answer(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
