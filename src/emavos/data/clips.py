"""Video clips with masks, in the layouts of DAVIS, YouTube-VOS and BL30K or your own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from emavos.data.static import load_pair
from emavos.io import list_images
from emavos.io.text import read_text


class Clips:
    """`root/JPEGImages/SEQUENCE/NAME.jpg` with masks of ids, `root/Annotations/SEQUENCE/NAME.png`.

    Both folders may have a subfolder `480p`, as in DAVIS. Frames without a mask are skipped.

    root: folder of the data set.
    leave_out: names of sequences to leave out; unknown names are ignored.
    only: names of the sequences to use; None uses all.

    Raises ValueError if there is no sequence, or if a sequence has no mask.
    """

    _STEP = 1  # distance between two masks, in frames of the video

    def __init__(
        self, root: str | Path, leave_out: Sequence[str] = (), only: Sequence[str] | None = None
    ) -> None:
        self.images, self.masks = (
            _with_resolution(Path(root) / name) for name in ("JPEGImages", "Annotations")
        )
        there = sorted(path.name for path in self.images.glob("*") if path.is_dir()) if only is None else only
        self.names = [name for name in there if name not in leave_out]
        if not self.names:
            raise ValueError(f"{self.images} holds no sequence: a folder of frames for each is wanted")
        for name in self.names:
            if not any((self.masks / name).glob("*.png")):
                raise ValueError(f"{name} has no mask: {self.masks / name} holds no PNG")

    def __len__(self) -> int:
        """The number of sequences."""
        return len(self.names)

    def length(self, video: int) -> int:
        """The number of frames of a sequence with a mask."""
        return len(self.frames(video))

    def step(self, video: int) -> int:
        """The distance between two masks, in frames of the video."""
        return self._STEP

    def frames(self, video: int) -> list[Path]:
        """The images of a sequence with a mask, in order."""
        # listed again on each call: with BL30K, all names would not fit in the memory of many workers
        names = os.listdir(self.masks / self.names[video])
        masks = {name[:-4] for name in names if name.endswith(".png")}
        frames = [image for image in list_images(self.images / self.names[video]) if image.stem in masks]
        if not frames:
            raise ValueError(f"no mask of {self.masks / self.names[video]} has the name of a frame")
        return frames

    def load(self, video: int, frame: int) -> tuple[Tensor, Tensor]:
        """Returns an image (3, H, W) uint8 and its mask (H, W) uint8 of ids."""
        image = self.frames(video)[frame]
        return load_pair(image, self.mask_of(image))

    def mask_of(self, image: Path) -> Path:
        """The path of a frame's mask; the file may not exist."""
        return self.masks / image.parent.name / f"{image.stem}.png"


class Davis(Clips):
    """DAVIS 2017 as unpacked: the sequences listed in `root/ImageSets/SPLIT.txt`."""

    def __init__(self, root: str | Path, leave_out: Sequence[str] = (), split: str = "2017/train") -> None:
        path = Path(root) / "ImageSets" / f"{split}.txt"
        if not path.is_file():
            raise ValueError(f"{path} does not exist; a DAVIS tree lists there the sequences of {split}")
        super().__init__(root, leave_out, only=read_text(path, "a list of sequences").split())


class YouTubeVOS(Clips):
    """The training part of YouTube-VOS as unpacked, `root/train/`: every fifth frame has a mask."""

    _STEP = 5

    def __init__(self, root: str | Path, leave_out: Sequence[str] = ()) -> None:
        super().__init__(Path(root) / "train", leave_out)


class BL30K(Clips):
    """BL30K (Cheng et al., CVPR 2021) as unpacked: rendered video with a mask for every frame."""


def _with_resolution(folder: Path) -> Path:
    return folder / "480p" if (folder / "480p").is_dir() else folder
