"""One video: the session that follows its objects, what it remembers, and the results that come of it."""

from emavos.session.result import Result
from emavos.session.session import Session
from emavos.session.shortcuts import Shortcuts

__all__ = ["Result", "Session", "Shortcuts"]
