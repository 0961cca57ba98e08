"""Masks of single objects from clicks, boxes, scribbles or earlier masks."""

from emavos.clicks.model import ClickHead
from emavos.clicks.prompt import Prompt
from emavos.clicks.seen import Clicked, SeenFrame

__all__ = ["ClickHead", "Clicked", "Prompt", "SeenFrame"]
