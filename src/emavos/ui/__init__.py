"""A local web page: paint the objects of a frame, follow them, mend what went wrong, take the masks home."""

from emavos.ui.desk import Busy, Desk, Outdated
from emavos.ui.project import Project

__all__ = ["Busy", "Desk", "Outdated", "Project"]
