from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys

import pytest
import torch

from emavos.cli import main
from emavos.io.whole import claim, in_use, partial_folder, release, replacing, sweep, write_tensors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="files are held by locks of POSIX")

KILLED = """
import os, signal, sys
from pathlib import Path
from emavos.io.whole import partial_folder, replacing
home = Path(sys.argv[1])
with partial_folder(home, "out") as stage, replacing(home / "a.txt") as partial:
    (stage / "b.txt").write_text("half")
    partial.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept(tmp_path):
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert done.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    sweep(tmp_path, "out")
    (left,) = tmp_path.iterdir()
    assert left.name.startswith(".a.txt.")
    sweep(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_is_in_use_and_what_is_not_ours_is_not_swept(tmp_path):
    (tmp_path / ".mine.partial").touch()
    with partial_folder(tmp_path, "out") as stage:
        partial, lock = claim(tmp_path, "a")
        sweep(tmp_path)
        assert stage.is_dir()
        assert partial.is_file()
        release(partial, lock)
    assert [path.name for path in tmp_path.iterdir()] == [".mine.partial"]


def test_a_sweep_does_not_follow_links(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "a.txt").touch()
    (tmp_path / ".out.01234567.partial").symlink_to("kept")
    sweep(tmp_path)
    assert (tmp_path / "kept" / "a.txt").exists()


def test_a_full_disk_names_the_file_and_leaves_the_old_one(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left") as error, replacing(tmp_path / "a.txt"):
        raise full
    assert error.value.filename == str(tmp_path / "a.txt")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("a.txt", "old")]


def test_tensors_that_the_disk_does_not_take_are_an_error_of_the_disk(tmp_path):
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*a\.safetensors"):
            write_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(9999)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_sigterm_ends_a_command_as_ctrl_c_does(tmp_path, monkeypatch, capsys):
    def stopped(*_):
        with partial_folder(tmp_path, "out"):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    monkeypatch.setattr("emavos.cli.convert._convert", stopped)
    assert main(["convert", "a.pth", "out"]) == 143
    assert capsys.readouterr().err == "emavos: error: terminated\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("name", ["a" * 251 + ".png", "é" * 125 + ".png", "a\nb"])
def test_any_name_that_the_disk_takes_is_written_and_swept(tmp_path, name):
    for _ in range(2):  # twice, as a file that is there is replaced
        with replacing(tmp_path / name) as partial:
            partial.write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    left, lock = claim(tmp_path, name)
    assert in_use(tmp_path, name)
    assert not in_use(tmp_path, "b" + name[1:])
    os.close(lock)  # as if this process were killed
    sweep(tmp_path, "b" + name[1:])
    assert left.exists()
    sweep(tmp_path, name)
    assert [path.name for path in tmp_path.iterdir()] == [name]
