"""What a request says: its project, the state that it was made on, its numbers, and its body."""

from __future__ import annotations

import io
import json
import re
from collections.abc import AsyncIterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request

from emavos.io.ids import ids_of_picture
from emavos.io.images import FORMATS, decode_image
from emavos.ui.desk import Desk
from emavos.ui.facts import LARGEST_ID, fit_name
from emavos.ui.project import Project

_MOST_CLICKS = 200  # of a prompt; each is a step of the network, and the page cannot end within them


class TooLarge(ValueError):
    """The request is larger than the limit."""


class Unsaid(ValueError):
    """A request that changes something lacks the state shown by the page."""


def shown_project(desk: Desk, request: Request) -> Project:
    """Returns the open project. Raises Outdated if the page shows another."""
    desk.check_key(key_of(request))
    return desk.the_project()


def key_of(request: Request) -> str | None:
    """The key of the project shown by the page, or None."""
    return request.headers.get("x-project", request.query_params.get("project"))


def key_of_change(request: Request) -> str:
    """The key of the project to change. Raises Unsaid if the request lacks a key."""
    key = key_of(request)
    if key is None:
        raise Unsaid("a change says of which project it is, as x-project: the key of /api/state")
    return key


def tag_of_change(request: Request) -> str:
    """The state that a change was made on, sent as If-Match. Raises Unsaid if the request lacks it."""
    tag = request.headers.get("if-match")
    if tag is None:
        raise Unsaid("a change says what it was made on, as If-Match: the ETag of a mask, or edits")
    return tag.strip('"')


def edits_of_change(request: Request) -> tuple[str, int]:
    """The key of the project to change, and the number of edits that the page shows."""
    edits = tag_of_change(request)
    return key_of_change(request), int(edits) if re.fullmatch(r"\d{1,15}", edits, re.ASCII) else -1


def whole_number(text: str, name: str) -> int | None:
    """A whole number of the address; None if it is empty. Raises ValueError if it is none."""
    if not text:
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{name} is a whole number, not {text!r:.40}")
    return int(text)


def prompt_of(text: str) -> tuple[list[tuple[float, float]], list[int], list[float] | None]:
    """Points, labels and box of a prompt in JSON. Raises ValueError unless they are numbers, and not many."""
    try:
        said = json.loads(text)
        points = [(float(x), float(y)) for x, y in said["points"]]
        labels = [int(label) for label in said["labels"]]
        box = None if said.get("box") is None else [float(side) for side in said["box"]]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
        raise ValueError(f"a prompt is JSON with points, labels and box, not {text!r:.60}") from error
    if len(points) > _MOST_CLICKS:
        raise ValueError(f"there are {len(points)} clicks, and at most {_MOST_CLICKS} on one object")
    return points, labels, box


def shown_name(name: str) -> str:
    """The name of a sent video as the page shows it: in any script, without folders."""
    return fit_name(re.split(r"[/\\]", name)[-1]) or "video"


def plain_name(name: str) -> str:
    """A safe file name without folders: letters, digits, dots, dashes and underscores."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", re.split(r"[/\\]", name)[-1]).lstrip(".")
    return plain[-100:].lstrip(".") or "video"


async def chunks_of(request: Request, limit: int) -> AsyncIterator[bytes]:
    """Yield the body as it arrives. Raises TooLarge as soon as it exceeds `limit` bytes."""
    declared, read = request.headers.get("content-length", "0"), 0
    too_large = TooLarge(f"this is larger than {limit:,} bytes, which is the limit")
    if declared.isdecimal() and int(declared) > limit:
        raise too_large
    async for chunk in request.stream():
        read += len(chunk)
        if read > limit:
            raise too_large
        yield chunk


async def body_of(request: Request, limit: int) -> bytes:
    """The whole body. Raises TooLarge if it exceeds `limit` bytes."""
    return b"".join([chunk async for chunk in chunks_of(request, limit)])


def ids_of_bytes(body: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask sent as H x W bytes, one id each: uint8 (H, W). Raises ValueError unless the size fits."""
    height, width = size
    if len(body) != height * width:
        raise ValueError(f"a mask of this video has {height * width} bytes, not {len(body)}")
    return np.frombuffer(body, np.uint8).reshape(height, width)


def ids_of_file(body: bytes, size: tuple[int, int]) -> NDArray[np.uint8]:
    """A mask sent as an image file: uint8 (H, W). Raises ValueError unless size and ids fit."""
    try:
        with Image.open(io.BytesIO(body), formats=FORMATS) as picture:  # reads only the header
            shape = (picture.height, picture.width)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError("this is not an image; a mask is a PNG of ids") from error
    if shape != size:
        have, want = ("x".join(map(str, s)) for s in (shape, size))
        raise ValueError(f"the mask is {have} but the video is {want} (height x width); resize it")
    mask = ids_of_picture(decode_image(io.BytesIO(body), "the mask"))
    if mask.min() < 0 or mask.max() > LARGEST_ID:
        raise ValueError(f"the mask has id {mask.max()}; the page takes ids from 1 to {LARGEST_ID}")
    return mask.astype(np.uint8)
