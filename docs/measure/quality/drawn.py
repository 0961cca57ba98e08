"""Drawn clips with exact ground truth: crossing look-alikes, thin parts, objects that leave and return.

Each function yields frames (H, W, 3) uint8 and masks (H, W) of ids. Objects are polygons in their own
coordinates, drawn at three times the size and averaged down for soft borders. A pixel belongs to the topmost
object that covers more than half of the pixel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import cos, pi, sin

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from emavos.io import IdMask, Pixels

Colour = tuple[int, int, int]
Points = NDArray[np.float64]  # (N, 2), x to the right and y down
Frames = Iterator[tuple[Pixels, IdMask]]

_FINER = 3  # supersampling factor per axis
_GRAIN = 3.0  # standard deviation of the camera's noise, out of 255


@dataclass(frozen=True)
class Part:
    """A filled polygon, or a line with a width, in an object's own coordinates (about 2 wide)."""

    points: Points
    colour: Colour
    width: float = 0.0  # 0 for a filled polygon


@dataclass(frozen=True)
class Pose:
    """The position of an object. Lengths are in frame heights, from the frame's centre."""

    x: float
    y: float
    scale: float
    angle: float = 0.0  # clockwise, in radians
    mirrored: bool = False

    def placed(self, points: Points, height: int, width: int) -> Points:
        """Points of the object in pixels of the frame."""
        flipped = points * [-1, 1] if self.mirrored else points
        c, s = cos(self.angle), sin(self.angle)
        turned = flipped @ np.array([[c, s], [-s, c]]) * self.scale + [self.x, self.y]
        placed: Points = turned * height + [width / 2, height / 2]
        return placed


# function of the time in [0, 1]; lowest object first
Scene = Callable[[float], Sequence[tuple[Sequence[Part], Pose]]]


def fish_crossing(ground: Pixels, length: int, seed: int = 1) -> Frames:
    """Four identical fish; two swim right and two swim left, passing over each other."""

    def scene(t: float) -> list[tuple[Sequence[Part], Pose]]:
        fish, drift = _fish(), 1.15 * t - 0.575
        wave = [0.05 * sin(7 * t + k) for k in range(4)]
        return [
            (fish, Pose(drift + 0.05, -0.20 + 0.16 * t + wave[0], 0.13, 0.1)),
            (fish, Pose(0.10 - drift, -0.06 + wave[1], 0.13, -0.05, mirrored=True)),
            (fish, Pose(drift - 0.12, 0.13 - 0.10 * t + wave[2], 0.13)),
            (fish, Pose(-0.08 - drift, 0.30 - 0.14 * t + wave[3], 0.13, mirrored=True)),
        ]

    return draw(scene, ground, length, seed)


def balls_circling(ground: Pixels, length: int, seed: int = 2) -> Frames:
    """Five identical balls that roll around a flat ellipse, passing over each other."""

    def scene(t: float) -> list[tuple[Sequence[Part], Pose]]:
        poses = []
        for k in range(5):
            turn = 2 * pi * (0.45 * t + k / 5)
            poses.append(Pose(0.5 * cos(turn), 0.04 + 0.10 * sin(turn), 0.105, 9 * t))
        return [(_ball(), pose) for pose in poses]

    return draw(scene, ground, length, seed)


def bicycle(ground: Pixels, length: int, seed: int = 3) -> Frames:
    """A bicycle of thin lines that rides across the frame."""

    def scene(t: float) -> list[tuple[Sequence[Part], Pose]]:
        return [(_bicycle(-9 * t), Pose(0.75 * t - 0.4, 0.08 + 0.02 * sin(20 * t), 0.22, 0.06 * sin(8 * t)))]

    return draw(scene, ground, length, seed)


def walkers(ground: Pixels, length: int, seed: int = 4) -> Frames:
    """Two figures with thin limbs and different colours that walk towards each other and pass."""

    def scene(t: float) -> list[tuple[Sequence[Part], Pose]]:
        blue, red = (45, 80, 170), (190, 50, 60)
        return [
            (_walker(14 * t, blue), Pose(0.9 * t - 0.45, 0.0, 0.3)),
            (_walker(14 * t + 1, red), Pose(0.45 - 0.9 * t, 0.05, 0.3, mirrored=True)),
        ]

    return draw(scene, ground, length, seed)


