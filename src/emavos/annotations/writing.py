"""Masks in the files of other tools: COCO, YouTube-VIS, CVAT, Label Studio, Labelme and YOLO."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import NDArray

from emavos.annotations.labels import hex_of
from emavos.annotations.labelstudio import encode_brush
from emavos.annotations.outlines import box_of, outlines
from emavos.annotations.rle import decode_rle, encode_rle
from emavos.annotations.shapes import frame_name
from emavos.io.ids import IdMask, colour
from emavos.io.images import PathLike
from emavos.io.whole import replacing

_INSIDE = 0.25  # of a pixel: fractions are rounded, and readers of YOLO truncate


@dataclass
class VideoMasks:
    """The masks of a video, to write them for another tool.

    names: {id: label}; objects without a name are called by their id.
    suffix: of the images, for formats that name the image of a mask.
    tolerance: largest distance in pixels between a polygon and the mask; 0 is exact. Only for polygons.
    """

    names: Mapping[int, str] = field(default_factory=dict)
    suffix: str = ".jpg"
    tolerance: float = 0.0
    frames: list[Frame] = field(default_factory=list)

    def add(self, name: str, mask: IdMask) -> None:
        """Add the next frame.

        name: name of the frame, without suffix.
        mask: (H, W) of ids.
        """
        if mask.ndim != 2 or mask.dtype.kind not in "bui":
            raise ValueError(f"a mask is (H, W) of integers, not {mask.shape} of {mask.dtype}")
        if self.frames and mask.shape != self.frames[0].size:
            now, began = ("x".join(map(str, size)) for size in (mask.shape, self.frames[0].size))
            raise ValueError(f"mask {name} is {now} but the first is {began} (height x width); resize it")
        ids = [int(id) for id in np.unique(mask) if id]
        runs = {id: encode_rle(mask == id) for id in ids}
        self.frames.append(Frame(frame_name(f"{name}.png"), (mask.shape[0], mask.shape[1]), runs))

    @property
    def ids(self) -> list[int]:
        """All objects, in order."""
        return sorted({id for frame in self.frames for id in frame.runs})

    def label(self, id: int) -> str:
        """The label of an object."""
        return self.names.get(id, str(id))

    @property
    def labels(self) -> list[str]:
        """All labels, in the order of their ids, each once."""
        return list(dict.fromkeys(self.label(id) for id in self.ids))


@dataclass(frozen=True)
class Frame:
    """A frame of `VideoMasks`: its name, (H, W), and {id: run-length encoding}."""

    name: str
    size: tuple[int, int]
    runs: Mapping[int, Any]

    def planes(self) -> Iterable[tuple[int, NDArray[np.bool_]]]:
        """Yield each id with its binary mask (H, W)."""
        for id, rle in self.runs.items():
            yield id, decode_rle(rle)


def write_annotations(path: PathLike, masks: VideoMasks, kind: str) -> None:
    """Write masks for another tool: see `WRITERS` for the kinds.

    path: file to write; a folder, new or empty, for "labelme" and "yolo".
    masks: the masks of a video.
    kind: "coco", "youtube-vis", "cvat", "label-studio", "labelme" or "yolo".

    Raises ValueError for another kind, and if there are no masks.
    """
    if kind not in WRITERS:
        raise ValueError(f"there is no format {kind!r:.40}; the formats are {', '.join(WRITERS)}")
    if not masks.frames:
        raise ValueError("there are no masks to write")
    files = WRITERS[kind](masks)
    if isinstance(files, str):
        _write(Path(path), files)
        return
    folder = Path(path)
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is not an empty folder; choose another one")
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        _write(folder / name, text)


def _write(path: Path, text: str) -> None:
    with replacing(path) as partial:
        partial.write_text(text, encoding="utf-8")


def _labelme(masks: VideoMasks) -> dict[str, str]:
    """A JSON of polygons for each image; the parts of an object have its id as `group_id`."""
    return {
        f"{frame.name}.json": _json(
            {
                "version": "5.5.0",
                "flags": {},
                "shapes": [
                    {
                        "label": masks.label(id),
                        "points": points.tolist(),
                        "group_id": id,
                        "description": "",
                        "shape_type": "polygon",
                        "flags": {},
                        "mask": None,
                    }
                    for id, plane in frame.planes()
                    for points in outlines(plane, masks.tolerance)
                ],
                "imagePath": f"{frame.name}{masks.suffix}",
                "imageData": None,
                "imageHeight": frame.size[0],
                "imageWidth": frame.size[1],
            }
        )
        for frame in masks.frames
    }


def _yolo(masks: VideoMasks) -> dict[str, str]:
    """`labels/NAME.txt` with a polygon per line, and the classes in `data.yaml` and `classes.txt`."""
    classes = {label: number for number, label in enumerate(masks.labels)}
    files = {"classes.txt": "".join(f"{label}\n" for label in classes)}
    listed = "".join(f"  {number}: {json.dumps(label)}\n" for label, number in classes.items())
    files["data.yaml"] = f"path: .\ntrain: images\nval: images\nnames:\n{listed}"
    for frame in masks.frames:
        lines = []
        for id, plane in frame.planes():
            for points in outlines(plane, masks.tolerance):
                fractions = (points + _INSIDE) / (frame.size[1], frame.size[0])
                values = " ".join(f"{value:.6f}" for value in fractions.ravel())
                lines.append(f"{classes[masks.label(id)]} {values}")
        files[f"labels/{frame.name}.txt"] = "".join(f"{line}\n" for line in lines)
    return files


def _youtube_vis(masks: VideoMasks) -> str:
    """YouTube-VIS: one annotation per object, with a run-length encoding, box and area for each frame."""
    height, width = masks.frames[0].size
    files = [f"video/{frame.name}{masks.suffix}" for frame in masks.frames]
    categories = {label: number for number, label in enumerate(masks.labels, 1)}
    annotations = []
    for number, id in enumerate(masks.ids, 1):
        runs = [frame.runs.get(id) for frame in masks.frames]
        planes = [dict(frame.planes()).get(id) for frame in masks.frames]
        boxes = [None if plane is None else box_of(plane) for plane in planes]
        annotations.append(
            {
                "id": number,
                "video_id": 1,
                "track_id": id,
                "category_id": categories[masks.label(id)],
                "segmentations": runs,
                "bboxes": [None if b is None else [b[0], b[1], b[2] - b[0], b[3] - b[1]] for b in boxes],
                "areas": [None if plane is None else int(plane.sum()) for plane in planes],
                "iscrowd": 0,
                "height": height,
                "width": width,
                "length": len(files),
            }
        )
    return _json(
        {
            "info": {"description": "written by emavos"},
            "videos": [
                {"id": 1, "file_names": files, "height": height, "width": width, "length": len(files)}
            ],
            "categories": [{"id": n, "name": label, "supercategory": ""} for label, n in categories.items()],
            "annotations": annotations,
        }
    )


def _cvat(masks: VideoMasks) -> str:
    """CVAT for images 1.1: a mask per object, with its id as `group_id`."""
    labels = "".join(
        f"<label><name>{_text(label)}</name><color>{hex_of(colour(place))}</color><type>mask</type>"
        "<attributes></attributes></label>"
        for place, label in enumerate(masks.labels, 1)
    )
    images = []
    for number, frame in zip(_numbers([frame.name for frame in masks.frames]), masks.frames, strict=True):
        height, width = frame.size
        shapes = []
        for id, plane in frame.planes():
            left, top, right, bottom = box_of(plane)
            part = plane[top:bottom, left:right]
            attributes = {
                "label": masks.label(id),
                "source": "auto",
                "occluded": 0,
                "rle": ", ".join(map(str, _runs_by_row(part))),
                "left": left,
                "top": top,
                "width": right - left,
                "height": bottom - top,
                "z_order": 0,
                "group_id": id,
            }
            listed = " ".join(f"{key}={quoteattr(str(value))}" for key, value in attributes.items())
            shapes.append(f"<mask {listed}></mask>")
        name = quoteattr(f"{frame.name}{masks.suffix}")
        head = f'<image id="{number}" name={name} width="{width}" height="{height}">'
        images.append("\n".join([head, *shapes, "</image>"]))
    meta = f"<meta><task><size>{len(images)}</size><labels>{labels}</labels></task></meta>"
    begin = ('<?xml version="1.0" encoding="utf-8"?>', "<annotations>", "<version>1.1</version>", meta)
    return "\n".join((*begin, *images, "</annotations>", ""))


def _numbers(names: Sequence[str]) -> list[int]:
    """The number of each frame, by which CVAT finds the frames of a video: the number in its name.

    CVAT counts from 0. If the lowest number in the names is 1, the names count from 1.
    """
    if all(name.isdecimal() for name in names):
        lowest = min(map(int, names), default=0)
        return [int(name) - (lowest == 1) for name in names]
    return list(range(len(names)))


def _label_studio(masks: VideoMasks) -> str:
    """Tasks of Label Studio with a brush per object, for a `<BrushLabels name="tag" toName="image">`."""
    tasks = []
    for frame in masks.frames:
        height, width = frame.size
        results = [
            {
                "id": f"object{id}",
                "type": "brushlabels",
                "from_name": "tag",
                "to_name": "image",
                "original_width": width,
                "original_height": height,
                "image_rotation": 0,
                "value": {"format": "rle", "rle": encode_brush(plane), "brushlabels": [masks.label(id)]},
            }
            for id, plane in frame.planes()
        ]
        image = f"/data/local-files/?d={frame.name}{masks.suffix}"
        tasks.append({"data": {"image": image}, "annotations": [{"result": results}]})
    return _json(tasks)


def _runs_by_row(plane: NDArray[np.bool_]) -> list[int]:
    """The lengths of runs row by row, background first."""
    flat = plane.ravel()
    ends = np.append(np.flatnonzero(flat[1:] != flat[:-1]) + 1, flat.size)
    runs: list[int] = np.diff(ends, prepend=0).tolist()
    return [0, *runs] if flat[0] else runs


def _text(text: str) -> str:
    return quoteattr(text)[1:-1].replace("&quot;", '"')


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=False) + "\n"


def _coco(masks: VideoMasks) -> str:
    """COCO: an image per frame, an annotation per object and frame, with the id as `track_id`."""
    categories = {label: number for number, label in enumerate(masks.labels, 1)}
    images, annotations = list[Any](), list[Any]()
    for number, frame in enumerate(masks.frames, 1):
        height, width = frame.size
        file = f"{frame.name}{masks.suffix}"
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        for id, plane in frame.planes():
            left, top, right, bottom = box_of(plane)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": categories[masks.label(id)],
                    "track_id": id,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(plane.sum()),
                    "iscrowd": 0,
                    "segmentation": frame.runs[id],
                }
            )
    listed = [{"id": number, "name": label} for label, number in categories.items()]
    return _json({"images": images, "annotations": annotations, "categories": listed})


WRITERS: dict[str, Callable[[VideoMasks], str | dict[str, str]]] = {
    "coco": _coco,
    "youtube-vis": _youtube_vis,
    "cvat": _cvat,
    "label-studio": _label_studio,
    "labelme": _labelme,
    "yolo": _yolo,
}
FOLDERS = ("labelme", "yolo")  # kinds that are written as a folder
