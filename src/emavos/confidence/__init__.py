"""How reliable a mask is."""

from emavos.confidence.expected import ObjectState

__all__ = ["ObjectState"]
