"""A local web page to paint objects, track them, correct mistakes and download the masks."""

from emavos.ui.desk import Busy, Desk, Outdated
from emavos.ui.project import Project

__all__ = ["Busy", "Desk", "Outdated", "Project"]
