"""`emavos ui` as it is started."""

from __future__ import annotations

import os
import signal
import socket
import sys
import tempfile

import pytest

import emavos.ui
from emavos.cli import main
from emavos.ui import Desk, Project


@pytest.fixture
def served(monkeypatch):
    """Starts the command with a server that returns as soon as it would serve."""
    uvicorn = pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    seen = []

    class Seen(Desk):
        def __init__(self, *arguments, **named):
            super().__init__(*arguments, **named)
            seen.append(self)

    def run(self, sockets):
        if seen[-1].job is not None:
            seen[-1].job.join()

    monkeypatch.setattr(emavos.ui, "Desk", Seen)
    monkeypatch.setattr(uvicorn.Server, "run", run)

    def start(*arguments):
        code = main(["ui", "--port", "0", "--size", "96", "--device", "cpu", *map(str, arguments)])
        return code, seen

    return start


def test_without_the_extra_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["ui"]) != 0
    assert 'pip install ".[ui]"' in capsys.readouterr().err


def test_a_port_in_use_is_told_as_such(served, capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["ui", "--port", str(port)]) != 0
    out, err = capsys.readouterr()
    assert "http" not in out
    assert f"127.0.0.1:{port} cannot be listened on" in err
    assert "choose another --port" in err


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True)])
def test_an_address_beyond_this_machine_is_warned_of(served, capsys, tmp_path, host, warned):
    assert served("--host", host, "--project", tmp_path / "work")[0] == 0
    out = capsys.readouterr().out
    assert f"open http://{host}:" in out
    assert ("others on the network reach this page" in out) == warned


def test_a_video_on_the_command_line_is_opened(served, video, tmp_path, capsys):
    code, (desk,) = served(video, "--project", tmp_path / "work")
    assert (code, desk.job.error) == (0, None)
    assert Project.open(tmp_path / "work").count == 8
    assert f"emavos ui --project {tmp_path / 'work'}" in capsys.readouterr().out


def test_a_folder_of_the_user_is_refused_at_the_start(served, video, capsys):
    assert served("--project", video)[0] != 0
    assert "is not empty" in capsys.readouterr().err
    assert len(list(video.iterdir())) == 8


def test_a_video_that_there_is_not_leaves_no_temporary_folder(served, capsys, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code, _ = served(tmp_path / "absent.mp4")
    assert code != 0
    assert "absent.mp4 does not exist" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_documented_command_goes_on_the_second_time(served, video, tmp_path, capsys):
    for _ in range(2):
        code, desks = served(video, "--project", tmp_path / "work")
        assert (code, desks[-1].project.name) == (0, "clip")
    assert "going on with it" in capsys.readouterr().out
    assert served(tmp_path, "--project", tmp_path / "work")[0] != 0
    assert "is the project of clip" in capsys.readouterr().err


def test_a_new_project_may_lie_among_the_clips(served, video, data_home, capsys):
    folder = data_home / "emavos" / "projects" / "new"
    code, seen = served(video, "--project", folder)
    assert (code, seen[-1].project.folder) == (0, folder)
    code, seen = served("--project", folder)
    assert (code, seen[-1].project.folder) == (0, folder)
    assert seen[-1].shelf is not None  # it is a clip of the list now


def test_another_tool_for_clicks_is_loaded_at_the_start(served, video, tmp_path, monkeypatch, capsys):
    (tmp_path / "my_tool.py").write_text("def click(frame, prompt):\n    return frame[..., 0] > 0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    code, (desk,) = served(video, "--project", tmp_path / "work", "--prompter", "my_tool:click")
    assert (code, desk.predictor.prompter.__name__, desk.clicker.problem) == (0, "click", None)
    assert "--prompter my_tool:click" in capsys.readouterr().out  # in the command that goes on
    assert served("--prompter", "my_tool:absent")[0] != 0
    assert "has no function absent" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="terminals of POSIX")
@pytest.mark.parametrize("name", ["SIGHUP", "SIGTERM"])
def test_a_closed_terminal_ends_the_page_with_its_work_named(
    served, video, tmp_path, monkeypatch, capsys, name
):
    import uvicorn

    def run(self, sockets):
        os.kill(os.getpid(), getattr(signal, name))
        assert self.should_exit

    assert served(video, "--project", tmp_path / "first")[0] == 0
    capsys.readouterr()
    monkeypatch.setattr(uvicorn.Server, "run", run)
    before = signal.getsignal(getattr(signal, name))
    assert served("--project", tmp_path / "first")[0] == 0
    assert signal.getsignal(getattr(signal, name)) == before
    assert f"the work is in {tmp_path / 'first'}" in capsys.readouterr().out
