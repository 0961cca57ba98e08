"""The mask of one object from clicks, a box, scribbles or an earlier mask, on the key encoder's features."""

from emavos.clicks.model import ClickHead
from emavos.clicks.prompt import Prompt
from emavos.clicks.seen import Clicked, SeenFrame

__all__ = ["ClickHead", "Clicked", "Prompt", "SeenFrame"]
