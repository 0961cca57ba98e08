"""Connections that send no request, or no HTTP."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any


def impatient(seconds: float = 10, most: int = 64) -> Any:
    """A protocol class for uvicorn with a timeout for the next request of a connection.

    uvicorn itself waits without limit for the header of a request, so clients without the token could use up
    all file descriptors of the process. It also answers a request whose body is no HTTP a second time, and
    logs the traceback of its own error.

    seconds: time for the whole header of a request, counted from the start of the connection or the last
        response.
    most: largest number of waiting connections; a further connection closes the one waiting longest.
    """
    from h11 import LocalProtocolError
    from uvicorn.protocols.http.h11_impl import H11Protocol

    waiting: dict[Any, asyncio.TimerHandle] = {}

    class Impatient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()

        def on_response_complete(self) -> None:
            self._wait()
            super().on_response_complete()  # may start on a request already received
            if not self.cycle.response_complete:
                self._stop_waiting()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def send_400_response(self, msg: str) -> None:
            """Refuse what is no HTTP; an answer to what came before it can no longer be sent."""
            with suppress(LocalProtocolError):  # a part of that answer was sent already
                super().send_400_response(msg)
            self.transport.close()
            if self.cycle is not None:
                self.cycle.disconnected = True
                self.cycle.message_event.set()

        def _wait(self) -> None:
            self._stop_waiting()
            waiting[self] = self.loop.call_later(seconds, self._give_up)
            if len(waiting) > most:
                next(iter(waiting))._give_up()

        def _stop_waiting(self) -> None:
            if (timer := waiting.pop(self, None)) is not None:
                timer.cancel()

        def _give_up(self) -> None:
            self._stop_waiting()
            self.transport.abort()

    return Impatient
