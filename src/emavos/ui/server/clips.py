"""Requests about the list of clips: open, add and delete them, and track one after another."""

from __future__ import annotations

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from emavos.io.spool import named_temporary
from emavos.ui.desk import Desk
from emavos.ui.server.answers import FRESH, Json
from emavos.ui.server.requests import chunks_of, key_of_change, plain_name, shown_name


class ClipRequests:
    """Answers requests about the list of clips.

    upload_limit: largest size of an uploaded video, in bytes.
    """

    def __init__(self, desk: Desk, upload_limit: int) -> None:
        self.desk = desk
        self.upload_limit = upload_limit

    async def list(self, request: Request) -> Response:
        return Json(await run_in_threadpool(self.desk.clips), headers=FRESH)

    async def open(self, request: Request) -> Response:
        """Show another clip; tracking of this one goes on."""
        key = key_of_change(request)
        await run_in_threadpool(self.desk.open_clip, request.path_params["name"], key)
        return Json({})

    async def remove(self, request: Request) -> Response:
        """Delete a clip and its masks."""
        key_of_change(request)
        await run_in_threadpool(self.desk.remove_clip, request.path_params["name"])
        return Json({})

    async def thumbnail(self, request: Request) -> Response:
        body = await run_in_threadpool(self.desk.thumbnail, request.path_params["name"])
        return Response(body, media_type="image/jpeg", headers=FRESH)

    async def open_video(self, request: Request) -> Response:
        """Open a sent video; with `add=1` in the address, only add the video to the list of clips."""
        sent, key = request.query_params.get("name", ""), key_of_change(request)
        name = plain_name(sent)
        show = request.query_params.get("add", "") != "1"
        if show:
            self.desk.check_key(key)  # checked before the whole upload
        folder = await run_in_threadpool(self.desk.upload_folder)
        try:
            with named_temporary(), (folder / name).open("wb") as file:
                async for chunk in chunks_of(request, self.upload_limit):
                    await run_in_threadpool(file.write, chunk)
            await run_in_threadpool(
                self.desk.open_video, folder / name, shown_name(sent), True, key, show=show
            )
        except BaseException as error:
            (folder / name).unlink(missing_ok=True)
            folder.rmdir()
            if isinstance(error, ValueError):
                raise type(error)(str(error).replace(f"{folder}/", "")) from error
            raise
        return Json({})

    async def track_all(self, request: Request) -> Response:
        """Track all clips that have masks and frames left, one after another."""
        key_of_change(request)
        return Json({"clips": await run_in_threadpool(self.desk.track_all)})
