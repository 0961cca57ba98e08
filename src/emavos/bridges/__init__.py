"""Convert masks to and from other tools, one format per module. Extra packages are imported on use."""

from emavos.annotations.outlines import box_of, outlines
from emavos.annotations.rle import Rle, decode_rle, encode_rle
from emavos.bridges.coco import CocoWriter, read_coco
from emavos.bridges.detections import to_detections
from emavos.bridges.first import first_mask
from emavos.bridges.layouts import Clip, read_layout
from emavos.bridges.matching import Matches, match
from emavos.bridges.stacks import read_stack, stack_masks, write_stack

__all__ = [
    "Clip",
    "CocoWriter",
    "Matches",
    "Rle",
    "box_of",
    "decode_rle",
    "encode_rle",
    "first_mask",
    "match",
    "outlines",
    "read_coco",
    "read_layout",
    "read_stack",
    "stack_masks",
    "to_detections",
    "write_stack",
]
