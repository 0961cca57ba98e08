"""Requests about the open project: its state, objects, edits, tracking and downloads."""

from __future__ import annotations

import os
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from emavos.ui.desk import Desk
from emavos.ui.server.answers import FRESH, Json, attachment, pieces_of
from emavos.ui.server.requests import (
    body_of,
    edits_of_change,
    key_of,
    key_of_change,
    shown_project,
    whole_number,
)
from emavos.ui.switches import parse_switches

_PATIENCE = 0.25  # seconds


class ProjectRequests:
    """Answers requests about the open project.

    upload_limit: largest size of an uploaded video in bytes, which the state names.
    """

    def __init__(self, desk: Desk, upload_limit: int) -> None:
        self.desk = desk
        self.upload_limit = upload_limit

    async def state(self, request: Request) -> Response:
        """The state. With `job` and `done`, waits until the job has made other progress, or `_PATIENCE`."""
        asked, job = request.query_params, self.desk.shown_job()
        number, done = (whole_number(asked.get(name, ""), name) for name in ("job", "done"))
        if job is not None and job.number == number:
            await run_in_threadpool(job.wait_beyond, done, _PATIENCE)
        state = await run_in_threadpool(self.desk.state)
        return Json({**state, "upload_limit": self.upload_limit}, headers=FRESH)

    async def confidence(self, request: Request) -> Response:
        """{frame: {id: confidence}} from frame `start` on."""
        start = request.query_params.get("start", "0")
        sure = dict(
            shown_project(self.desk, request).confidence
        )  # a copy, as tracking adds entries meanwhile
        begin = int(start) if start.isdecimal() else 0
        return Json({i: of for i, of in sure.items() if i >= begin}, headers=FRESH)

    async def undo(self, request: Request) -> Response:
        """Undo the last edit; If-Match is `edits` of the state. Returns what it was, and its frame."""
        what, frame = await run_in_threadpool(self.desk.undo, *edits_of_change(request))
        return Json({"what": what, "frame": frame})

    async def redo(self, request: Request) -> Response:
        what, frame = await run_in_threadpool(self.desk.redo, *edits_of_change(request))
        return Json({"what": what, "frame": frame})

    async def remove(self, request: Request) -> Response:
        seen = edits_of_change(request)
        await run_in_threadpool(self.desk.remove, request.path_params["id"], *seen)
        return Json({})

    async def rename(self, request: Request) -> Response:
        """Name an object: the body is its name in UTF-8, or empty."""
        key, label = key_of_change(request), (await body_of(request, 1000)).decode("utf-8", "replace")
        await run_in_threadpool(self.desk.rename, request.path_params["id"], label, key)
        return Json({})

    async def switch(self, request: Request) -> Response:
        """Hide, show alone and lock objects: the body is JSON of all switches."""
        key, switches = key_of_change(request), parse_switches(await body_of(request, 10_000))
        await run_in_threadpool(self.desk.switch, switches, key)
        return Json({})

    async def track(self, request: Request) -> Response:
        """Track: `way`, `frames`, `first` and `last` in the address, as for `Desk.track`."""
        asked = request.query_params
        numbers = {name: whole_number(asked.get(name, ""), name) for name in ("frames", "first", "last")}
        way, key = asked.get("way", "forward"), key_of(request)
        await run_in_threadpool(self.desk.track, key=key, direction=way, **numbers)
        return Json({})

    async def review(self, request: Request) -> Response:
        """The frames to fix, the most useful first."""
        shown_project(self.desk, request)
        return Json(await run_in_threadpool(self.desk.suggestions), headers=FRESH)

    async def stop(self, request: Request) -> Response:
        self.desk.stop(request.query_params.get("all", "") == "1")
        return Json({})

    async def download(self, request: Request) -> Response:
        outdated = request.query_params.get("outdated", "") == "1"
        self.desk.download(request.path_params["name"], key_of(request), outdated)
        return Json({})

    async def fetch_download(self, request: Request) -> Response:
        name, project = request.path_params["name"], shown_project(self.desk, request)
        file = self.desk.open_download(name)
        headers = {
            "content-length": str(os.fstat(file.fileno()).st_size),
            "content-disposition": attachment(f"{Path(project.name).stem[:100] or 'video'}-{name}"),
            **FRESH,
        }
        return StreamingResponse(pieces_of(file), media_type="application/octet-stream", headers=headers)
