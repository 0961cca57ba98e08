"""`emavos ui`: a local web page to paint objects, track them and correct their masks."""

from __future__ import annotations

import argparse
import os
import secrets
import socket
import sys
from pathlib import Path

from emavos.cli.arguments import (
    Commands,
    add_damaged_argument,
    add_memory_arguments,
    add_model_arguments,
    load_predictor,
    policy,
    shortcuts_of,
    whole,
)
from emavos.cli.words import plain


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "ui",
        help="a local web page: paint, track, correct, download (extra: ui)",
        description="Serve a web page to paint the objects of a frame, track them and correct mistakes. By "
        "default only this machine can open the page. Stop with Ctrl-C.",
    )
    parser.set_defaults(run=_ui)
    parser.add_argument("video", metavar="VIDEO", nargs="?", help="video file or folder of images to open")
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="PNG|DIR",
        help="masks that VIDEO begins with, as of `emavos segment`",
    )
    add_damaged_argument(parser, "do not open it")
    parser.add_argument(
        "--project",
        type=Path,
        metavar="DIR",
        help="folder of the project, new or existing (a temporary folder)",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1)")
    parser.add_argument(
        "--port", type=whole(0), default=8321, help="port to listen on; 0 for a free port (8321)"
    )
    parser.add_argument(
        "--max-upload", type=whole(1), default=4096, metavar="MB", help="largest uploaded video (4096)"
    )
    parser.add_argument("--quiet", action="store_true", help="print only the address and errors")
    add_model_arguments(parser, size=480)
    add_memory_arguments(parser)


def _ui(args: argparse.Namespace) -> None:
    try:
        import uvicorn

        from emavos.ui.patience import impatient
        from emavos.ui.server import make_app
    except ImportError as error:
        if (error.name or "").split(".")[0] == "emavos":
            raise
        from emavos.machine import how_to_install

        raise ImportError(f"the page needs starlette and uvicorn: {how_to_install('ui')}") from error
    from emavos.ui import Desk
    from emavos.ui.guard import is_loopback
    from emavos.ui.temporary import Temporary, sweep_temporary

    if args.mask is not None and args.video is None:
        raise ValueError("--mask is of a video; name the VIDEO too")
    if args.project is not None and args.project.is_symlink() and not args.project.exists():
        raise ValueError(
            f"--project {args.project} is a link that leads nowhere; remove it, or choose another"
        )
    listener = _listen(args.host, args.port)
    with listener:
        predictor = load_predictor(args, shortcuts_of(args), **policy(args))
        earlier = sweep_temporary()
        temporary, folder = None, args.project
        if folder is None:
            temporary = Temporary()
            folder = temporary.folder
        try:
            desk = Desk(predictor, folder, keeps=temporary is None, damaged=args.damaged)
            if args.video is not None:
                name = os.path.basename(os.path.realpath(args.video))
                desk.open_video(Path(args.video), name, mask=args.mask)
                for note in desk.notes:
                    print("emavos: note:", plain(note), file=sys.stderr)
        except BaseException:
            if temporary is not None:
                temporary.release()
            raise
        token = secrets.token_urlsafe(16)
        app = make_app(desk, token, args.host, args.max_upload << 20)
        port = listener.getsockname()[1]
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"open http://{host}:{port}/?token={token}", flush=True)
        if not args.quiet and earlier:
            print(
                f"an earlier page left work in {', '.join(map(str, earlier))}: emavos ui --project opens it"
            )
        if not args.quiet and not is_loopback(args.host):
            print("others on the network reach this page, unencrypted, if they know this address")
        settings = uvicorn.Config(
            app,
            http=impatient(),
            limit_concurrency=256,
            log_level="warning",
            use_colors=False,
            ws="none",
            lifespan="off",
            server_header=False,
        )
        try:
            uvicorn.Server(settings).run(sockets=[listener])
        except KeyboardInterrupt:
            pass  # the usual way to stop
        finally:
            desk.close()
            work = [] if desk.project is None else [desk.project.folder]
            if temporary is not None:  # projects without painted objects are removed
                work = temporary.release()
            for folder in [] if args.quiet else work:
                print(f"the work is in {folder}; go on with: emavos ui --project {folder}")


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that the printed address is already reachable."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(f"{host}:{port} cannot be listened on: {error}; choose another --port") from error
    return listener
