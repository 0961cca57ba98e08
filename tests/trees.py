"""Small data sets for tests, drawn by the demo's painter."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image

from emavos.demo import synthetic_clip
from emavos.io import write_mask


def davis_tree(root: Path, sequences: dict[str, int], size: tuple[int, int] = (96, 128)) -> Path:
    """JPEGImages and Annotations of these sequences, of so many frames each, three objects in all."""
    for seed, (sequence, length) in enumerate(sequences.items()):
        frames, masks = synthetic_clip(frames=length, size=size, seed=seed)
        for kind in ("JPEGImages", "Annotations"):
            (root / kind / "480p" / sequence).mkdir(parents=True)
        for i, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            name = f"480p/{sequence}/{i:05d}"
            Image.fromarray(frame).save(root / "JPEGImages" / f"{name}.jpg", quality=95)
            write_mask(root / "Annotations" / f"{name}.png", mask)
    return root


def stills_tree(root: Path, count: int, size: tuple[int, int] = (90, 120)) -> Path:
    """images/ and masks/ of so many still images, three objects in all."""
    for kind in ("images", "masks"):
        (root / kind).mkdir(parents=True)
    for seed in range(count):
        frames, masks = synthetic_clip(frames=1, size=size, seed=seed)
        Image.fromarray(frames[0]).save(root / "images" / f"{seed}.jpg")
        write_mask(root / "masks" / f"{seed}.png", masks[0])
    return root


def youtube_tree(root: Path, truth: bool = False, size: tuple[int, int] = (64, 96)) -> Path:
    """Two sequences of 16 frames as YouTube-VOS has them, every fifth asked for.

    In `ab` objects 1 and 2 are there from the first frame on and object 3 from 00005 on; `cd` has object 1
    alone, from 00005 on. Annotations show what is new; with `truth` all that is there, in each frame.
    """
    meta = {}
    for seed, (name, begins) in enumerate({"ab": {1: 0, 2: 0, 3: 5}, "cd": {1: 5}}.items()):
        frames, masks = synthetic_clip(frames=16, size=size, seed=seed)
        folders = [
            root / folder / name
            for folder in ("valid/JPEGImages", "valid/Annotations", "valid_all_frames/JPEGImages")
        ]
        for folder in folders:
            folder.mkdir(parents=True)
        for t, (frame, mask) in enumerate(zip(frames, masks, strict=True)):
            Image.fromarray(frame).save(folders[2] / f"{t:05d}.jpg", quality=95)
            if t % 5:
                continue
            Image.fromarray(frame).save(folders[0] / f"{t:05d}.jpg", quality=95)
            shown = [i for i, begin in begins.items() if (begin <= t if truth else begin == t)]
            if shown:
                write_mask(folders[1] / f"{t:05d}.png", np.where(np.isin(mask, shown), mask, 0))
        meta[name] = {
            "objects": {
                str(i): {
                    "category": ("star", "ball", "fish")[i - 1],
                    "frames": [f"{t:05d}" for t in range(begin, 16, 5)],
                }
                for i, begin in begins.items()
            }
        }
    (root / "valid" / "meta.json").write_text(json.dumps({"videos": meta}))
    (root / "train").mkdir()
    seen = {"x": {"objects": {"1": {"category": "star"}, "2": {"category": "ball"}}}}
    (root / "train" / "meta.json").write_text(json.dumps({"videos": seen}))
    return root


def training_tree(root: Path) -> Path:
    """`static` with two images and `clips` with two sequences."""
    davis_tree(root / "clips", {"one": 6, "two": 5})
    for kind in ("images", "masks"):
        (root / "static" / kind).mkdir(parents=True)
    for seed, name in enumerate(("a", "b")):
        frames, masks = synthetic_clip(frames=2, size=(80, 100), seed=10 + seed)
        Image.fromarray(frames[0]).save(root / "static" / "images" / f"{name}.jpg", quality=95)
        write_mask(root / "static" / "masks" / f"{name}.png", masks[0])
    return root
