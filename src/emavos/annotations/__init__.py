"""Masks of annotation tools (Labelme, CVAT, COCO, Label Studio, VIA, YOLO, NumPy), and lists of labels."""

from emavos.annotations.arrays import read_arrays
from emavos.annotations.labels import LabelMap, read_labels
from emavos.annotations.reading import Annotations, read_annotations, read_names
from emavos.annotations.writing import VideoMasks, write_annotations

__all__ = [
    "Annotations",
    "LabelMap",
    "VideoMasks",
    "read_annotations",
    "read_arrays",
    "read_labels",
    "read_names",
    "write_annotations",
]