def fish_returning(ground: Pixels, length: int, seed: int = 5) -> Frames:
    """Two fish of different colours: one stays, the other leaves the frame, turns and comes back."""

    def scene(t: float) -> list[tuple[Sequence[Part], Pose]]:
        away = Pose(0.25 + 1.15 * sin(pi * t), 0.1 - 0.12 * t, 0.16, mirrored=t > 0.5)
        stays = Pose(-0.35 + 0.25 * sin(5 * t), -0.08 + 0.06 * sin(9 * t), 0.16, mirrored=cos(5 * t) < 0)
        return [(_fish(), stays), (_fish((70, 130, 200)), away)]

    return draw(scene, ground, length, seed)


def draw(scene: Scene, ground: Pixels, length: int, seed: int) -> Frames:
    """The frames and masks of a scene in front of a photo, with a drifting camera.

    scene: function of the time in [0, 1] that returns the objects; they get ids 1, 2, ... in order.
    ground: (H, W, 3) uint8, the photo; frames have its size.
    length: number of frames.
    seed: seed of the camera's drift and noise.
    """
    height, width = ground.shape[:2]
    random = np.random.default_rng(seed)
    drift = random.uniform(-1, 1, 2)
    for index in range(length):
        t = index / max(length - 1, 1)
        pixels, mask = _window(ground, 0.5 + (t - 0.5) * drift), np.zeros((height, width), np.int32)
        for id, (parts, pose) in enumerate(scene(t), start=1):
            colours, cover = _layer(parts, pose, height, width)
            pixels = pixels * (1 - cover[..., None]) + colours * cover[..., None]
            mask[cover > 0.5] = id
        pixels = pixels + random.normal(0, _GRAIN, pixels.shape)
        yield np.rint(pixels).clip(0, 255).astype(np.uint8), mask


def _layer(parts: Sequence[Part], pose: Pose, height: int, width: int) -> tuple[Points, Points]:
    """The colours (H, W, 3) of an object, and the covered fraction of each pixel (H, W)."""
    size = (width * _FINER, height * _FINER)
    colours, cover = Image.new("RGB", size, parts[0].colour), Image.new("L", size, 0)
    pens = ImageDraw.Draw(colours), ImageDraw.Draw(cover)
    for part in parts:
        points = [(x, y) for x, y in (pose.placed(part.points, height, width) * _FINER).tolist()]
        inks: tuple[tuple[int, ...] | int, ...] = (part.colour, 255)
        for pen, ink in zip(pens, inks, strict=True):
            if part.width:
                thick = max(round(part.width * pose.scale * height * _FINER), 1)
                pen.line(points, fill=ink, width=thick, joint="curve")
            else:
                pen.polygon(points, fill=ink)
    small = [np.asarray(image.reduce(_FINER), dtype=np.float64) for image in (colours, cover)]
    return small[0], small[1] / 255


def _window(ground: Pixels, place: Points) -> Points:
    """A part of the photo, enlarged by a quarter; `place` is its position in [0, 1] by x and y."""
    height, width = ground.shape[:2]
    left, top = place * [width, height] * 0.2
    box = (left, top, left + 0.8 * width, top + 0.8 * height)
    image = Image.fromarray(ground).resize((width, height), Image.Resampling.BICUBIC, box=box)
    return np.asarray(image, dtype=np.float64)


def _round(x: float, y: float, wide: float, high: float, begin: float = 0, end: float = 2 * pi) -> Points:
    """The border of an ellipse, from one angle to another."""
    turn = np.linspace(begin, end, 48)
    return np.stack([x + wide * np.cos(turn), y + high * np.sin(turn)], axis=1)


def _line(*points: tuple[float, float]) -> Points:
    return np.array(points, dtype=np.float64)


