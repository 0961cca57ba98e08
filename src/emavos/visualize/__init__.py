"""Pictures of masks and scores: coloured overlays, contact sheets, grids, curves."""

from emavos.io.ids import colour
from emavos.visualize.curves import curves
from emavos.visualize.overlays import cut_out, overlay
from emavos.visualize.sheets import INK, PAPER, comparison_grid, contact_sheet

__all__ = ["INK", "PAPER", "colour", "comparison_grid", "contact_sheet", "curves", "cut_out", "overlay"]
