"""Small data sets for tests, drawn by the demo's painter."""

from __future__ import annotations

from pathlib import Path

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
