"""One video: the session that follows its objects, what it remembers, and the results that come of it."""

from emavos.session.result import Result
from emavos.session.session import Session

__all__ = ["Result", "Session"]
