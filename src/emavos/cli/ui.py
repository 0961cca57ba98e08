"""`emavos ui`: a local web page to paint objects, track them and correct their masks."""

from __future__ import annotations

import argparse
import os
import secrets
import shlex
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from emavos.cli.arguments import (
    Commands,
    add_memory_arguments,
    add_model_arguments,
    add_on_damage_argument,
    load_predictor,
    policy,
    shortcuts_of,
    whole,
)
from emavos.cli.clicking import load_prompter
from emavos.cli.words import plain

if TYPE_CHECKING:
    from emavos.predictor import Predictor
    from emavos.ui import Desk


def add(commands: Commands) -> None:
    parser = commands.add_parser(
        "ui",
        help="a local web page: click, paint, track, correct, download (extra: ui)",
        description="Serve a web page to click on the objects of a frame, track them and correct mistakes. "
        "By default only this machine can open the page. Stop with Ctrl-C.",
    )
    parser.set_defaults(run=partial(_ui, parser))
    parser.add_argument(
        "video",
        metavar="VIDEO",
        nargs="*",
        help="video files or folders of images; the first is shown, the others are added to the clips",
    )
    parser.add_argument(
        "--mask",
        type=Path,
        metavar="PNG|DIR",
        help="masks to start from, as for `emavos segment`",
    )
    add_on_damage_argument(parser, "do not open it")
    parser.add_argument(
        "--project",
        type=Path,
        metavar="DIR",
        help="folder of a single project, new or existing (a project for each video, in your data directory)",
    )
    parser.add_argument(
        "--prompter",
        metavar="MODULE:FUNCTION",
        help="your own function for clicks, instead of the model's head; see docs/clicks.md",
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


def _ui(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    try:
        import uvicorn

        from emavos.ui.patience import impatient
        from emavos.ui.server.app import make_app
    except ImportError as error:
        if (error.name or "").split(".")[0] == "emavos":
            raise
        from emavos.machine import how_to_install

        raise ImportError(f"the page needs starlette and uvicorn: {how_to_install('ui')}") from error
    from emavos.ui.temporary import sweep_temporary

    _check(args)
    prompter = load_prompter(args.prompter)
    listener = _listen(args.host, args.port)
    with listener:
        predictor = load_predictor(args, shortcuts_of(args), prompter=prompter, **policy(args))
        earlier = sweep_temporary()
        desk, goes_on = _desk(args, predictor, partial(_again, parser, args))
        token = secrets.token_urlsafe(16)
        app = make_app(desk, token, args.host, args.max_upload << 20)
        port = listener.getsockname()[1]
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"open http://{host}:{port}/?token={token}", flush=True)
        threading.Thread(target=desk.warm_up, name="emavos-warm", daemon=True).start()
        if not args.quiet:
            _tell(args, desk, goes_on, earlier)
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
        server = uvicorn.Server(settings)
        try:
            with _ending(partial(setattr, server, "should_exit", True)), suppress(KeyboardInterrupt):
                server.run(sockets=[listener])
        finally:
            desk.close()
            work = [] if desk.project is None else [desk.project.folder]
            with suppress(OSError):  # the terminal may be closed
                for folder in [] if args.quiet else work:
                    print(f"the work is in {folder}; go on with: {_again(parser, args, folder)}", flush=True)


def _check(args: argparse.Namespace) -> None:
    """Raise ValueError if --mask or --project does not fit the videos, or --project leads nowhere."""
    if args.mask is not None and len(args.video) != 1:
        raise ValueError("--mask is of one video; name this VIDEO too, and no other")
    if args.project is not None and len(args.video) > 1:
        raise ValueError(f"--project has one video, and {len(args.video)} are named; leave --project out")
    if args.project is not None and args.project.is_symlink() and not args.project.exists():
        raise ValueError(
            f"--project {args.project} is a link that leads nowhere; remove it, or choose another"
        )


def _desk(args: argparse.Namespace, predictor: Predictor, again: Callable[[Path], str]) -> tuple[Desk, bool]:
    """The desk with the videos opened, and whether the first video was open before."""
    from emavos.ui import Desk
    from emavos.ui.facts import FILE
    from emavos.ui.shelf import projects_folder

    shelf = projects_folder()
    of_shelf = (
        args.project is not None
        and args.project.resolve().parent == shelf.resolve()
        and (args.project / FILE).is_file()  # a new name there is a single project, a clip from then on
    )
    keeps = args.project is not None and not of_shelf
    desk = Desk(predictor, args.project if keeps else shelf, keeps, args.on_damage, again)
    try:
        if of_shelf:
            desk.open_clip(args.project.resolve().name)
        return desk, _open(desk, args.video, args.mask)
    except BaseException:
        desk.close()
        raise


def _open(desk: Desk, videos: Sequence[str], mask: Path | None) -> bool:
    """Show the first video and add the others to the clips; returns whether the first was open before."""
    goes_on = False
    for place, video in enumerate(videos):
        name = os.path.basename(os.path.realpath(video))
        if place == 0:
            named = desk.project is not None and desk.project.name == name
            goes_on = named if desk.keeps else named or desk.resume(Path(video))
            if goes_on and mask is not None:
                print("emavos: note: --mask is not read again", file=sys.stderr)
        elif desk.has(Path(video)):
            continue
        if place or not goes_on:
            desk.open_video(Path(video), name, mask=mask, show=place == 0)
            for note in [] if place else desk.notes:
                print("emavos: note:", plain(note), file=sys.stderr)
    return goes_on


def _tell(args: argparse.Namespace, desk: Desk, goes_on: bool, earlier: Sequence[Path]) -> None:
    """Print what was found, and who can reach the page."""
    from emavos.ui.guard import is_loopback

    if goes_on:
        print(f"{desk.the_project().folder} has the project of this video; going on with it")
    if earlier:
        print(f"an earlier page left work in {', '.join(map(str, earlier))}: emavos ui --project opens it")
    if not is_loopback(args.host):
        print("others on the network reach this page, unencrypted, if they know this address")


_NOT_AGAIN = {"run", "command", "video", "mask", "project", "port", "quiet", "max_upload"}


def _again(parser: argparse.ArgumentParser, args: argparse.Namespace, folder: Path) -> str:
    """The command that opens a project again with the same options."""
    words = ["emavos", "ui", "--project", os.fspath(folder)]
    for name, value in vars(args).items():
        if name not in _NOT_AGAIN and value != parser.get_default(name):
            words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    return shlex.join(words)


@contextmanager
def _ending(end: Callable[[], Any]) -> Iterator[None]:
    """Call `end` when the system asks this process to end or the terminal is closed, so the work is named.

    uvicorn answers SIGINT and SIGTERM itself and raises them again at its end; they stop here.
    """

    def ended(*_: object) -> None:
        end()

    names = ("SIGTERM", "SIGHUP")  # Windows has no SIGHUP
    before = {}
    with suppress(ValueError):  # not in the main thread: the caller has handlers of its own
        for number in (getattr(signal, name) for name in names if hasattr(signal, name)):
            before[number] = signal.signal(number, ended)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    """A bound socket, so that the printed address is already reachable."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    if sys.platform != "win32":
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)  # before the address is printed: a browser may be quick
    except (OSError, OverflowError) as error:
        listener.close()
        raise ValueError(f"{host}:{port} cannot be listened on: {error}; choose another --port") from error
    return listener
