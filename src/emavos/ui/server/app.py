"""The page as an ASGI application: which path is answered by what."""

from __future__ import annotations

from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from emavos.ui.desk import Desk
from emavos.ui.guard import Guard
from emavos.ui.server.answers import FRESH, Json, telling_errors
from emavos.ui.server.clips import ClipRequests
from emavos.ui.server.frames import FrameRequests
from emavos.ui.server.project import ProjectRequests

_SCRIPTS = (
    *("page", "server", "state", "acting", "sync", "describe", "edits", "tools", "clips", "objects"),
    *("tracking", "playback", "review", "keys", "pointer", "crosshair", "view", "painting", "clicks"),
    *("timeline", "peek"),
)
_ASSETS = {
    "": ("index.html", "text/html"),
    "page.css": ("page.css", "text/css"),
    "favicon.svg": ("favicon.svg", "image/svg+xml"),
    **{f"{name}.js": (f"{name}.js", "text/javascript") for name in _SCRIPTS},
}


def make_app(desk: Desk, token: str, host: str = "127.0.0.1", upload_limit: int = 4 << 30) -> Guard:
    """The page as an ASGI application.

    desk: state of the page.
    token: secret token, part of the printed address.
    host: address the server listens on.
    upload_limit: largest size of an uploaded video, in bytes.
    """
    frame, project, clip = (
        FrameRequests(desk),
        ProjectRequests(desk, upload_limit),
        ClipRequests(desk, upload_limit),
    )
    get, put, post, delete = (["GET"], ["PUT"], ["POST"], ["DELETE"])
    routes = [
        ("/api/state", project.state, get),
        ("/api/confidence", project.confidence, get),
        ("/api/frames/{index:int}", frame.picture, get),
        ("/api/masks/{index:int}", frame.mask, get),
        ("/api/masks/{index:int}", frame.give, put),
        ("/api/masks/{index:int}", frame.take_back, delete),
        ("/api/preview", frame.preview, get),
        ("/api/mask-file", frame.read_mask, post),
        ("/api/drafts/{index:int}", frame.draft, get),
        ("/api/drafts/{index:int}", frame.save_draft, put),
        ("/api/drafts/{index:int}", frame.forget_draft, delete),
        ("/api/looks/{index:int}", frame.look, post),
        ("/api/clicks/{index:int}", frame.click, post),
        ("/api/undo", project.undo, post),
        ("/api/redo", project.redo, post),
        ("/api/objects/{id:int}", project.remove, delete),
        ("/api/objects/{id:int}", project.rename, put),
        ("/api/switches", project.switch, put),
        ("/api/track", project.track, post),
        ("/api/stop", project.stop, post),
        ("/api/review", project.review, get),
        ("/api/downloads/{name}", project.download, post),
        ("/api/downloads/{name}", project.fetch_download, get),
        ("/api/clips", clip.list, get),
        ("/api/clips/{name}", clip.open, post),
        ("/api/clips/{name}", clip.remove, delete),
        ("/api/thumbnails/{name}", clip.thumbnail, get),
        ("/api/video", clip.open_video, put),
        ("/api/queue", clip.track_all, post),
        ("/{name}", _asset, get),
        ("/", _asset, get),
    ]
    app = Starlette(routes=[Route(path, telling_errors(answer), methods=how) for path, answer, how in routes])
    return Guard(app, token, host, ["/", *(f"/{name}" for name in _ASSETS)])


async def _asset(request: Request) -> Response:
    """A file of the page itself."""
    name = request.path_params.get("name", "")
    if name not in _ASSETS:
        return Json({"error": "there is no such page"}, 404)
    file, kind = _ASSETS[name]
    body = files("emavos.ui").joinpath("static", file).read_bytes()
    return Response(body, media_type=kind, headers=FRESH)
