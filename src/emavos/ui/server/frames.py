"""Requests about one frame: its picture, its mask, strokes that were not kept yet, and clicks."""

from __future__ import annotations

import gzip

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from emavos.io import IdMask
from emavos.ui.desk import Desk
from emavos.ui.server.answers import FRESH, Json
from emavos.ui.server.requests import (
    body_of,
    ids_of_bytes,
    ids_of_file,
    key_of,
    key_of_change,
    prompt_of,
    shown_project,
    tag_of_change,
)
from emavos.ui.table import tag_of

MASK_FILE_LIMIT = 32 << 20  # largest mask file to load, in bytes; ids compress well


class FrameRequests:
    """Answers requests about one frame. The frame's index is part of the path."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    async def picture(self, request: Request) -> Response:
        """A frame as JPEG. Browsers may cache the response if the address has the project's unique key."""
        project, index = shown_project(self.desk, request), request.path_params["index"]
        body = await run_in_threadpool(project.frame_bytes, index)
        keep = {"cache-control": "private, max-age=86400"} if key_of(request) else FRESH
        return Response(body, media_type="image/jpeg", headers=keep)

    async def mask(self, request: Request) -> Response:
        """A frame's mask as H x W bytes, one id each, gzipped. Changing the mask requires its ETag."""
        project, index = shown_project(self.desk, request), request.path_params["index"]
        mask = await run_in_threadpool(project.mask, index)
        packed = gzip.compress(mask.astype(np.uint8).tobytes(), compresslevel=1)
        headers = {"content-encoding": "gzip", "etag": f'"{tag_of(mask)}"', "x-mask": project.kind(index)}
        headers |= {"x-draft": str(int(index in project.drafts))} | FRESH
        return Response(packed, media_type="application/octet-stream", headers=headers)

    async def preview(self, request: Request) -> Response:
        """The newest mask that was tracked and is not written yet, as `mask`; 204 if there is none.

        The header x-frame has the number of its frame.
        """
        shown_project(self.desk, request)
        preview = await run_in_threadpool(self.desk.preview)
        if preview is None:
            return Response(status_code=204, headers=FRESH)
        index, mask = preview
        body = gzip.compress(mask.astype(np.uint8).tobytes(), compresslevel=1)
        headers = {"content-encoding": "gzip", "x-frame": str(index), **FRESH}
        return Response(body, media_type="application/octet-stream", headers=headers)

    async def give(self, request: Request) -> Response:
        """Give a mask: the body is H x W bytes, one id each."""
        seen = key_of_change(request), tag_of_change(request)
        mask = await self._sent_mask(request)
        ids, tag = await run_in_threadpool(self.desk.give_tagged, request.path_params["index"], mask, *seen)
        return Json({"ids": ids}, headers={"etag": f'"{tag}"'})

    async def take_back(self, request: Request) -> Response:
        seen = key_of_change(request), tag_of_change(request)
        await run_in_threadpool(self.desk.take_back, request.path_params["index"], *seen)
        return Json({})

    async def draft(self, request: Request) -> Response:
        """A frame's mask with strokes that were not kept yet, as H x W bytes; 204 if there are none."""
        project, index = shown_project(self.desk, request), request.path_params["index"]
        mask = await run_in_threadpool(project.draft, index)
        if mask is None:
            return Response(status_code=204, headers=FRESH)
        body = mask.astype(np.uint8).tobytes()
        return Response(body, media_type="application/octet-stream", headers=FRESH)

    async def save_draft(self, request: Request) -> Response:
        """Store strokes that were not kept yet: the body is the mask with the strokes, H x W bytes."""
        seen = key_of_change(request), tag_of_change(request)
        mask = await self._sent_mask(request)
        await run_in_threadpool(self.desk.save_draft, request.path_params["index"], mask, *seen)
        return Json({})

    async def forget_draft(self, request: Request) -> Response:
        seen = key_of_change(request), tag_of_change(request)
        await run_in_threadpool(self.desk.save_draft, request.path_params["index"], None, *seen)
        return Json({})

    async def look(self, request: Request) -> Response:
        """Encode a frame ahead; with `long=1`, after a long look, also prepare to track from the frame."""
        project, index = shown_project(self.desk, request), request.path_params["index"]
        await run_in_threadpool(self.desk.look, index)
        if request.query_params.get("long", "") == "1":
            self.desk.mended(project, index)
        return Json({})

    async def click(self, request: Request) -> Response:
        """The mask of one object from clicks, as H x W bytes of 0 and 1; stores nothing.

        `prompt` in the address is JSON: points, labels and box. The body is the mask of the object before the
        clicks, H x W bytes, or empty.
        """
        project = shown_project(self.desk, request)
        points, labels, box = prompt_of(request.query_params.get("prompt", ""))
        height, width = project.size
        body = await body_of(request, height * width)
        before = ids_of_bytes(body, project.size) != 0 if body else None
        clicked = await run_in_threadpool(
            self.desk.click, request.path_params["index"], points, labels, box, before
        )
        packed = gzip.compress(clicked.mask.astype(np.uint8).tobytes(), compresslevel=1)
        headers = {"content-encoding": "gzip", "x-score": f"{clicked.score:.3f}", **FRESH}
        return Response(packed, media_type="application/octet-stream", headers=headers)

    async def read_mask(self, request: Request) -> Response:
        """Returns the ids of a PNG as H x W bytes to paint on; stores nothing."""
        body = await body_of(request, MASK_FILE_LIMIT)
        mask = await run_in_threadpool(ids_of_file, body, self.desk.the_project().size)
        return Response(mask.tobytes(), media_type="application/octet-stream")

    async def _sent_mask(self, request: Request) -> IdMask:
        """The mask in the body of a request: H x W bytes, one id each."""
        height, width = size = shown_project(self.desk, request).size
        return ids_of_bytes(await body_of(request, height * width), size).astype(np.int32)
