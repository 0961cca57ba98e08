"""What the server answers: JSON, files in pieces, and errors as one line of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, BinaryIO
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from emavos.ui.job import in_words
from emavos.ui.server.requests import TooLarge, Unsaid
from emavos.ui.table import Busy, Outdated

FRESH = {"cache-control": "no-store"}
Handler = Callable[[Request], Awaitable[Response]]


class Json(JSONResponse):
    """JSON in ASCII: names of files that are no UTF-8 have letters that UTF-8 lacks."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, allow_nan=False).encode("ascii")


def telling_errors(handler: Handler) -> Handler:
    """Wrap a handler so that errors become one-line JSON responses, never tracebacks."""

    async def answer(request: Request) -> Response:
        try:
            return await handler(request)
        except ClientDisconnect:  # the tab was closed during an upload; nobody reads the answer
            return Response(status_code=400)
        except Exception as error:
            foreseen = isinstance(error, (ValueError, OSError, ImportError))
            statuses: dict[type[Exception], int] = {TooLarge: 413, Busy: 409, Outdated: 409, Unsaid: 428}
            status = statuses.get(type(error), 400) if foreseen else 500
            return Json({"error": in_words(error), "outdated": isinstance(error, Outdated)}, status)

    return answer


def attachment(name: str) -> str:
    """The header Content-Disposition of a file to save (RFC 6266).

    Clients that cannot read the name in UTF-8 get a name of ASCII letters.
    """
    fit = re.sub(r'[\x00-\x1f\x7f<>:"/\\|?*]+', "_", name)  # what no system accepts in a name
    plain = re.sub(r"[^A-Za-z0-9.-]+", "_", name)
    return f"attachment; filename=\"{plain}\"; filename*=UTF-8''{quote(fit, safe='', errors='replace')}"


def pieces_of(file: BinaryIO) -> Iterator[bytes]:
    """Yield a file in pieces of one MiB, and close it."""
    with file:
        while piece := file.read(1 << 20):
            yield piece
