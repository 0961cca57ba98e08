"""Small files of strangers that would take much memory, end in a traceback, or steer a terminal."""

from __future__ import annotations

import io
import json
import struct
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from emavos.bridges import decode_rle, read_coco, read_stack, write_stack
from emavos.cli import main
from emavos.cli.confidences import COLUMNS, read_confidences
from emavos.cli.streams import speaking
from emavos.cli.words import plain
from emavos.evaluation.prediction import Run
from emavos.io import FrameSource, read_frame, read_mask, write_mask
from emavos.io.images import count_pages
from emavos.io.text import read_json, read_text
from emavos.weights.hub import download


@pytest.mark.parametrize("side", [20000, 46340])
def test_runs_that_declare_gigabytes_are_refused_before_they_are_laid_out(tmp_path, side):
    image = {"id": 1, "height": side, "width": side, "file_name": "a.png"}
    rle = {"size": [side, side], "counts": [side * side]}
    annotation = {"id": 1, "image_id": 1, "track_id": 1, "segmentation": rle}
    (tmp_path / "a.json").write_text(json.dumps({"images": [image], "annotations": [annotation]}))
    with pytest.raises(
        ValueError, match=rf"a\.json, image 1: the size .*at most 134217728 pixels, not \[{side}"
    ):
        next(read_coco(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="at most 134217728 pixels"):
        decode_rle(rle)


def chain(count, order="<", entries=0):
    """A TIFF of a picture and `count` directories after it, with so many entries each."""
    kinds = {256: 1, 257: 1, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: 1, 279: 1}
    picture = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in kinds.items())
    parts, place = [b"II*\0" if order == "<" else b"MM\0*", struct.pack(order + "IH", 10, 0)], 10
    for number in range(count + 1):
        entry = struct.pack(order + "HHII", 254, 4, 1, 1) * entries if number else picture
        place += len(entry) + 6
        after = struct.pack(order + "I", place if number < count else 0)
        parts.append(struct.pack(order + "H", len(entry) // 12) + entry + after)
    return b"".join(parts)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("read", [read_mask, read_frame])
def test_the_pictures_of_a_tiff_are_counted_once_each(tmp_path, read, order):
    """2 MB of empty pictures, which Pillow would count for hours, as it compares each with all before it."""
    (tmp_path / "a.tif").write_bytes(chain(300_000, order))
    start = time.process_time()
    with pytest.raises(ValueError, match=r"a\.tif .* it holds 300001 pictures"):
        read(tmp_path / "a.tif")
    assert time.process_time() - start < 20


def test_smaller_copies_in_a_tiff_of_either_order_are_no_pictures(tmp_path):
    for order in "<>":
        (tmp_path / "a.tif").write_bytes(chain(3, order, entries=1))
        assert count_pages(tmp_path / "a.tif")[0] == 1
        assert read_mask(tmp_path / "a.tif").shape == (1, 1)


@pytest.mark.parametrize("change", ["a circle", "cut off", "larger than the file"])
def test_a_list_of_pictures_that_cannot_be_is_no_hang(tmp_path, change):
    content = bytearray(chain(3))
    if change == "a circle":
        content[-4:] = struct.pack("<I", 10)
    elif change == "cut off":
        del content[-2:]
    else:  # each directory has 65535 entries, which are those of the others too
        content[-6:-4] = b"\xff\xff"
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(ValueError, match="holds 4 pictures" if change == "a circle" else change):
        read_mask(tmp_path / "a.tif")


def pack(path, **declared):
    """A stack whose arrays declare a shape and hold nothing."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, (shape, kind) in declared.items():
            file = io.BytesIO()
            header = {"descr": kind, "fortran_order": False, "shape": shape}
            np.lib.format.write_array_header_1_0(file, header)
            archive.writestr(f"{name}.npy", file.getvalue())


@pytest.mark.parametrize(
    "declared",
    [
        {"masks": ((1000, 1000, 1000), "|u1"), "names": ((1000,), "<U5")},
        {"masks": ((1, 2**14, 2**14), "|u1"), "names": ((1,), "<U5")},
        {"masks": ((2**31, 2**31, 2**31), "|u1"), "names": ((2**31,), "<U5")},
        {"masks": ((1, 2, 2), "|u1"), "names": ((1,), "<U999999999")},
        {"masks": ((9, 2, 2), "|u1"), "names": ((1,), "<U5")},
        {"masks": ((9, 2, 2), "|O"), "names": ((9,), "<U5")},
        {"masks": ((9, 2, 2), "|u1"), "names": ((9,), "|O")},
    ],
)
def test_a_stack_that_declares_much_or_something_else_is_refused(tmp_path, declared):
    pack(tmp_path / "a.npz", **declared)
    with pytest.raises(ValueError, match=r"a\.npz cannot be read as a stack of masks"):
        read_stack(tmp_path / "a.npz")


def test_a_large_stack_is_read_if_its_size_is_allowed(tmp_path):
    write_stack(tmp_path / "a.npz", [np.eye(64, dtype=np.int32)] * 9)
    with pytest.raises(ValueError, match="pass most_bytes="):
        read_stack(tmp_path / "a.npz", most_bytes=9 * 64 * 64 - 1)
    assert read_stack(tmp_path / "a.npz", most_bytes=9 * 64 * 64)[0].shape == (9, 64, 64)


class Video(FrameSource):
    count, exact = 6, False


@pytest.mark.parametrize("frame", ["999999999", "9" * 5000, "-1", "\x1b[2J"])
def test_a_table_of_confidences_for_frames_that_are_not_there_is_refused(tmp_path, frame):
    (tmp_path / "a.csv").write_text(",".join(COLUMNS) + f"\n{frame},1,1,0.5,3\n")
    with pytest.raises(ValueError, match=r"a\.csv has frame .*but VIDEO does not"):
        read_confidences(tmp_path / "a.csv", Video())


@pytest.mark.parametrize("content", [b"\xff\xfe", b'frame,"' + b"a" * 200_000, b"", b"\0", b"frame\n"])
def test_a_table_that_is_none_is_named(tmp_path, content):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.csv"):
        read_confidences(tmp_path / "a.csv", Video())


@pytest.mark.parametrize("content", [b"[" * 100_000, b"\xff", b"9" * 5000, b"{", b""])
def test_json_that_is_none_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json is not a thing"):
        read_json(tmp_path / "a.json", "a thing")


def test_a_text_is_bounded(tmp_path):
    with (tmp_path / "a.txt").open("wb") as file:
        file.truncate(1 << 29)
    with pytest.raises(ValueError, match="which is too large for a list"):
        read_text(tmp_path / "a.txt", "a list")


RUN = {"settings": {"trunk": "t", "attention": ["a", "b"]}, "timings": {"cow": {"frames": 2, "seconds": 1.0}}}


@pytest.mark.parametrize(
    "changes",
    [
        {"timings": {"cow": {"frames": "2", "seconds": 1.0}}},
        {"timings": {"cow": {"frames": 2, "seconds": None}}},
        {"timings": {"cow": {"frames": 2, "seconds": float("nan")}}},
        {"timings": [1]},
        {"settings": [1]},
        {"settings": {"attention": ["a", "b"]}},
        {"settings": {"trunk": ["t"], "attention": ["a", "b"]}},
        {"settings": {"trunk": "t", "attention": "ab"}},
        {"parameters": "many"},
        {"peak_mb": [1]},
        {"machine": {"a": 1}},
        {"version": None},
        {"more": 1},
    ],
)
def test_a_record_of_somebody_elses_run_is_refused_by_name(tmp_path, changes):
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    assert Run.read(tmp_path).fps == 2
    (tmp_path / "run.json").write_text(json.dumps(RUN | changes))
    with pytest.raises(ValueError, match=r"run\.json is not a record of a run"):
        Run.read(tmp_path)


@pytest.mark.parametrize("text", ["\x1b]0;title\x07", "a\x1b[2Kb", "\x9b31m", "\u202etxt", "a\0b"])
def test_what_a_terminal_would_obey_is_shown_as_an_escape(text):
    shown = plain(text)
    assert shown.isprintable()
    assert shown.startswith((text[0], "\\"))
    assert plain("über 日本 é") == "über 日本 é"
    assert len(plain("x" * 10**6)) < 2100


@pytest.mark.parametrize("terminal", [True, False])
def test_whatever_is_printed_steers_no_terminal_but_a_bar_draws_itself_anew(monkeypatch, terminal):
    class Stream(io.TextIOWrapper):
        def isatty(self):
            return terminal

    stream = Stream(io.BytesIO(), encoding="utf-8", write_through=True)
    monkeypatch.setattr(sys, "stdout", stream)
    with speaking():
        print("a\x1b]52;c;cm0=\x07b", "c\x9b2Jd", "e\rf", "g\u202eh", "tab\there", sep="\n")
        sys.stdout.writelines(["i\x1b[A", "\n"])
        with tqdm(total=1, file=sys.stdout, desc="j\x1b[2K", leave=False) as bar:
            bar.update()
        sys.stdout.write("\x1b[A\x1b[A")
    assert sys.stdout is stream
    text = stream.buffer.getvalue().decode()
    lines = [r"a\x1b]52;c;cm0=\x07b", r"c\x9b2Jd", r"e\rf", r"g\u202eh", "tab\there", r"i\x1b[A"]
    assert text.startswith("".join(f"{line}\n" for line in lines))
    assert r"j\x1b[2K" in text
    rest = text[text.index("j") - 1 :] if terminal else text
    assert ("\r" in rest) == ("\x1b[A" in rest) == terminal
    assert {c for c in text if not c.isprintable()} == (
        {"\n", "\t", "\r", "\x1b"} if terminal else {"\n", "\t"}
    )


def test_a_table_of_a_strangers_data_is_without_escapes(tmp_path, capsys):
    name = "cow\x1b]0;owned\x07"
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / name).mkdir(parents=True)
    Image.fromarray(np.zeros((32, 48, 3), np.uint8)).save(tmp_path / "JPEGImages" / name / "00000.jpg")
    write_mask(tmp_path / "Annotations" / name / "00000.png", np.zeros((9, 9), np.uint8))
    assert main(["data", "check", str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert r"cow\x1b]0;owned\x07" in out
    assert "\x1b" not in out + err


def test_an_error_of_a_strangers_file_is_a_line_without_escapes(tmp_path, capsys):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "model.safetensors").touch()
    (tmp_path / "m" / "config.json").write_text(json.dumps({"\x1b]52;c;ZXZpbA==\x07" + "x" * 10**5: 1}))
    assert main(["export", "onnx", "--model", str(tmp_path / "m"), "--out", str(tmp_path / "o")]) == 1
    said = capsys.readouterr().err
    assert "\x1b" not in said
    assert said.count("\n") == 1
    assert len(said) < 2100


def test_a_file_that_the_hub_leads_out_of_its_cache_is_refused(tmp_path, monkeypatch):
    import huggingface_hub

    snapshot = tmp_path / "cache" / "models--user--a" / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "evil").write_text("{}")
    (snapshot / "config.json").symlink_to(tmp_path / "evil")
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(snapshot / "config.json"))
    with pytest.raises(ValueError, match=r"config\.json of user/a lies outside the cache"):
        download("user/a", ["config.json"], cache_dir=tmp_path / "cache")
