"""Feed a reader of files what coverage-guided fuzzing thinks of.

    pip install atheris
    python tests/fuzz.py masks --minutes 10
    python tests/fuzz.py all --minutes 60 --blind

Without atheris, or with --blind, the same changes are made blindly, for so many minutes of CPU time each. A
reader either takes a file, or raises a ValueError that names it; all else is a finding, which stays in the
folder that --out names, with the inputs that reached something new. atheris is in no extra of the package.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import copy
import json
import math
import os
import random
import re
import shutil
import struct
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch


def instrumented() -> contextlib.AbstractContextManager[Any]:
    """Modules that are imported within tell atheris which of their branches are taken."""
    if __name__ != "__main__":
        return contextlib.nullcontext()
    try:
        import atheris
    except ImportError:
        return contextlib.nullcontext()

    return atheris.instrument_imports(include=["emavos", "safetensors", "PIL"], enable_loader_override=False)


with instrumented():
    from PIL import Image

    from emavos import Predictor, Session, weights
    from emavos.annotations import read_annotations, read_arrays, read_labels
    from emavos.annotations.rle import encode_rle
    from emavos.batch import Batch, Job, find_jobs
    from emavos.bridges import CocoWriter, read_coco, read_stack, write_stack
    from emavos.cli.confidences import COLUMNS, read_confidences, write_confidences
    from emavos.cli.resuming import Progress
    from emavos.evaluation import PROTOCOLS, find_videos
    from emavos.evaluation.burst import read_burst
    from emavos.evaluation.prediction import Run, Timing
    from emavos.evaluation.report import Method, overview
    from emavos.io import FrameSource, images, open_frames, read_frame, read_mask, write_mask
    from emavos.training import TrainConfig
    from emavos.training.checkpoint import load_checkpoint, save_checkpoint
    from emavos.training.learner import Learner
    from emavos.ui import Project
    from emavos.ui.importing import import_video
    from emavos.weights.click_head import load_clicks
    from emavos.weights.load import load_model, save_model

Raw = Callable[[bytes], bytes]  # changes bytes without knowing what they mean
FRAME = np.full((32, 48, 3), 90, np.uint8)
MODEL = load_model()
PREDICTOR = Predictor(MODEL, size=None)
HEAD = Path(weights.__file__).parent / "tiny" / "clicks.safetensors"
RUN = TrainConfig(
    iterations=4, decay_from=2, warmup=1, batch=1, size=48, all_pixels_until=1, hardest_from=3, ema=0.5
)
LONGEST = 1 << 18  # bytes of an input
SIGNATURE = b"\x89PNG\r\n\x1a\n"
ODD: list[Any] = [None, True, 0, -1, 1, 2, 2**31, 2**53, 2**63, -(2**63), 10**30, 0.5, 1e308]
ODD += [math.nan, math.inf, "", "a", "\0", "../a", "F64", "BOOL", [], [[]], [0], {}, {"a": 1}]


@dataclass(frozen=True)
class Target:
    """seeds: files to begin with, made in a folder. feed: read a file of such bytes. mutate: change them."""

    seeds: Callable[[Path], list[bytes]]
    feed: Callable[[Path, bytes], None]
    mutate: Callable[[bytes, random.Random, Raw], bytes]


# masks: PNGs with checksums that are right, so that more than the checksums is tested


def mask_seeds(home: Path) -> list[bytes]:
    mask = np.zeros((12, 16), np.int32)
    mask[3:9, 4:12] = 1
    seeds = []
    for id in (2, 300):
        mask[5:7, 5:10] = id
        write_mask(home / "seed.png", mask)
        seeds.append((home / "seed.png").read_bytes())
    picture = Image.fromarray(mask.astype(np.uint8) * 100)
    for mode in ("1", "L", "LA", "RGB", "RGBA"):
        for form in ("PNG", "TIFF", "BMP", "GIF", "PPM", "WEBP", "JPEG"):
            file = BytesIO()
            with contextlib.suppress(OSError):  # not every format has every mode
                picture.convert(mode).save(file, format=form)
                seeds.append(file.getvalue())
    return seeds


def feed_mask(home: Path, content: bytes) -> None:
    path = home / "fed.png"
    path.write_bytes(content)
    for read in (read_frame, read_mask):
        array = None
        with _refused(path):
            array = read(path)
        if array is None:
            continue
        assert array.dtype == (np.uint8 if read is read_frame else np.int32)
        if read is read_mask and array.min() >= 0 and array.max() <= 0xFFFF:
            write_mask(home / "again.png", array)
            assert np.array_equal(read_mask(home / "again.png"), array)


def mutate_mask(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    try:
        chunks = [*_chunks(content)]
    except (struct.error, ValueError):
        return raw(content)
    at = generator.randrange(len(chunks))
    kind, body = chunks[at]
    if generator.random() < 0.2:
        chunks.insert(generator.randrange(len(chunks)), chunks[at])
    elif kind == b"IDAT" and generator.random() < 0.5:
        with contextlib.suppress(zlib.error):
            chunks[at] = kind, zlib.compress(raw(zlib.decompress(body)))
    else:
        chunks[at] = kind, raw(body)
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return SIGNATURE + b"".join(parts)


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    if not content.startswith(SIGNATURE):
        raise ValueError("no PNG")
    place = len(SIGNATURE)
    while place < len(content):
        (length,) = struct.unpack_from(">I", content, place)
        yield content[place + 4 : place + 8], content[place + 8 : place + 8 + length]
        place += 12 + length


# configs, weights and saved sessions: JSON that stays JSON, or nearly


def odd(tree: Any, generator: random.Random) -> Any:
    """The same tree but for one place of it, or a few."""
    if isinstance(tree, (dict, list)) and tree and generator.random() < 0.9:
        copy: Any = tree.copy()
        key = generator.choice([*copy] if isinstance(copy, dict) else range(len(copy)))
        change = generator.random()
        if change < 0.1:
            del copy[key]
        elif change < 0.2 and isinstance(copy, list):
            copy.append(copy[key])
        elif change < 0.2:
            copy[f"{key}_"] = copy[key]
        elif change < 0.3:
            other = generator.choice([*copy] if isinstance(copy, dict) else range(len(copy)))
            copy[key], copy[other] = copy[other], copy[key]
        else:
            copy[key] = odd(copy[key], generator)
        return copy if generator.random() < 0.8 else odd(copy, generator)
    if type(tree) is int and generator.random() < 0.4:
        return tree + generator.choice((-1, 1))
    return generator.choice(ODD)


def config_seeds(home: Path) -> list[bytes]:
    save_model(MODEL, home / "seed")
    return [(home / "seed" / "config.json").read_bytes(), b"{}"]


def feed_config(home: Path, content: bytes) -> None:
    (home / "config.json").write_bytes(content)
    (home / "model.safetensors").write_bytes(struct.pack("<Q", 2) + b"{}")
    with _refused(home):
        load_model(home)
        raise AssertionError("a model without weights was loaded")


def mutate_json(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    try:
        tree = json.loads(content)
    except (ValueError, RecursionError):
        return raw(content)
    return raw(content) if generator.random() < 0.2 else json.dumps(odd(tree, generator)).encode()


def weights_seeds(home: Path) -> list[bytes]:
    """Headers alone: the numbers are all zero, and as many as a header wants."""
    save_model(MODEL, home / "seed")
    whole = (home / "seed" / "model.safetensors").read_bytes()
    header = json.loads(whole[8 : 8 + int.from_bytes(whole[:8], "little")])
    few = {key: header[key] for key in [*header][:3]}
    return [
        _headed(tree)
        for tree in (header, few, {"a": {"dtype": "F8_E4M3", "shape": [], "data_offsets": [0, 1]}})
    ]


def feed_weights(home: Path, content: bytes) -> None:
    (home / "config.json").write_text(json.dumps(MODEL.config.to_dict()))
    _write_headed(home / "model.safetensors", content)
    with _refused(home):
        load_model(home)


def _write_headed(path: Path, content: bytes) -> None:
    """Write a safetensors file with as many zeros as its header wants, in a hole of the file."""
    path.write_bytes(content)
    with contextlib.suppress(Exception):  # it is no header; what it is then is for the reader to say
        header, held = _split(content)
        ends = [tensor["data_offsets"][1] for key, tensor in header.items() if key != "__metadata__"]
        os.truncate(path, len(content) + min(max(max(ends) - len(held), 0), 1 << 25))


def session_seeds(home: Path) -> list[bytes]:
    session = Session(MODEL, size=None)
    session.step(FRAME, np.eye(32, 48, dtype=np.uint8) * 7)
    session.save(home / "seed")
    seeds = [(home / "seed").read_bytes()]
    session.step(FRAME, np.eye(32, 48, k=9, dtype=np.uint8) * 8)
    session.save(home / "seed")
    return [*seeds, (home / "seed").read_bytes()]


def feed_session(home: Path, content: bytes) -> None:
    path = home / "fed"
    path.write_bytes(content)
    with _refused(path):
        session = Session.load(path, MODEL)
        height, width = session.frame_size or FRAME.shape[:2]
        if max(height, width) > 64 or session.size is not None:
            return  # what it would take to go on is told by its size
        try:
            result = session.step(np.full((height, width, 3), 90, np.uint8))
        except FloatingPointError:  # of numbers that are finite, and too large
            return
        assert result.prob.isfinite().all()
        assert all(0 <= confidence <= 1 for confidence in result.confidences)


def mutate_tensors(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    """A safetensors file with another header, whose length is right."""
    try:
        header, body = _split(content)
    except (ValueError, RecursionError):
        return raw(content)
    metadata = header.get("__metadata__") if isinstance(header, dict) else None
    if generator.random() < 0.1:
        return raw(content)
    if generator.random() < 0.6 and isinstance(metadata, dict) and isinstance(metadata.get("session"), str):
        session = mutate_json(metadata["session"].encode(), generator, raw).decode(errors="replace")
        return _headed(header | {"__metadata__": metadata | {"session": session}}, body)
    if generator.random() < 0.1:
        return _headed(header, raw(body)) if body else raw(content)
    return _headed(odd(header, generator), body)


def _split(content: bytes) -> tuple[Any, bytes]:
    end = 8 + int.from_bytes(content[:8], "little")
    return json.loads(content[8:end]), content[end:]


def _headed(header: Any, body: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


# what others made of masks: COCO, stacks, tables of confidences, records of runs, meta.json


def coco_seeds(home: Path) -> list[bytes]:
    with CocoWriter(home / "seed.json") as coco:
        for number in range(2):
            coco.write(f"{number:05d}", np.eye(12, 16, k=number, dtype=np.int32) * 7)
    return [(home / "seed.json").read_bytes()]


def feed_coco(home: Path, content: bytes) -> None:
    path = home / "fed.json"
    path.write_bytes(content)
    with _refused(path):
        for name, mask in read_coco(path):
            assert isinstance(name, str)
            assert mask.dtype == np.int32


def annotation_seeds(home: Path) -> list[bytes]:
    """JSON of each tool, which begins with its bracket, XML of CVAT and lines of YOLO."""
    points = [[2, 2], [9, 2], [9, 8]]
    flat = [v for point in points for v in point]
    sides = {"original_height": 12, "original_width": 16}
    bits = (
        f"{4 * 12 * 16:032b}"
        + f"{7:05b}"
        + f"{11:04b}" * 4
        + "100"
        + f"{4 * 12 * 16 - 1:012b}"
        + "1" * 8
        + "00"
    )
    brush = [int(bits.ljust(72, "0")[i : i + 8], 2) for i in range(0, 72, 8)]
    regions = [
        {"type": "polygonlabels", "value": {"points": points, "polygonlabels": ["a"]}, **sides},
        {"type": "brushlabels", "value": {"rle": brush, "brushlabels": ["b"], "format": "rle"}, **sides},
        {
            "type": "ellipselabels",
            "value": {"x": 50, "y": 50, "radiusX": 9, "radiusY": 9, "ellipselabels": []},
            **sides,
        },
    ]
    sized = {"id": 1, "file_name": "0.png", "height": 12, "width": 16}
    annotations = [
        {"image_id": 1, "category_id": 1, "segmentation": s, "track_id": 1}
        for s in ([flat], {"size": [12, 16], "counts": [0, 192]})
    ]
    picture = BytesIO()
    Image.new("1", (4, 4), 1).save(picture, format="PNG")
    mask = {
        "label": "m",
        "shape_type": "mask",
        "points": points,
        "mask": base64.b64encode(picture.getvalue()).decode(),
    }
    shapes = [
        {"label": "a", "points": points, "group_id": None, "shape_type": k} for k in ("polygon", "line")
    ]
    shapes += [mask, {"label": "c", "points": points[:2], "shape_type": "circle"}]
    attributes = [
        {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
        {"name": "ellipse", "cx": 5, "cy": 5, "rx": 3, "ry": 2, "theta": 0.5},
    ]
    via = [{"shape_attributes": a, "region_attributes": {"label": "a"}} for a in attributes]
    trees: list[Any] = [
        {"shapes": shapes, "imagePath": "0.png", "imageHeight": 12, "imageWidth": 16},
        {"images": [sized], "annotations": annotations, "categories": [{"id": 1, "name": "a"}]},
        [{"file_upload": "0.png", "annotations": [{"result": regions}]}],
        {"_via_img_metadata": {"0.png9": {"filename": "0.png", "regions": via}}},
    ]
    polygon = '<polygon label="a" points="1,2;3,4;5,1" z_order="0"/>'
    small = '<mask label="b" rle="0,4" left="1" top="1" width="2" height="2"/>'
    track = '<track id="0" label="a"><polygon frame="0" keyframe="1" points="1,2;3,4;5,1"/></track>'
    image = f'<image name="0.png" width="16" height="12">{polygon}{small}</image>'
    lists = "background:0,0,0::\ncat:250,50,83::\n"
    return [
        *(json.dumps(tree).encode() for tree in trees),
        f"<annotations>{image}{track}</annotations>".encode(),
        b"0 0.1 0.1 0.9 0.1 0.9 0.9\n",
        lists.encode(),
    ]


def feed_annotations(home: Path, content: bytes) -> None:
    suffix = {b"{": ".json", b"[": ".json", b"<": ".xml"}.get(content[:1], ".txt")
    path = home / f"fed{suffix}"
    path.write_bytes(content)
    with _refused(path):
        found = read_annotations(path)
        for place, picture in enumerate(found.pictures):
            mask = found.mask(place, (12, 16) if picture.size is None else None)
            assert mask.dtype == np.int32
            assert "/" not in picture.name
    with _refused(path):
        assert read_labels(path).names is not None


def mutate_annotations(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    if content[:1] in (b"{", b"["):
        return mutate_json(content, generator, raw)
    numbers = [*re.finditer(rb"[0-9.]+", content)]
    if generator.random() < 0.3 or not numbers:
        return raw(content)
    place = generator.choice(numbers)
    return content[: place.start()] + str(generator.choice(ODD)).encode() + content[place.end() :]


def array_seeds(home: Path) -> list[bytes]:
    mask = np.eye(12, 16, dtype=np.int32) * 7
    seeds = []
    for array in (mask, np.stack([mask > 0]), mask.astype(np.float32), np.stack([mask, mask])):
        file = BytesIO()
        np.save(file, array)
        seeds.append(file.getvalue())
    file = BytesIO()
    np.savez(file, masks=np.stack([mask]), names=np.array(["00000"]))
    return [*seeds, file.getvalue()]


def feed_arrays(home: Path, content: bytes) -> None:
    path = home / ("fed.npz" if content[:2] == b"PK" else "fed.npy")
    path.write_bytes(content)
    with _refused(path):
        assert all(mask.ndim == 2 for mask in read_arrays(path).values())


def stack_seeds(home: Path) -> list[bytes]:
    write_stack(home / "seed.npz", [np.eye(12, 16, dtype=np.int32) * 300] * 2)
    plain = BytesIO()  # its arrays are not packed, so that a flipped bit is one of a header
    with np.load(home / "seed.npz") as packed:
        np.savez(plain, **packed)
    return [(home / "seed.npz").read_bytes(), plain.getvalue()]


def feed_stack(home: Path, content: bytes) -> None:
    path = home / "fed.npz"
    path.write_bytes(content)
    with _refused(path):
        masks, names = read_stack(path, most_bytes=1 << 22)
        assert masks.nbytes <= 1 << 22
        assert len(names) == len(masks)


def mutate_bytes(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    return raw(content)


class _Six(FrameSource):
    exact = False


def table_seeds(home: Path) -> list[bytes]:
    rows = [",".join(COLUMNS), "00000,1,1,0.9,40", "00001,1,0,0.5,0", "00001,2,1,1.0,9"]
    return ["\n".join(rows).encode()]


def feed_table(home: Path, content: bytes) -> None:
    path = home / "fed.csv"
    path.write_bytes(content)
    with _refused(path):
        states = read_confidences(path, _Six())
        assert all(0 <= state.confidence <= 1 for frame in states for state in frame.values())


def mutate_table(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    lines = content.decode(errors="replace").split("\n")
    at = generator.randrange(len(lines))
    cells = lines[at].split(",")
    cells[generator.randrange(len(cells))] = str(
        generator.choice([*ODD, "99999999", "9" * 5000, '"', "\x1b["])
    )
    lines[at] = ",".join(cells)
    return raw(content) if generator.random() < 0.2 else "\n".join(lines).encode()


def run_seeds(home: Path) -> list[bytes]:
    settings = {"model": "tiny", "trunk": "tiny", "attention": ["none", "external"], "every": 5}
    Run(settings, {"cow": Timing(40, 2.5, "ab")}, 6_000_000, 900.5, "a machine", "0.1.0").write(home)
    return [(home / "run.json").read_bytes()]


def feed_run(home: Path, content: bytes) -> None:
    (home / "run.json").write_bytes(content)
    with _refused(home):
        if (run := Run.read(home)) is not None:
            assert overview([Method("a", home, None, run)]).text()
            assert run.settings.get("trunk", "") is not None


def meta_seeds(home: Path) -> list[bytes]:
    frames = ["00000", "00005"]
    objects = {"1": {"category": "cow", "frames": frames}, "2": {"category": "ape", "frames": frames[1:]}}
    return [json.dumps({"videos": {"a": {"objects": objects}}}).encode()]


def feed_meta(home: Path, content: bytes) -> None:
    root = home / "data"
    if not root.is_dir():
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "a").mkdir(parents=True)
        for name in ("00000", "00005"):
            Image.fromarray(FRAME).save(root / "JPEGImages" / "a" / f"{name}.jpg")
            write_mask(root / "Annotations" / "a" / f"{name}.png", np.eye(32, 48, dtype=np.int32))
    (root / "meta.json").write_bytes(content)
    with contextlib.suppress(ValueError):  # of the data set, which has names of its own
        for video in find_videos(root, PROTOCOLS["youtube-vos-2018"]):
            assert video.wanted


def burst_seeds(home: Path) -> list[bytes]:
    masks = [np.eye(12, 16, k=k, dtype=np.int32) for k in range(2)]
    sequence = {
        "dataset": "YFCC100M",
        "seq_name": "a",
        "height": 12,
        "width": 16,
        "id": 1,
        "fps": 30,
        "all_image_paths": ["0.jpg", "1.jpg", "2.jpg"],
        "annotated_image_paths": ["0.jpg", "2.jpg"],
        "track_category_ids": {"1": 4, "2": 900},
        "segmentations": [
            {str(id): {"rle": encode_rle(masks[id - 1] > 0)["counts"]} for id in ids}
            for ids in ((1,), (1, 2))
        ],
    }
    return [json.dumps({"split": "val", "sequences": [sequence]}).encode()]


def feed_burst(home: Path, content: bytes) -> None:
    path = home / "fed.json"
    path.write_bytes(content)
    with _refused(path):
        for sequence in read_burst(path):
            assert len({*"/\\"} & {*sequence.name.partition("/")[2]}) == 0
            for frame in sequence.frames:
                assert frame.mask().shape == frame.size


class _Untracked(Batch):
    """A batch whose videos have no frames."""

    def _track(self, predictor: Predictor, job: Job, stage: Path) -> tuple[int, list[int], bool]:
        (stage / "masks").mkdir()
        return 0, [], False


def status_seeds(home: Path) -> list[bytes]:
    """The status of a video that was made, of one that failed, and of one whose worker was killed."""
    batch, job = _batch(home)
    batch.begin([job])
    seeds = []
    for status in ({}, {"state": "failed", "error": "a"}, {"state": "begun", "run": "r", "tries": 1}):
        assert not batch.run(PREDICTOR, job).error
        if status:
            batch._write_status(job, **status)
        seeds.append((batch.out / "status" / "a.json").read_bytes())
    return seeds


def feed_status(home: Path, content: bytes) -> None:
    batch, job = _batch(home)
    (batch.out / "status" / "a.json").write_bytes(content)
    with _refused(batch.out):
        batch.begin([job])
    with _refused(batch.out, "these facts"):
        Batch.of(PREDICTOR, batch.out)
    outcome = batch.run(PREDICTOR, job)
    assert not outcome.error or "kill" in outcome.error, outcome.error
    assert all(type(id) is int for id in outcome.ids)
    assert type(outcome.frames) is int


def _batch(home: Path) -> tuple[_Untracked, Job]:
    if not (home / "a.png").exists():
        write_mask(home / "a.png", np.eye(32, 48, dtype=np.int32))
        Image.fromarray(FRAME).save(home / "a.jpg")
    return _Untracked(home / "batch", PREDICTOR.facts(), retries="r"), Job(
        "a", home / "a.jpg", home / "a.png"
    )


# lists of jobs, projects of the page, videos


def job_seeds(home: Path) -> list[bytes]:
    jobs = [
        {"video": "a.mp4", "mask": "a.png", "size": 240, "every": 3, "max_frames": None},
        {"video": "b", "mask": {"00000": "b/0.png", "7": "7.png"}, "name": "c", "top_k": 4},
    ]
    return [json.dumps(job).encode() for job in jobs]


def feed_jobs(home: Path, content: bytes) -> None:
    path = home / "fed.jsonl"
    path.write_bytes(content)
    with _refused(path):
        for job in find_jobs(path):
            assert not {*"/\\"} & {*job.name}


def project_seeds(home: Path) -> list[bytes]:
    """The facts of a project whose frames have names, and its tracked frames."""
    project = _project(home)
    mask = np.eye(32, 48, dtype=np.int32)
    project.give(0, mask)
    project.give(1, mask * 2)
    project.give(1, mask * 3)
    facts = json.loads((project.folder / "project.json").read_bytes())
    return [
        json.dumps(facts | {"names": ["a", "b", "c"]}).encode(),
        json.dumps(facts | {"settings": {"size": 480, "policy": {"every": 5}}}).encode(),
        b'{"frame": 0, "sure": {"1": 0.5}}\n{"frame": 1, "sure": {"1": 0.5, "2": 1.0}}\n{"fra',
    ]


def feed_project(home: Path, content: bytes) -> None:
    folder = home / "project"
    if not folder.is_dir():
        _project(home)
    facts = (folder / "project.json").read_bytes()
    is_track = content.startswith(b'{"frame"')
    (folder / ("track.jsonl" if is_track else "project.json")).write_bytes(content)
    try:
        with _refused(folder):
            project = Project.open(folder)
            for index in range(project.count):
                assert project.frame_name(index)
                assert project.mask(index).shape == project.frame(index).shape[:2]
            assert 0 <= project.reached <= project.count
            assert all(1 <= id <= 255 for id in project.ids)
    except FileNotFoundError as error:  # of a mask that the facts speak of
        if str(folder) not in str(error):
            raise
    finally:
        (folder / "project.json").write_bytes(facts)
        (folder / "track.jsonl").unlink(missing_ok=True)


def _project(home: Path) -> Project:
    """A project of three frames, whose masks would be there if they were tracked."""
    folder = home / "project"
    list(import_video(folder, open_frames([FRAME] * 3), "fuzz"))
    (folder / "masks").mkdir()
    for index in range(3):
        write_mask(folder / "masks" / f"{index:05d}.png", np.eye(32, 48, dtype=np.int32))
    return Project.open(folder)


def mutate_lines(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    """Change one line, which stays JSON, or nearly."""
    lines = content.split(b"\n")
    at = generator.randrange(len(lines))
    lines[at] = mutate_json(lines[at], generator, raw)
    return b"\n".join(lines)


# earlier states of a project, and what runs leave for those that go on with them


def history_seeds(home: Path) -> list[bytes]:
    """Earlier states of a project, of three edits and tracked frames."""
    project = _edited(home)
    return [path.read_bytes() for path in sorted((project.folder / "history").iterdir())]


def feed_history(home: Path, content: bytes) -> None:
    """Undo to a state, redo, and look at the frames; the folder is damaged, and no path leads out."""
    shutil.rmtree(home / "project", ignore_errors=True)
    if not (home / "edited").is_dir():
        _edited(home).undo()
        shutil.copytree(home / "project", home / "edited")
    else:
        shutil.copytree(home / "edited", home / "project")
    project = Project.open(home / "project")
    (project.folder / "history" / f"{project.step - 1:06d}.json").write_bytes(content)
    for go in (Project.undo, Project.redo, Project.redo):
        project = Project.open(project.folder)
        project.sweep()
        with _refused(project.folder, "there is nothing to"):
            go(project)
            assert 0 <= project.reached <= project.count
            for index in range(project.count):
                with contextlib.suppress(FileNotFoundError):  # a mask that the state speaks of
                    assert project.mask(index).shape == project.size


def draft_seeds(home: Path) -> list[bytes]:
    project = _project(home)
    project.save_draft(0, np.eye(32, 48, dtype=np.int32))
    return [(project.folder / "drafts" / "00000.png").read_bytes()]


def feed_draft(home: Path, content: bytes) -> None:
    folder = home / "project"
    (folder / "drafts" / "00000.png").write_bytes(content)
    with _refused(folder):
        draft = Project.open(folder).draft(0)
        assert draft is not None
        assert draft.shape == (32, 48)
        assert draft.min() >= 0
        assert draft.max() <= 255


def _edited(home: Path) -> Project:
    project = _project(home)
    for id in (1, 2, 3):
        project.give(id % 2, np.eye(32, 48, k=id, dtype=np.int32) * id)
        lines = (f'{{"frame": {i}, "sure": {{"1": 0.5}}}}\n' for i in range(3))
        (project.folder / "track.jsonl").write_text("".join(lines))
        project = Project.open(project.folder)
    return project


def progress_seeds(home: Path) -> list[bytes]:
    content = {
        "facts": {"size": 64},
        "done": 2,
        "ids": [1, 7],
        "cuts": [1],
        "states": [[[7, True, 0.5, 40]], []],
    }
    return [json.dumps(content).encode(), json.dumps(content | {"states": []}).encode()]


def feed_progress(home: Path, content: bytes) -> None:
    folder = home / ".out.resume"
    folder.mkdir(exist_ok=True)
    (folder / "progress.json").write_bytes(content)
    with _refused(folder):
        progress = Progress(home / "out", {"size": 64}, force=False)
        if progress.done:
            assert all(type(id) is int for id in progress.ids)
            names = [f"{index:05d}" for index in range(len(progress.states))]
            write_confidences(home / "states.csv", names, progress.states)


def head_seeds(home: Path) -> list[bytes]:
    header, _ = _split(HEAD.read_bytes())
    return [_headed(header), _headed({key: header[key] for key in [*header][:2]})]


def feed_head(home: Path, content: bytes) -> None:
    path = home / "clicks.safetensors"
    _write_headed(path, content)
    with _refused(path):
        load_clicks(MODEL, path)


def checkpoint_seeds(home: Path) -> list[bytes]:
    learner = Learner(MODEL, RUN)
    for parameter in learner.model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    learner.optimiser.step()
    save_checkpoint(home / "seed.safetensors", learner, 1)
    header, _ = _split((home / "seed.safetensors").read_bytes())
    few = {key: header[key] for key in ("__metadata__", *[*header][:3])}
    return [_headed(header), _headed(few)]


def feed_checkpoint(home: Path, content: bytes) -> None:
    path = home / "fed.safetensors"
    _write_headed(path, content)
    learner = _untouched()
    weight = next(learner.model.parameters())
    writes = weight._version  # torch counts them
    try:
        with _refused(path):
            assert load_checkpoint(path, learner) >= 0
    finally:
        if weight._version != writes:
            _untouched.cache_clear()


@cache
def _untouched() -> Learner:
    """A learner that no checkpoint was loaded into: to make one takes longer than to refuse a file."""
    return Learner(copy.deepcopy(MODEL), RUN)


def mutate_checkpoint(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    """Another header, or other notes: the config, the iteration and the scaler are JSON in JSON."""
    try:
        header, body = _split(content)
        notes = header["__metadata__"]
        key = generator.choice([*notes])
        if generator.random() < 0.6:
            notes = notes | {key: mutate_json(notes[key].encode(), generator, raw).decode(errors="replace")}
            return _headed(header | {"__metadata__": notes}, body)
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, IndexError):
        pass
    return mutate_tensors(content, generator, raw)


def label_seeds(home: Path) -> list[bytes]:
    return [
        b"# label:color_rgb:parts:actions\nbackground:0,0,0::\ncow:128,0,64::\n",
        b"64 128 64\tAnimal\n192 0 128\tArchway\n",
        b"cow\nape\n",
        b'[{"name": "cow", "color": "#ff0000", "id": 1}, {"name": "ape", "color": [1, 2, 3]}]',
        b'{"cow": "#ff0000", "ape": "1,2,3"}',
        b'<View><BrushLabels><Label value="cow" background="#ff0000"/></BrushLabels></View>',
    ]


def feed_labels(home: Path, content: bytes) -> None:
    path = home / f"fed{ {b'{': '.json', b'[': '.json', b'<': '.xml'}.get(content[:1], '.txt') }"
    path.write_bytes(content)
    with _refused(path):
        labels = read_labels(path)
        for picture in (Image.new("RGB", (4, 4)), Image.new("RGB", (4, 4), (128, 0, 64))):
            if labels.colours:
                with contextlib.suppress(ValueError, StopIteration):  # a colour that is not listed
                    assert labels.ids_of(picture, "a picture").min() >= 0


def video_seeds(home: Path) -> list[bytes]:
    import av

    seeds = []
    codecs = ("mpeg4", "mjpeg", "libx264", "ffv1", "gif", "mpeg1video", "libvpx", "apng")
    for codec, suffix in zip(codecs, ("mp4", "avi", "mkv", "mov", "gif", "ts", "webm", "apng"), strict=True):
        path = home / f"seed.{suffix}"
        with contextlib.suppress(ValueError, OSError), av.open(os.fspath(path), "w") as container:
            stream = container.add_stream(codec, rate=5)
            stream.width, stream.height = 48, 32
            stream.pix_fmt = stream.codec_context.codec.video_formats[0].name
            for number in range(4):
                frame = av.VideoFrame.from_ndarray(FRAME + np.uint8(number * 20))
                container.mux(stream.encode(frame.reformat(format=stream.pix_fmt)))
            container.mux(stream.encode())
        with contextlib.suppress(ValueError, FileNotFoundError):  # a codec that this FFmpeg lacks
            assert len([*open_frames(path)]) == 4
            seeds.append(path.read_bytes())
    assert len(seeds) > 4
    return seeds


def feed_video(home: Path, content: bytes) -> None:
    path = home / "fed.mp4"  # FFmpeg looks at the content
    path.write_bytes(content)
    for way in ("stop", "hold", "skip"):
        with _refused(path):
            source = open_frames(path, on_damage=way)
            for frame in islice(source, 50):
                assert frame.dtype == np.uint8
                assert frame.ndim == 3


def mutate_video(content: bytes, generator: random.Random, raw: Raw) -> bytes:
    """Other bytes, or an odd number in one of the places where containers have numbers."""
    if generator.random() < 0.4 or len(content) < 16:
        return raw(content)
    size = generator.choice((2, 4, 8))
    number = generator.choice((0, 1, 2, (1 << 8 * size - 1) - 1, 1 << 8 * size - 1, (1 << 8 * size) - 1))
    at = generator.randrange(len(content) - size) if generator.random() < 0.5 else generator.randrange(8)
    return content[:at] + number.to_bytes(size, generator.choice(("big", "little"))) + content[at + size :]


@contextlib.contextmanager
def _refused(path: Path, words: str = "") -> Iterator[None]:
    """A ValueError within is an answer, where it names the file or its folder, or begins with the words."""
    try:
        yield
    except ValueError as error:
        if str(path) not in str(error) and not (words and str(error).startswith(words)):
            raise AssertionError(f"{path} is not named") from error


TARGETS = {
    "masks": Target(mask_seeds, feed_mask, mutate_mask),
    "configs": Target(config_seeds, feed_config, mutate_json),
    "weights": Target(weights_seeds, feed_weights, mutate_tensors),
    "sessions": Target(session_seeds, feed_session, mutate_tensors),
    "coco": Target(coco_seeds, feed_coco, mutate_json),
    "annotations": Target(annotation_seeds, feed_annotations, mutate_annotations),
    "arrays": Target(array_seeds, feed_arrays, mutate_bytes),
    "stacks": Target(stack_seeds, feed_stack, mutate_bytes),
    "tables": Target(table_seeds, feed_table, mutate_table),
    "runs": Target(run_seeds, feed_run, mutate_json),
    "metas": Target(meta_seeds, feed_meta, mutate_json),
    "bursts": Target(burst_seeds, feed_burst, mutate_json),
    "statuses": Target(status_seeds, feed_status, mutate_json),
    "jobs": Target(job_seeds, feed_jobs, mutate_lines),
    "projects": Target(project_seeds, feed_project, mutate_lines),
    "histories": Target(history_seeds, feed_history, mutate_json),
    "drafts": Target(draft_seeds, feed_draft, mutate_mask),
    "progress": Target(progress_seeds, feed_progress, mutate_json),
    "heads": Target(head_seeds, feed_head, mutate_tensors),
    "checkpoints": Target(checkpoint_seeds, feed_checkpoint, mutate_checkpoint),
    "labels": Target(label_seeds, feed_labels, mutate_annotations),
    "videos": Target(video_seeds, feed_video, mutate_video),
}


def blindly(target: Target, home: Path, corpus: Path, seconds: float, seed: int = 0) -> int:
    """Feed a reader changed seeds for so many seconds of CPU time. Returns the number of inputs.

    An input that the reader does not take is written to the folder, and the error raised.
    """
    generator, seeds, count = random.Random(seed), target.seeds(home), 0

    def raw(content: bytes) -> bytes:
        changed = bytearray(content)
        for _ in range(generator.choice((1, 1, 1, 4, 16))):
            at = generator.randrange(len(changed) + 1)
            way = generator.random()
            if way < 0.2:
                del changed[at : at + generator.randrange(1, 9)]
            elif way < 0.4:
                changed[at:at] = generator.choice(
                    (b"\0", b"\xff" * 4, b'"', b"9" * 20, b"\x1b]0;a\x07", b"[" * 9)
                )
            elif at < len(changed):
                changed[at] ^= 1 << generator.randrange(8)
        return bytes(changed)

    end = time.process_time() + seconds
    while time.process_time() < end:
        content = generator.choice(seeds)
        for _ in range(generator.randrange(1, 6)):
            content = target.mutate(content, generator, raw)[:LONGEST]
            try:
                target.feed(home, content)
            except BaseException:
                (corpus / f"finding{count}").write_bytes(content)
                raise
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target", choices=[*TARGETS, "all"])
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--blind", action="store_true", help="without atheris, and minutes of CPU time")
    parser.add_argument("--seed", type=int, default=0, help="another seed makes other blind changes")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="inputs to go on with, and findings (temporary)"
    )
    args = parser.parse_args()
    images.MAX_PIXELS = 1 << 20  # large pictures take memory and time, and say nothing more
    warnings.simplefilter("ignore")
    out = Path(args.out or tempfile.mkdtemp())
    if not args.blind and args.target != "all" and find_spec("atheris") is not None:
        _covering(args.target, args.minutes, out)
        return
    for name in TARGETS if args.target == "all" else [args.target]:
        (out / name).mkdir(parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp())
        try:
            count = blindly(TARGETS[name], home, out / name, 60 * args.minutes, args.seed)
            print(f"{name}: {count} inputs, and no finding", flush=True)
        except Exception:
            traceback.print_exc()
            print(f"{name}: a finding, in {out / name}", flush=True)
        shutil.rmtree(home, ignore_errors=True)


def _covering(name: str, minutes: float, out: Path) -> None:
    """Feed a reader what atheris thinks of, guided by the branches that inputs reach."""
    import atheris

    target, home, corpus = TARGETS[name], Path(tempfile.mkdtemp()), out / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds(home)):
        (corpus / f"seed{number}").write_bytes(seed)

    def mutate(content: bytes, size: int, seed: int) -> bytes:
        return target.mutate(content, random.Random(seed), lambda x: atheris.Mutate(x, len(x) + 16))[:size]

    limits = [
        f"-max_total_time={60 * minutes:.0f}",
        f"-max_len={LONGEST}",
        "-timeout=300",
        "-rss_limit_mb=3000",
    ]
    where = f"-artifact_prefix={corpus}-"
    atheris.Setup(
        [sys.argv[0], str(corpus), *limits, where, "-print_final_stats=1"],
        lambda content: target.feed(home, content),
        custom_mutator=mutate,
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
