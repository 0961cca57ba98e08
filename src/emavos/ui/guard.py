"""Who may talk to the page: those who know its address, from a page of its own."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from http.cookies import CookieError, SimpleCookie
from typing import Any
from urllib.parse import parse_qs

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_HEADERS = (
    (b"content-security-policy", b"default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


class Guard:
    """An ASGI application around another that lets in requests of its own page alone.

    A request is refused where its Host is no name of this server (a name that a stranger points here), where
    its Origin is another page, and where it has not the token: the first address has it, and leaves a
    cookie. Every answer forbids the page to load, or be framed by, anything from elsewhere.

    host: the address that the server listens on. Beyond loopback, addresses in digits and this machine's
        names are its Host too.
    """

    def __init__(self, app: Any, token: str, host: str = "127.0.0.1") -> None:
        self.app = app
        self.token = token
        self.names = {"localhost", "127.0.0.1", "::1"}
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
        if not self._is_ours(host):
            await _answer(send_with_headers, 400, "this server has another name; see the Host header")
        elif headers.get("origin", f"http://{host}") != f"http://{host}":
            await _answer(send_with_headers, 403, "requests of other pages are refused")
        elif self._same(parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]):
            cookie = f"{self._cookie(host)}={self.token}; Path=/; HttpOnly; SameSite=Strict"
            await _answer(
                send_with_headers, 303, "", [(b"location", b"/"), (b"set-cookie", cookie.encode("latin-1"))]
            )
        elif not self._same(_cookies(headers.get("cookie", "")).get(self._cookie(host), "")):
            await _answer(send_with_headers, 403, "open the address that `emavos ui` printed, token included")
        else:
            await self.app(scope, receive, send_with_headers)

    def _is_ours(self, host: str) -> bool:
        name = _without_port(host).lower()
        return name in self.names or (self.digits and _is_address(name))

    def _same(self, given: str) -> bool:
        return secrets.compare_digest(given.encode("utf-8", "replace"), self.token.encode())

    def _cookie(self, host: str) -> str:
        """Cookies do not tell ports apart, so their names do."""
        return f"emavos-{host.rpartition(':')[2] if host[-1].isdecimal() else ''}".rstrip("-")


def is_loopback(host: str) -> bool:
    """Whether an address to listen on is of this machine alone."""
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


def _cookies(header: str) -> dict[str, str]:
    try:
        return {name: morsel.value for name, morsel in SimpleCookie(header).items()}
    except CookieError:
        return {}


async def _answer(send: Send, status: int, text: str, headers: Iterable[tuple[bytes, bytes]] = ()) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *headers]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
