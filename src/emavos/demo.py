"""A small synthetic scene with exact masks: fish, ball and starfish in shallow water."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from emavos.io import IdMask, Pixels

Plane = NDArray[np.float64]  # (H, W)
Colours = NDArray[np.float64]  # (H, W, 3), from 0 to 1

# An object is drawn in its own coordinates u, v: about 2 units wide, and facing right.
Shape = Callable[[Plane, Plane], Plane]  # distance to the border: negative inside
Paint = Callable[[Plane, Plane], Colours]


def synthetic_clip(
    frames: int = 48, size: tuple[int, int] = (240, 426), seed: int = 0, noise: float = 2.0
) -> tuple[list[Pixels], list[IdMask]]:
    """A clip and its ground truth: frames (H, W, 3) uint8, masks (H, W) of ids 1 to 3.

    A starfish drifts and turns (1), a beach ball rolls (2) and a striped fish swims across (3), while the
    camera moves over the sea bed. The objects grow, shrink and occlude each other. All are visible in the
    first frame. Borders are soft in the frames; a pixel belongs to the object that covers more than half of
    the pixel.

    frames: number of frames. Up to 48 show the beginning of the scene at normal speed; more show the whole
        scene in slow motion.
    size: (H, W) in pixels.
    seed: equal arguments return equal pixels.
    noise: standard deviation of the camera noise, on the scale of 0 to 255.
    """
    drawn = [*synthetic_frames(frames, size, seed, noise)]
    return [frame for frame, _ in drawn], [mask for _, mask in drawn]


def synthetic_frames(
    frames: int = 48, size: tuple[int, int] = (240, 426), seed: int = 0, noise: float = 2.0
) -> Iterator[tuple[Pixels, IdMask]]:
    """The frames and masks of `synthetic_clip`, drawn one at a time on request."""
    if frames < 1 or min(size) < 16:
        raise ValueError(f"a clip has at least one frame of 16x16, not {frames} of {size[0]}x{size[1]}")
    random = np.random.default_rng(seed)
    scene = _Scene(size, random)
    for index in range(frames):
        picture, mask = scene.render(index / max(frames - 1, 47))
        picture = picture * 255 + random.normal(0, noise, picture.shape)
        yield np.rint(picture).clip(0, 255).astype(np.uint8), mask


@dataclass(frozen=True)
class _Pose:
    """Position of an object, in picture heights from the centre; size; and rotation, in radians."""

    x: float
    y: float
    scale: float
    angle: float

    def own(self, x: Plane, y: Plane) -> tuple[Plane, Plane]:
        """Convert offsets x, y from the object into the object's own coordinates."""
        cos, sin = np.cos(self.angle) / self.scale, np.sin(self.angle) / self.scale
        return cos * x + sin * y, cos * y - sin * x


@dataclass(frozen=True)
class _Thing:
    id: int
    shape: Shape
    paint: Paint
    pose: Callable[[float], _Pose]  # pose at a time from 0 to 1
    height: float  # above the sea bed; sets the distance of the shadow


