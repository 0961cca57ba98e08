"""The outputs of a command appear together or not at all, and what it says about them never fails."""

from __future__ import annotations

import errno
import io
import os
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from emavos import Predictor
from emavos.batch import Job, run_batch
from emavos.bridges import read_coco
from emavos.cli import main
from emavos.cli import staging as module
from emavos.cli.confidences import read_confidences
from emavos.cli.staging import staged, staged_together
from emavos.io import Spool, VideoWriter, open_frames, write_mask, write_video
from emavos.machine import is_out_of_memory


@pytest.fixture
def argv(tmp_path):
    """A command that follows two frames."""
    (tmp_path / "frames").mkdir()
    for index in range(2):
        Image.new("RGB", (96, 64), "gray").save(tmp_path / "frames" / f"{index}.png")
    mask = np.zeros((64, 96), np.uint8)
    mask[20:50, 10:40] = 1
    write_mask(tmp_path / "mask.png", mask)
    argv = [
        "segment",
        tmp_path / "frames",
        "--mask",
        tmp_path / "mask.png",
        "--size",
        "64",
        "--device",
        "cpu",
    ]
    return [*map(str, argv)]


def tree(folder):
    return {str(p.relative_to(folder)): p.read_text() for p in folder.rglob("*") if p.is_file()}


def fail(*arguments):
    raise ZeroDivisionError


def fill(outputs, home):
    """Four outputs, of which two take the place of old ones if that is forced."""
    (outputs.folder(home / "masks") / "0.png").write_text("new")
    (outputs.folder(home / "deep" / "overlay") / "0.png").write_text("new")
    outputs.file(home / "r.json", "--rle").write_text("new")
    outputs.file(home / "c.csv", "--confidence").write_text("new")


@pytest.mark.parametrize("old", [False, True])
def test_if_one_output_cannot_be_moved_the_others_go_back(tmp_path, monkeypatch, old):
    if old:
        for name in ("masks/0.png", "masks/1.png", "r.json", "c.csv"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text("old")
    before, replace = tree(tmp_path), os.replace
    for at in range(4):
        moves = iter(range(at))

        def full(source, goal, moves=moves):
            if ".old-" not in str(source) and ".partial" not in str(goal) and next(moves, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
            replace(source, goal)

        with monkeypatch.context() as patch:
            patch.setattr(module.os, "replace", full)
            with pytest.raises(OSError, match="No space left") as error, staged_together(old) as outputs:
                fill(outputs, tmp_path)
        assert ".partial" not in error.value.filename
        assert tree(tmp_path) == before
        assert not (tmp_path / "deep").exists()
    with staged_together(old) as outputs:
        fill(outputs, tmp_path)
    after = tree(tmp_path)
    assert after.pop("masks/1.png", "") == ("old" if old else "")
    names = ["c.csv", "deep/overlay/0.png", "masks/0.png", "r.json"]
    assert after == dict.fromkeys(names, "new")


def test_all_outputs_vanish_if_the_command_fails(tmp_path):
    with pytest.raises(ZeroDivisionError), staged_together(False) as outputs:
        fail(fill(outputs, tmp_path))
    assert not [*tmp_path.iterdir()]


@pytest.mark.skipif(sys.platform == "win32", reason="files are held by locks of POSIX")
@pytest.mark.parametrize("there", [False, True])
@pytest.mark.parametrize("force", [False, True])
def test_two_commands_do_not_write_to_one_place_at_a_time(tmp_path, there, force):
    if there:
        (tmp_path / "out").mkdir()
    with staged(tmp_path / "out", force) as stage:
        with (
            pytest.raises(ValueError, match="out is being written by another run"),
            staged(tmp_path / "out", force),
        ):
            pass
        (stage / "a.txt").touch()
        with staged_together(force) as other:  # beside it another may write
            other.file(tmp_path / "r.json", "--rle").touch()
            with pytest.raises(ValueError, match=r"r\.json is being written by another run"):
                other.file(tmp_path / "r.json", "--rle")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("there", [False, True])
def test_a_folder_that_was_filled_meanwhile_is_left_as_it_is(tmp_path, there):
    out = tmp_path / "out"
    if there:
        out.mkdir()

    def write():
        with staged_together(False) as outputs:
            (outputs.folder(out) / "0.png").write_text("mine")
            outputs.file(tmp_path / "r.json", "--rle").write_text("mine")
            out.mkdir(exist_ok=True)
            (out / "0.png").write_text("of another")

    with pytest.raises(ValueError, match="out is not empty"):
        write()
    assert tree(tmp_path) == {"out/0.png": "of another"}


def test_a_file_that_came_meanwhile_is_left_as_it_is(tmp_path):
    def write():
        with staged_together(False) as outputs:
            (outputs.folder(tmp_path / "out") / "0.png").touch()
            outputs.file(tmp_path / "r.json", "--rle").write_text("mine")
            (tmp_path / "r.json").write_text("of another")

    with pytest.raises(ValueError, match=r"r\.json exists"):
        write()
    assert tree(tmp_path) == {"r.json": "of another"}


def test_segment_leaves_nothing_if_its_last_output_cannot_be_moved(argv, tmp_path, monkeypatch, capsys):
    home = tmp_path / "home"
    home.mkdir()
    options = {"--out": "masks", "--rle": "r.json", "--confidence": "c.csv", "--overlay": "overlay"}
    argv += [text for option, name in options.items() for text in (option, str(home / name))]
    replace, moved = os.replace, []

    def full(source, goal):
        if moved.append(goal) or len(moved) == 4:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(source))
        replace(source, goal)

    with monkeypatch.context() as patch:
        patch.setattr(module, "os", type("", (), {**vars(os), "replace": staticmethod(full)}))
        assert main(argv) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert not [*home.iterdir()]
    assert main(argv) == 0
    assert {path.name for path in home.iterdir()} == {"masks", "r.json", "c.csv", "overlay"}


def test_a_full_folder_of_temporary_files_is_named(tmp_path, monkeypatch):
    class Full(io.BytesIO):
        def write(self, content):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "TemporaryFile", Full)
    with Spool() as spool, pytest.raises(OSError, match="TMPDIR") as error:
        spool.append(np.zeros((4, 4, 3), np.uint8))
    assert error.value.filename == str(tmp_path)
    assert error.value.strerror.startswith("No space left on device")


