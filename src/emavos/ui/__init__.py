"""A local web page to paint objects, track them, correct mistakes and download the masks."""

from emavos.ui.desk import Desk
from emavos.ui.project import Project
from emavos.ui.table import Busy, Outdated

__all__ = ["Busy", "Desk", "Outdated", "Project"]