class _Scene:
    """Three objects above a sea bed, each on a path, drawn from the lowest to the highest."""

    def __init__(self, size: tuple[int, int], random: np.random.Generator) -> None:
        height, width = size
        y, x = np.mgrid[0:height, 0:width].astype(np.float64)
        self.x, self.y = (x - (width - 1) / 2) / height, (y - (height - 1) / 2) / height
        self.x *= random.choice([-1.0, 1.0])  # half of all scenes are mirrored
        self.pixel = 1 / height
        self.noise = _Noise(random)
        angles, lengths = np.arange(6) * 2.4 + random.uniform(0, 1, 6), random.uniform(18, 34, 6)
        speeds = random.uniform(3, 6, 6)
        self.waves = list(zip(lengths * np.cos(angles), lengths * np.sin(angles), speeds, strict=True))
        self.drift = random.uniform(0.15, 0.45), random.uniform(-0.2, 0.2)
        half = width / height / 2  # distance from the centre to the left and right border
        phase, spin, tilt = random.uniform(0, 2 * np.pi), random.uniform(2.0, 3.2), random.uniform(-0.1, 0.1)

        def starfish(t: float) -> _Pose:
            x, y = half * (0.12 - 0.35 * t), 0.2 - 0.08 * np.sin(3 * t)
            return _Pose(x, y, 0.21 + 0.04 * t, phase + 1.2 * t)

        def ball(t: float) -> _Pose:
            x, y = half * (0.62 - 1.05 * t), -0.2 + 0.3 * np.sin(np.pi * t) ** 2
            return _Pose(x, y, 0.18 - 0.04 * t, phase - spin * t)

        def fish(t: float) -> _Pose:
            x, y = half * (-0.58 + 1.12 * t), 0.06 * np.sin(5 * t) - 0.02
            return _Pose(x, y, 0.23 + 0.07 * np.sin(np.pi * t), tilt + 0.13 * np.sin(9 * t + phase))

        self.things = [  # from the lowest to the highest
            _Thing(1, _star, _star_paint, starfish, 0.02),
            _Thing(2, _disc, _ball_paint, ball, 0.05),
            _Thing(3, _fish, _fish_paint, fish, 0.09),
        ]

    def render(self, t: float) -> tuple[Colours, IdMask]:
        """The picture (H, W, 3), about 0 to 1, and the mask (H, W), at a time from 0 to 1."""
        picture = self._sea_bed(t)
        mask = np.zeros(self.x.shape, dtype=np.int32)
        for thing in self.things:
            self._draw(thing, thing.pose(t), picture, mask)
        return picture * self._light(t)[..., None], mask

    def _draw(self, thing: _Thing, pose: _Pose, picture: Colours, mask: IdMask) -> None:
        """Draw an object and its shadow over the picture, in the window that both cover."""
        reach = 1.3 * pose.scale + thing.height
        columns, rows = np.abs(self.x[0] - pose.x) < reach, np.abs(self.y[:, 0] - pose.y) < reach
        window = np.ix_(rows, columns)
        x, y = self.x[window] - pose.x, self.y[window] - pose.y
        seen = picture[window]
        if not seen.size:
            return
        shadow = np.clip(0.5 - thing.shape(*pose.own(x - thing.height, y - thing.height)) / 0.3, 0, 1)
        seen *= 1 - 0.4 * shadow[..., None]
        u, v = pose.own(x, y)
        distance = thing.shape(u, v)
        cover = np.clip(0.5 - distance * pose.scale / self.pixel, 0, 1)  # soft over one pixel
        colours = thing.paint(u, v) * self._shade(distance, pose)[..., None]
        picture[window] = seen + cover[..., None] * (colours - seen)
        mask[window] = np.where(cover > 0.5, thing.id, mask[window])

    def _shade(self, distance: Plane, pose: _Pose) -> Plane:
        """Shading of a body with a rounded border, lit from the upper left."""
        depth = np.clip(-distance / 0.55, 0, 1)
        dome = np.sqrt(depth * (2 - depth) + 0.02)
        down, right = np.gradient(dome, self.pixel / pose.scale)
        light: Plane = np.clip(0.98 + 0.16 * (down + right), 0.6, 1.25)
        return light

    def _sea_bed(self, t: float) -> Colours:
        x, y = self.x + self.drift[0] * t, self.y + self.drift[1] * t
        coarse, fine = self.noise(7 * x, 7 * y), self.noise(50 * x, 50 * y)
        weed = self.noise(2.2 * x + 99, 2.2 * y)
        ripples = np.sin(45 * (y + 0.3 * x) + 6 * coarse)
        bed = _mix((0.70, 0.61, 0.43), (0.96, 0.89, 0.70), 0.6 * coarse + 0.4 * fine + 0.07 * ripples)
        bed = _mix(bed, (0.17, 0.35, 0.27), 5 * (weed + 0.12 * coarse - 0.68) * (0.5 + 0.5 * fine))
        return _mix(bed, (0.20, 0.56, 0.63), 0.4 - 0.35 * self.y)

    def _light(self, t: float) -> Plane:
        """The bright web of light that waves cast on everything below."""
        web = sum(np.sin(kx * self.x + ky * self.y + speed * t) for kx, ky, speed in self.waves)
        light: Plane = 0.94 + 0.24 * np.exp(-2.5 * np.abs(web))
        return light