def stream(encoding):
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding, write_through=True)


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_letters_that_a_stream_cannot_show_are_escaped(argv, tmp_path, monkeypatch, encoding):
    out, err = stream(encoding), stream(encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    argv += ["--out", str(tmp_path / "камера")]
    assert main(argv) == 0
    assert b"masks in" in out.buffer.getvalue()
    assert rb"\u043a" in out.buffer.getvalue()
    assert main(argv) == 1
    assert b"is not empty" in err.buffer.getvalue()
    assert out.errors == "strict"


def test_without_streams_the_work_is_done(argv, tmp_path, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, None)
    argv += ["--out", str(tmp_path / "out")]
    assert (main(argv), len([*(tmp_path / "out").iterdir()])) == (0, 2)
    assert main(argv) == 1
    assert main(["segment", "--nonsense"]) == 2
    assert sys.stderr is None


def test_a_reader_that_is_gone_is_no_error(monkeypatch):
    class Gone(io.RawIOBase):
        def writable(self):
            return True

        def write(self, content):
            raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    gone = io.TextIOWrapper(io.BufferedWriter(Gone()), encoding="utf-8")
    monkeypatch.setattr(sys, "stdout", gone)
    assert main(["--version"]) == 0
    with pytest.raises(BrokenPipeError):
        gone.close()


@pytest.mark.parametrize("buffering", [0, 1, -1], ids=["unbuffered", "lines", "buffered"])
@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_the_work_is_done_though_nobody_reads_what_is_printed(argv, tmp_path, monkeypatch, buffering):
    streams = []
    for name in ("stdout", "stderr"):
        reader, writer = os.pipe()
        os.close(reader)
        raw = io.FileIO(writer, "w")
        if buffering == 0:
            streams.append(io.TextIOWrapper(raw, "utf-8", write_through=True))
        else:
            streams.append(io.TextIOWrapper(io.BufferedWriter(raw), "utf-8", line_buffering=buffering == 1))
        monkeypatch.setattr(sys, name, streams[-1])
    argv += ["--out", str(tmp_path / "out")]
    assert (main(argv), len([*(tmp_path / "out").iterdir()])) == (0, 2)
    assert main(argv) == 1
    assert main(["segment", "--nonsense"]) == 2
    for stream in streams:
        stream.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere names of files are letters")
@pytest.mark.parametrize("name", [b"caf\xe9 1", b"a\n\x1b[2J1", b"'a\",1"])
def test_any_name_of_a_frame_reaches_every_output_and_comes_back(argv, tmp_path, name):
    os.rename(tmp_path / "frames" / "1.png", os.path.join(os.fsencode(tmp_path), b"frames", name + b".png"))
    name = os.fsdecode(name)
    table, runs = tmp_path / "c.csv", tmp_path / "r.json"
    argv += ["--out", str(tmp_path / "out"), "--confidence", str(table), "--rle", str(runs)]
    assert main(argv) == 0
    frames = open_frames(tmp_path / "frames")
    names = [frames.name(index) for index in range(2)]
    assert {*names} == {"0", name}
    assert [*map(list, read_confidences(table, frames))] == [[1], [1]]
    assert [stem for stem, _ in read_coco(runs)] == names
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {*names}
    options = [
        "--masks",
        str(tmp_path / "out"),
        "--confidence",
        str(table),
        "--out",
        str(tmp_path / "review"),
    ]
    assert main(["review", str(tmp_path / "frames"), *options]) == 0
    (outcome,) = run_batch(
        [Job("clip", tmp_path / "frames", tmp_path / "mask.png")],
        Predictor.from_pretrained(device="cpu", size=64),
        tmp_path / "batch",
    )
    assert outcome.error == ""


ERRORS = [
    (MemoryError(), True),
    (np._core._exceptions._ArrayMemoryError((9,), np.dtype("u1")), True),
    (OSError(errno.ENOMEM, "Cannot allocate memory"), True),
    (RuntimeError("could not create a primitive"), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:113] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."), True),
    (RuntimeError("std::bad_alloc"), True),
    (RuntimeError("CUDA out of memory. Tried to allocate 9 GiB"), True),
    (ImportError("libavcodec.so.61: failed to map segment from shared object"), True),
    (ImportError("no module of this name"), False),
    (RuntimeError("shapes do not match"), False),
    (OSError(errno.ENOSPC, "No space left on device"), False),
    (ValueError("out of memory"), False),
]


@pytest.mark.parametrize(("error", "expected"), ERRORS)
def test_out_of_memory_is_told_from_other_errors_whoever_raises_it(error, expected):
    assert is_out_of_memory(error) == expected


@pytest.mark.parametrize("error", [error for error, expected in ERRORS if expected])
@pytest.mark.parametrize("place", ["emavos.io.write_mask", "emavos.frames.mask_files.read_masks"])
def test_out_of_memory_is_one_line_wherever_it_happens(argv, tmp_path, monkeypatch, capsys, place, error):
    def fail(*arguments, **named):
        raise error

    monkeypatch.setattr(place, fail)
    assert main([*argv, "--out", str(tmp_path / "out")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("emavos: error: out of memory")
    assert not (tmp_path / "out").exists()


def test_memory_that_ffmpeg_lacks_is_no_damage_of_the_video(tmp_path, monkeypatch):
    av = pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", [np.zeros((16, 16, 3), np.uint8)], fps=5)
    frames = open_frames(tmp_path / "a.mp4")

    def full(*arguments, **named):
        raise av.error.MemoryError(errno.ENOMEM, "Cannot allocate memory")

    with monkeypatch.context() as patch:
        patch.setattr(av, "open", full)
        # memory is free, so the file asks for too much
        with pytest.raises(ValueError, match=r"a\.mp4 is damaged"):
            list(frames)
    monkeypatch.setattr("mmap.mmap", full)
    with monkeypatch.context() as patch:
        patch.setattr(av, "open", full)
        with pytest.raises(MemoryError):
            list(frames)
        with pytest.raises(MemoryError):
            open_frames(tmp_path / "a.mp4")
    with monkeypatch.context() as patch:
        patch.setattr("emavos.io.video._upright", full)
        with pytest.raises(MemoryError):
            list(frames)
    writer = VideoWriter(tmp_path / "b.mp4", fps=5)
    writer.write(np.zeros((16, 16, 3), np.uint8))
    writer._stream = SimpleNamespace(encode=full)
    with pytest.raises(MemoryError):
        writer.close()
    writer.abort()
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_the_longest_names_of_frames_and_outputs_are_written(argv, tmp_path):
    frame, out = "a" * 251, "b" * 255
    (tmp_path / "frames" / "1.png").rename(tmp_path / "frames" / f"{frame}.png")
    assert main([*argv, "--out", str(tmp_path / out), "--rle", str(tmp_path / ("c" * 250 + ".json"))]) == 0
    assert sorted(path.name for path in (tmp_path / out).iterdir()) == ["0.png", f"{frame}.png"]
