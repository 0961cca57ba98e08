"""Real video with a mask for every frame."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from emavos.data.static import load_pair


class Clips:
    """A DAVIS-like tree: `root/JPEGImages/480p/SEQUENCE/NAME.jpg` with `root/Annotations/480p/...png`.

    leave_out: names of sequences that are not to be used, whether they are there or not.
    """

    def __init__(self, root: str | Path, leave_out: Sequence[str] = ()) -> None:
        images = Path(root) / "JPEGImages" / "480p"
        self.masks = Path(root) / "Annotations" / "480p"
        folders = sorted(path for path in images.glob("*") if path.is_dir())
        self.sequences = [sorted(f.glob("*.jpg")) for f in folders if f.name not in leave_out]
        if not self.sequences or not all(self.sequences):
            raise ValueError(f"{images} holds no sequence, or one without frames")
        for image in (image for sequence in self.sequences for image in sequence):
            if not (mask := self._mask_of(image)).is_file():
                raise ValueError(f"{image} has no mask: {mask} does not exist")

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.sequences)

    def load(self, sequence: int, frame: int) -> tuple[Tensor, Tensor]:
        """Image (3, H, W) uint8 and mask (H, W) uint8 of ids."""
        image = self.sequences[sequence][frame]
        return load_pair(image, self._mask_of(image))

    def _mask_of(self, image: Path) -> Path:
        return self.masks / image.parent.name / f"{image.stem}.png"
