"""A small RTSP server for tests: plays MPEG-4 frames over one TCP connection, on 127.0.0.1."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import count, cycle

import av
import numpy as np
from numpy.typing import NDArray

_SDP = (
    "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n"
    "m=video 0 RTP/AVP 96\r\na=rtpmap:96 MP4V-ES/90000\r\na=framerate:25\r\na=control:track\r\n"
)


def encoded(frames: Sequence[NDArray[np.uint8]]) -> list[bytes]:
    """A packet of MPEG-4 for each frame (H, W, 3), each a key frame with the headers of the stream."""
    codec = av.CodecContext.create("mpeg4", "w")
    codec.height, codec.width = frames[0].shape[:2]
    codec.pix_fmt, codec.framerate, codec.options = "yuv420p", 25, {"g": "1", "qscale": "1"}
    codec.bit_rate = 8_000_000
    packets = [p for f in frames for p in codec.encode(av.VideoFrame.from_ndarray(f, format="rgb24"))]
    return [bytes(packet) for packet in [*packets, *codec.encode(None)]]


@contextmanager
def playing(
    frames: Sequence[NDArray[np.uint8]], most: int | None = None, password: str = ""
) -> Iterator[str]:
    """Serve frames over and over; yields the address.

    most: number of frames after which the server hangs up; None plays on.
    password: if it is not "", requests without credentials are refused.
    """
    packets = encoded(frames)

    class Client(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            try:
                while request := self._request():
                    if self._answered(*request) == "PLAY":
                        self._play()
                        return
            except OSError:  # the client has left
                pass

        def _request(self) -> tuple[str, dict[str, str]] | None:
            lines = []
            while line := self.rfile.readline().decode().strip():
                lines.append(line)
            if not lines:
                return None
            return lines[0].split()[0], dict(line.split(": ", 1) for line in lines[1:])

        def _answered(self, method: str, fields: dict[str, str]) -> str:
            status, more, body = "200 OK", ["Session: 1"], ""
            if password and "Authorization" not in fields:
                status, more = "401 Unauthorized", ['WWW-Authenticate: Basic realm="test"']
            elif method == "OPTIONS":
                more.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
            elif method == "DESCRIBE":
                body = _SDP
                more += ["Content-Type: application/sdp", f"Content-Length: {len(body)}"]
            elif method == "SETUP":
                more.append("Transport: RTP/AVP/TCP;unicast;interleaved=0-1")
            answer = "\r\n".join([f"RTSP/1.0 {status}", f"CSeq: {fields['CSeq']}", *more, "", body])
            self.wfile.write(answer.encode())
            return method if status.startswith("200") else ""

        def _play(self) -> None:
            sequence = count()
            for number, packet in enumerate(cycle(packets)):
                if most is not None and number == most:
                    return
                parts = [packet[i : i + 1400] for i in range(0, len(packet), 1400)]
                for part in parts:
                    last = 0x80 if part is parts[-1] else 0
                    head = struct.pack(
                        ">BBHII", 0x80, 96 | last, next(sequence) & 0xFFFF, 3600 * number & 0xFFFFFFFF, 7
                    )
                    self.wfile.write(b"$\0" + struct.pack(">H", len(head) + len(part)) + head + part)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    with Server(("127.0.0.1", 0), Client) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/live"
        finally:
            server.shutdown()
            thread.join()
