"""Draw whole batches of mixed samples on a device whose memory holds all pictures.

`draw_plans` returns the samples of `mixed_drawing.draw_plan`, which is the definition, but for rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from emavos.data.points import regular_points
from emavos.data.samples import Sample
from emavos.data.stacked_plans import Layer, StackedPlans, Views
from emavos.data.transforms import recoloured, reduced
from emavos.data.videos import Videos
from emavos.frames.preprocess import moved, normalize

Pair = tuple[Tensor, Tensor]  # a picture (3, H, W) uint8 and a mask (H, W)


@torch.no_grad()
def draw_plans(plans: StackedPlans, stills: Videos, clips: Videos, size: int, device: torch.device) -> Sample:
    """The samples of B plans: frames (B, T, 3, S, S), masks (B, T, O, S, S) and flags (B, O).

    plans: choices of the samples, see `stack_plans`.
    stills, clips: sets of videos that the plans' numbers refer to, in the memory of the device.
    size: side of the samples in pixels.
    device: device to draw on.
    """
    plans = _moved(plans, device)
    frames, ids = _scenes(plans, stills, clips, size)  # (B, T, 3, S, S) in [0, 1], (B, T, S, S) of ids
    ids = plans.numbers.long().gather(1, ids.flatten(1)).view_as(ids)
    for layer in plans.layers:
        _paste(frames, ids, layer, stills, size)
    if plans.blurred:
        _blur(frames.flatten(0, 1), plans.blurred, plans.kernels)
    frames = _recoloured(frames, plans.colours)
    masks = torch.stack([ids == id for id in range(1, plans.objects + 1)], dim=2).float()
    return Sample(normalize(frames), masks, masks.new_ones(len(frames), plans.objects))


def _moved(part: Any, device: torch.device) -> Any:
    """A value with all tensors in it, also those in tuples and lists, on the device."""
    if isinstance(part, Tensor):
        return part.to(device, non_blocking=True)
    if isinstance(part, list):
        return [_moved(x, device) for x in part]
    if hasattr(part, "_fields"):
        return type(part)(*(_moved(x, device) for x in part))
    return part


def _scenes(plans: StackedPlans, stills: Videos, clips: Videos, size: int) -> Pair:
    """The frames before anything is pasted, and the ids of the pictures."""
    count = len(plans.real) + len(plans.still)
    length = len(plans.real_places) // len(plans.real) if plans.real else plans.still_views.matrix.shape[1]
    frames = plans.colours.new_empty(count, length, 3, size, size)
    ids = frames.new_empty(count, length, size, size, dtype=torch.long)
    if plans.real:
        pairs = [clips.load(*place) for place in plans.real_places]
        seen, masks = _seen(pairs, plans.real_views, size)
        where = _tensor(plans.real, ids)
        frames[where] = seen.view(-1, length, 3, size, size)
        ids[where] = masks.view(-1, length, size, size)
    if plans.still:
        pairs = [stills.load(*place) for place in plans.still_places]
        seen, masks = _seen(pairs, plans.still_views, size)
        where = _tensor(plans.still, ids)
        frames[where], ids[where] = _recoloured(seen, plans.jitters), masks
    return frames, ids


def _paste(frames: Tensor, ids: Tensor, layer: Layer, stills: Videos, size: int) -> None:
    """Paste an object into each of some clips, in place.

    frames: (B, T, 3, S, S) in [0, 1].
    ids: (B, T, S, S) of ids.
    """
    pairs = []
    for clip, still, id in zip(layer.clips, layer.stills, layer.source_ids, strict=True):
        first = ((frames[clip, 0] * 255).to(torch.uint8), ids[clip, 0])
        image, mask = first if still is None else stills.load(still, 0)
        pairs.append((image, mask == id))
    seen, place = _seen(pairs, layer.views, size)  # (n, T, 3, S, S), (n, T, S, S)
    under, soft, number = (_tensor(x, ids).view(-1, 1, 1, 1) for x in (layer.under, layer.soft, layer.ids))
    where = _tensor(layer.clips, ids)
    now = ids[where]
    shown = (place > 0) & ((under == 0) | (now == 0))
    edge = functional.avg_pool2d(shown.float(), 3, stride=1, padding=1, count_include_pad=False)
    alpha = torch.where(soft > 0, edge, shown.float())[:, :, None]
    frames[where] = torch.lerp(frames[where], seen, alpha)
    ids[where] = torch.where(shown, number, now)


def _seen(pairs: Sequence[Pair], views: Views, size: int) -> Pair:
    """T views of each of n pictures: frames (n, T, 3, S, S) in [0, 1], ids (n, T, S, S)."""
    images = [reduced(image, times) for (image, _), times in zip(pairs, views.reductions, strict=True)]
    means = torch.stack([image.mean(dim=(1, 2)) for image in images])[:, None, :, None, None]
    centred = [image - mean[0] for image, mean in zip(images, means, strict=True)]
    # positions in the picture; its corners are 0 and 1
    sides = _sides([mask for _, mask in pairs], means)
    grid = _positions(views, size) / sides[:, None, None, None]  # (n, T, S, S, 2)
    seen = _sampled(centred, grid, "bilinear").transpose(1, 2) + means
    ids = _sampled([mask[None].float() for _, mask in pairs], grid, "nearest")
    return seen, ids[:, 0].long()


def _positions(views: Views, size: int) -> Tensor:
    """The position in the picture of each pixel of each view, in pixels: (n, T, S, S, 2)."""
    points = moved(regular_points(size), views.matrix.device)
    matrix = views.matrix[:, :, None, None]  # (n, T, 1, 1, 2, 3)
    source = (matrix[..., :2] * points[:, :, None]).sum(dim=-1) + matrix[..., 2]
    warp = functional.interpolate(
        views.warp.flatten(0, 1), (size, size), mode="bicubic", align_corners=True
    ).unflatten(0, views.warp.shape[:2])
    source = source + warp.permute(0, 1, 3, 4, 2)
    return source * views.half[:, None, None, None] + views.centre[:, None, None, None]


def _sampled(planes: Sequence[Tensor], grid: Tensor, mode: str) -> Tensor:
    """Planes (C, h, w) of n sizes at the positions of a grid (n, T, S, S, 2): (n, C, T, S, S).

    Outside the planes, the result is 0.
    """
    height, width = (max(plane.shape[axis] for plane in planes) for axis in (1, 2))
    canvas = planes[0].new_zeros(len(planes), len(planes[0]), height, width)
    for whole, plane in zip(canvas, planes, strict=True):
        whole[:, : plane.shape[1], : plane.shape[2]] = plane
    share = _sides(planes, grid) / _tensor([width, height], grid)  # (n, 2)
    grid = grid * share[:, None, None, None] * 2 - 1
    out = functional.grid_sample(canvas, grid.flatten(1, 2), mode=mode, align_corners=False)
    return out.unflatten(2, grid.shape[1:3])


def _sides(planes: Sequence[Tensor], like: Tensor) -> Tensor:
    """Width and height (n, 2) of planes (..., h, w)."""
    return _tensor([(plane.shape[-1], plane.shape[-2]) for plane in planes], like)


def _tensor(values: Sequence[object], like: Tensor) -> Tensor:
    """Values as a tensor of the type and on the device of `like`, without waiting for a GPU."""
    return moved(torch.tensor(values, dtype=like.dtype, device="cpu"), like.device)


def _blur(frames: Tensor, places: Sequence[int], kernels: Tensor) -> None:
    """Blur some of the frames (B * T, 3, S, S) in place, each with its kernel; kernels: (m, n, n)."""
    reach = kernels.shape[1] // 2
    where = moved(torch.tensor(places, device="cpu"), frames.device)
    sharp = functional.pad(frames[where], (reach, reach, reach, reach), mode="replicate")
    weight = kernels.repeat_interleave(3, dim=0)[:, None]  # (3 m, 1, n, n)
    blurred = functional.conv2d(sharp.flatten(0, 1)[None], weight, groups=len(weight))
    frames[where] = blurred.view(-1, *frames.shape[1:])


def _recoloured(frames: Tensor, colours: Tensor) -> Tensor:
    """frames (n, T, 3, S, S) in [0, 1] after the changes of rows (n, T or 1, 6), see `colour_row`."""
    brightness, contrast, saturation = colours[..., :3, None, None, None].unbind(dim=2)
    return recoloured(frames, brightness, contrast, saturation, colours[..., 3:, None, None])