def _fish(colour: Colour = (235, 120, 40)) -> list[Part]:
    """A fish facing right: body, forked tail, fin, two white bands and an eye."""
    white, dark = (240, 238, 230), (30, 28, 30)
    darker: Colour = (colour[0] * 2 // 3, colour[1] * 2 // 3, colour[2] * 2 // 3)
    return [
        Part(_line((-0.5, 0), (-1.1, -0.5), (-0.95, 0), (-1.1, 0.5)), darker),
        Part(_line((-0.3, -0.35), (0.05, -0.75), (0.4, -0.35)), darker),
        Part(_round(0.15, 0, 0.85, 0.45), colour),
        Part(_line((0.3, -0.44), (0.5, -0.41), (0.46, 0.41), (0.26, 0.44)), white),
        Part(_line((-0.3, -0.38), (-0.12, -0.42), (-0.14, 0.42), (-0.32, 0.38)), white),
        Part(_round(0.75, -0.1, 0.08, 0.08), dark),
    ]


def _ball() -> list[Part]:
    """Six segments, red and white in turn."""
    white, red = (240, 238, 232), (205, 45, 50)
    wedges = []
    for k in range(6):
        arc = _round(0, 0, 1, 1, k * pi / 3, (k + 1) * pi / 3)
        wedges.append(Part(np.concatenate([arc, [[0, 0]]]), (white, red)[k % 2]))
    return wedges


def _bicycle(turn: float) -> list[Part]:
    """Two wheels with spokes, a frame, a saddle and handlebars, all of thin lines."""
    black, green = (25, 25, 28), (30, 110, 70)
    parts = []
    for x in (-0.62, 0.62):
        parts.append(Part(_round(x, 0.3, 0.4, 0.4), black, 0.05))
        for k in range(4):
            c, s = 0.4 * cos(turn + k * pi / 4), 0.4 * sin(turn + k * pi / 4)
            parts.append(Part(_line((x - c, 0.3 - s), (x + c, 0.3 + s)), (150, 150, 155), 0.015))
    rear, crank, seat, head, front = (-0.62, 0.3), (-0.1, 0.3), (-0.25, -0.25), (0.42, -0.25), (0.62, 0.3)
    parts += [
        Part(_line(rear, crank, head, seat, rear), green, 0.055),
        Part(_line(seat, crank), green, 0.055),
    ]
    parts += [Part(_line((0.38, -0.42), head, front), green, 0.055)]
    parts += [
        Part(_line((-0.4, -0.33), (-0.12, -0.33)), black, 0.08),
        Part(_line((-0.27, -0.33), seat), black, 0.04),
    ]
    return [*parts, Part(_line((0.3, -0.44), (0.5, -0.42)), black, 0.05)]


def _walker(phase: float, shirt: Colour) -> list[Part]:
    """A head, a body and limbs of two lines each; `phase` swings arms and legs."""
    skin, trousers = (215, 170, 140), (50, 50, 60)
    parts = []
    for k in (0, pi):
        leg, arm = 0.5 * sin(phase + k), 0.6 * sin(phase + k + pi)
        knee = (0.42 * sin(leg), 0.15 + 0.42 * cos(leg))
        bend = leg - 0.4 - 0.3 * cos(phase + k)
        foot = (knee[0] + 0.42 * sin(bend), knee[1] + 0.42 * cos(bend))
        elbow = (0.3 * sin(arm), -0.4 + 0.3 * cos(arm))
        hand = (elbow[0] + 0.3 * sin(arm + 0.5), elbow[1] + 0.3 * cos(arm + 0.5))
        parts.append(Part(_line((0, 0.15), knee, foot, (foot[0] + 0.12, foot[1])), trousers, 0.075))
        parts.append(Part(_line((0, -0.4), elbow, hand), skin, 0.055))
    return [
        *parts,
        Part(_line((0, -0.45), (0, 0.17)), shirt, 0.16),
        Part(_round(0.02, -0.65, 0.12, 0.15), skin),
    ]
