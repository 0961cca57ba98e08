"""One video: the session that tracks its objects, its memory, and its results."""

from emavos.session.frame import EncodedFrame
from emavos.session.result import Result
from emavos.session.session import Session

__all__ = ["EncodedFrame", "Result", "Session"]