class _Noise:
    """Smooth noise from 0 to 1 in the plane, one bump per unit."""

    def __init__(self, random: np.random.Generator) -> None:
        self.lattice = random.uniform(0, 1, (256, 256))

    def __call__(self, x: Plane, y: Plane) -> Plane:
        left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
        a, b = x - left, y - top
        a, b = a * a * (3 - 2 * a), b * b * (3 - 2 * b)
        left, top = left & 255, top & 255
        right, bottom = (left + 1) & 255, (top + 1) & 255
        upper = self.lattice[top, left] * (1 - a) + self.lattice[top, right] * a
        lower = self.lattice[bottom, left] * (1 - a) + self.lattice[bottom, right] * a
        noise: Plane = upper * (1 - b) + lower * b
        return noise


def _disc(u: Plane, v: Plane) -> Plane:
    distance: Plane = np.hypot(u, v) - 1
    return distance


def _ball_paint(u: Plane, v: Plane) -> Colours:
    """Six segments of a beach ball, and its white cap."""
    segment = np.floor((np.arctan2(v - 0.12, u - 0.18) / (2 * np.pi) + 0.5) * 6).astype(np.int64) % 6
    white, red, blue, yellow = (0.95, 0.94, 0.92), (0.87, 0.16, 0.19), (0.13, 0.36, 0.74), (0.97, 0.77, 0.15)
    paint = np.array([red, white, blue, white, yellow, white])[segment]
    return _mix(paint, white, _step(0.2 - np.hypot(u - 0.18, v - 0.12)))


def _star(u: Plane, v: Plane) -> Plane:
    """Five round arms."""
    arm = (0.5 + 0.5 * np.cos(5 * np.arctan2(v, u))) ** 1.3
    distance: Plane = (np.hypot(u, v) - 0.4 - 0.6 * arm) * 0.62
    return distance


def _star_paint(u: Plane, v: Plane) -> Colours:
    """Purple, paler along the arms, with rings of dots."""
    radius, angle = np.hypot(u, v), np.arctan2(v, u)
    across = np.abs(np.sin(2.5 * angle)) * radius  # distance from the middle of an arm
    paint = _mix((0.45, 0.17, 0.47), (0.79, 0.38, 0.62), 1 - across / 0.3)
    dots = np.maximum(np.sin(26 * radius) - 4 * across, 0)
    return _mix(paint, (0.98, 0.83, 0.76), np.clip(1.6 * dots, 0, 0.9))


def _fish(u: Plane, v: Plane) -> Plane:
    """An oval with a forked tail and two fins."""
    body = (np.hypot((u - 0.15) / 0.85, v / 0.5) - 1) * 0.5
    fork = -1.12 + 0.25 * (1 - np.minimum(np.abs(v) / 0.35, 1))
    tail = np.maximum(np.abs(v) - 0.06 - 0.75 * (-0.55 - u), np.maximum(fork - u, u + 0.45)) * 0.75
    back = (np.hypot((u + 0.02) / 0.4, (v + 0.42) / 0.24) - 1) * 0.24
    belly = (np.hypot((u - 0.02) / 0.22, (v - 0.45) / 0.2) - 1) * 0.2
    return np.minimum(np.minimum(body, tail), np.minimum(back, belly))


def _fish_paint(u: Plane, v: Plane) -> Colours:
    """Orange, with three white bands edged in black, dark rims of the fins, and an eye."""
    paint = _mix((0.98, 0.62, 0.16), (0.90, 0.33, 0.08), 0.5 + 0.9 * v)
    bend = u - 0.12 * np.cos(3 * v)
    for place, half in ((0.42, 0.09), (-0.12, 0.11), (-0.62, 0.06)):
        distance = np.abs(bend - place) - half
        paint = _mix(paint, (0.12, 0.10, 0.10), _step(0.035 - distance))
        paint = _mix(paint, (0.96, 0.95, 0.92), _step(-distance))
    paint = _mix(paint, (0.12, 0.10, 0.10), _step(-1.03 - u))
    eye = np.hypot(u - 0.74, v + 0.1)
    paint = _mix(paint, (0.97, 0.96, 0.93), _step(0.1 - eye))
    return _mix(paint, (0.05, 0.05, 0.06), _step(0.062 - eye))


def _step(x: Plane) -> Plane:
    """0 below zero, 1 above, with a short soft transition."""
    return np.clip(0.5 + x / 0.03, 0, 1)


def _mix(a: Colours | tuple[float, ...], b: Colours | tuple[float, ...], share: Plane) -> Colours:
    """Blend colour a into colour b. share: (H, W), clipped to [0, 1]."""
    a, b = np.asarray(a), np.asarray(b)
    return a + (b - a) * np.clip(share, 0, 1)[..., None]
