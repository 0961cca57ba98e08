"""Random views of pictures: drawn once, then applied equally to image and mask."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from emavos.data.points import regular_points
from emavos.data.thin_plate import thin_plate_warp

# Samples are made on the CPU in float32, regardless of torch's defaults
_HERE: Any = {"dtype": torch.float32, "device": "cpu"}


@dataclass(frozen=True)
class Motion:
    """A small motion of a picture in coordinates from -1 to 1: an affine map, then a smooth warp."""

    matrix: Tensor  # (2, 3)
    warp: Tensor  # (2, n, n), x and y moves of a grid of control points
    thin_plate: bool = False  # interpolation of the warp: thin-plate spline if True, otherwise bicubic

    @classmethod
    def still(cls) -> Motion:
        return cls(torch.eye(2, 3, **_HERE), torch.zeros(2, 4, 4, **_HERE))

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0, thin_plate: bool = False) -> Motion:
        """Draw a motion: at strength 1 up to 20 degrees of rotation and shear, 1/3 of scale, 15 % of shift.

        rng: random generator.
        strength: factor on all ranges.
        thin_plate: whether to interpolate the warp as a thin-plate spline.
        """
        angle, shear = strength * np.radians(rng.uniform(-20, 20, 2))
        sx, sy = np.exp(strength * (rng.uniform(-0.2, 0.2) + rng.uniform(-0.1, 0.1, 2)))
        rotate = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        linear = rotate @ np.array([[sx, np.tan(shear) * sy], [0, sy]])
        shift = strength * rng.uniform(-0.3, 0.3, (2, 1))
        warp = strength * rng.normal(0, 0.04, (2, 4, 4))
        matrix = np.concatenate([linear, shift], axis=1)
        return cls(torch.from_numpy(matrix).float(), torch.from_numpy(warp).float(), thin_plate)

    def __call__(self, points: Tensor) -> Tensor:
        """Map regular points (S, S, 2) on the square [-1, 1] x [-1, 1] to their source positions."""
        moved = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        size = points.shape[0]
        if not self.warp.any():
            return moved
        if self.thin_plate:
            return moved + thin_plate_warp(self.warp, size)
        warp = functional.interpolate(self.warp[None], (size, size), mode="bicubic", align_corners=True)
        return moved + warp[0].permute(1, 2, 0)


@dataclass(frozen=True)
class View:
    """A square window on a picture: centre and half side in pixels, optionally mirrored."""

    centre: tuple[float, float]  # x, y
    half: tuple[float, float]
    mirrored: bool

    def sample(self, image: Tensor, mask: Tensor, motion: Motion, size: int) -> tuple[Tensor, Tensor]:
        """Sample a picture and its mask: returns (3, size, size) float in [0, 1] and ids (size, size).

        image: (3, H, W) uint8.
        mask: (H, W) of ids.
        motion: motion applied within the window.
        size: side of the result in pixels.

        Outside the picture, the colour is the picture's mean and the id is 0.
        """
        grid = self._grid(mask, motion, size)
        pixels = reduced(image, self.reduction(size))
        mean = pixels.mean(dim=(1, 2), keepdim=True)
        seen = functional.grid_sample((pixels - mean)[None], grid, align_corners=False)[0] + mean
        return seen, _ids_at(mask, grid)

    def sample_ids(self, mask: Tensor, motion: Motion, size: int) -> Tensor:
        """The ids (size, size) that `sample` returns."""
        return _ids_at(mask, self._grid(mask, motion, size))

    def reduction(self, size: int) -> int:
        """Side of the squares of pixels that `sample` averages: a pixel of the window, rounded down."""
        return max(int(2 * min(self.half) / size), 1)

    def _grid(self, mask: Tensor, motion: Motion, size: int) -> Tensor:
        """The positions (1, size, size, 2) of the window's pixels; the picture's corners are -1 and 1."""
        height, width = mask.shape
        source = motion(regular_points(size)) * torch.tensor(self.half, **_HERE)
        if self.mirrored:
            source[..., 0] *= -1
        source = source + torch.tensor(self.centre, **_HERE)
        return (source / torch.tensor([width, height], **_HERE) * 2 - 1)[None]


def reduced(image: Tensor, times: int) -> Tensor:
    """An image (3, H, W) uint8 in [0, 1]; each square of `times` x `times` pixels becomes its mean."""
    pixels = image.float() / 255
    if times == 1:
        return pixels
    small = [max(side // times, 1) for side in image.shape[1:]]
    return functional.interpolate(pixels[None], small, mode="area")[0]


def _ids_at(mask: Tensor, grid: Tensor) -> Tensor:
    """The ids (S, S) uint8 of a mask (H, W) at the positions of a grid (1, S, S, 2)."""
    ids = functional.grid_sample(mask[None, None].float(), grid, mode="nearest", align_corners=False)
    return ids[0, 0].to(torch.uint8)


def draw_view(mask: Tensor, rng: np.random.Generator, zoom: tuple[float, float]) -> View:
    """A random window that shows a pixel of the object, away from the window's edge.

    mask: (H, W) of bool; if all False, the window is near the middle.
    rng: random generator.
    zoom: smallest and largest side of the window as a fraction of the picture's short side.
    """
    height, width = mask.shape
    side = min(height, width) * math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    stretch = math.exp(rng.uniform(-0.12, 0.12))
    half = (side / 2 * stretch, side / 2 / stretch)
    pixels = mask.nonzero()
    y, x = pixels[rng.integers(len(pixels))].tolist() if len(pixels) else (height / 2, width / 2)
    centre = []
    for position, extent, reach in ((x, width, half[0]), (y, height, half[1])):
        c = position + rng.uniform(-0.7, 0.7) * reach
        low, high = min(reach, extent / 2), max(extent - reach, extent / 2)
        centre.append(min(max(c, low), high))
    return View((centre[0], centre[1]), half, bool(rng.random() < 0.5))


def draw_object_view(mask: Tensor, rng: np.random.Generator) -> View:
    """A random window around the object of a mask (H, W) of bool; the object fills 0.25 to 0.8 of it."""
    y, x = mask.nonzero(as_tuple=True)
    low = (x.min().item(), y.min().item())
    high = (x.max().item() + 1, y.max().item() + 1)
    half = (
        max(high[0] - low[0], high[1] - low[1], 8) / 2 / math.exp(rng.uniform(math.log(0.25), math.log(0.8)))
    )
    centre = [(a + b) / 2 + rng.uniform(-0.6, 0.6) * half for a, b in zip(low, high, strict=True)]
    return View((centre[0], centre[1]), (half, half), bool(rng.random() < 0.5))


@dataclass(frozen=True)
class Colour:
    """A change of brightness, contrast and saturation, and a colour cast."""

    brightness: float
    contrast: float
    saturation: float
    cast: Tensor  # (3, 1, 1)

    @classmethod
    def draw(cls, rng: np.random.Generator, strength: float = 1.0) -> Colour:
        b, c, s = np.exp(strength * rng.uniform(-0.35, 0.35, 3))
        cast = torch.from_numpy(strength * rng.uniform(-0.05, 0.05, (3, 1, 1))).float()
        return cls(float(b), float(c), 0.0 if rng.random() < 0.05 * strength else float(s), cast)

    def __call__(self, image: Tensor) -> Tensor:
        """Apply the change to an image (3, S, S) in [0, 1]."""
        return recoloured(image, self.brightness, self.contrast, self.saturation, self.cast)


Factor = float | Tensor  # or one number for each image, (..., 1, 1, 1)


def recoloured(
    image: Tensor, brightness: Factor, contrast: Factor, saturation: Factor, cast: Tensor
) -> Tensor:
    """Images (..., 3, S, S) in [0, 1] with other brightness, contrast, saturation and cast (..., 3, 1, 1)."""
    gray = image.mean(dim=-3, keepdim=True)
    image = gray + (image - gray) * saturation
    # per channel first: a sum over everything is split among threads, so its rounding varies
    mean = image.mean(dim=(-2, -1), keepdim=True).mean(dim=-3, keepdim=True)
    image = (image - mean) * contrast + mean * brightness + cast
    return image.clamp(0, 1)


@dataclass(frozen=True)
class Blur:
    """Motion blur of a moving camera: each point becomes a line."""

    kernel: Tensor  # (n, n), sums to one

    @classmethod
    def draw(cls, rng: np.random.Generator, longest: int = 13) -> Blur:
        """Draw a line through the centre with a random direction, 2 to `longest` pixels long.

        longest: largest length in pixels, an odd number.
        """
        half, angle = rng.uniform(1, longest / 2), rng.uniform(0, np.pi)
        steps = np.linspace(-half, half, 4 * longest)
        middle = longest // 2
        rows = np.rint(middle + steps * np.sin(angle)).astype(np.int64).clip(0, longest - 1)
        columns = np.rint(middle + steps * np.cos(angle)).astype(np.int64).clip(0, longest - 1)
        kernel = np.zeros((longest, longest), dtype=np.float32)
        np.add.at(kernel, (rows, columns), 1 / len(steps))
        return cls(torch.from_numpy(kernel))

    def __call__(self, image: Tensor) -> Tensor:
        """Blur an image (3, S, S), with its border pixels repeated outwards."""
        reach = self.kernel.shape[0] // 2
        padded = functional.pad(image[None], (reach, reach, reach, reach), mode="replicate")
        weight = self.kernel.expand(3, 1, -1, -1)
        return functional.conv2d(padded, weight, groups=3)[0]
