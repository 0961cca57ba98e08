from __future__ import annotations

import dataclasses
import gc
import importlib
import os
import shutil
import subprocess
import sys
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import MemoryPolicy, Predictor, Result, Shortcuts, __version__, visualize
from emavos.cli import _parser, main
from emavos.io import list_images, open_frames, read_frame, read_mask, write_mask, write_video
from emavos.memory import native_readout
from emavos.models import PRESETS, STCN
from emavos.training import STAGES
from emavos.weights import choose_dtype, load_model, save_model
from trees import davis_tree, training_tree


@pytest.fixture(scope="module")
def clip():
    """Five frames of a square that goes right, and the mask of the first, with an id that is not 1."""
    background = np.random.default_rng(0).integers(90, 130, (48, 64, 3), dtype=np.uint8)
    frames = [background.copy() for _ in range(5)]
    for i, frame in enumerate(frames):
        frame[10:34, 6 + 4 * i : 30 + 4 * i] = 220, 60, 40
    mask = np.zeros((48, 64), np.int32)
    mask[10:34, 6:30] = 7
    return frames, mask


@pytest.fixture
def here(tmp_path, monkeypatch, clip):
    """A folder of frames `clip` and a mask `first.png`, in the current folder."""
    monkeypatch.chdir(tmp_path)
    frames, mask = clip
    (tmp_path / "clip").mkdir()
    for i, frame in enumerate(frames):
        Image.fromarray(frame).save(tmp_path / "clip" / f"img{8 + i}.png")
    write_mask(tmp_path / "first.png", mask)
    return tmp_path


def segment(*more, video="clip", mask="first.png", out="out"):
    return main(["segment", video, "--mask", mask, "--out", out, "--size", "0", "--device", "cpu", *more])


def names(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


def refused(capsys, folder, *words):
    """One line on stderr that has these words, nothing on stdout, and no file more than the input."""
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("emavos: error: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert not [n for n in names(folder) if n.startswith("out") or "partial" in n]


def test_masks_are_named_as_the_frames_and_equal_those_of_the_predictor(here, capsys, clip):
    assert segment() == 0
    assert names(here / "out") == ["img10.png", "img11.png", "img12.png", "img8.png", "img9.png"]
    results = Predictor.from_pretrained(device="cpu", size=None).propagate(*clip)
    for number, result in zip(range(8, 13), results, strict=True):
        with Image.open(here / "out" / f"img{number}.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.array(image), result.mask)
    out, err = capsys.readouterr()
    assert "5 frames, 1 object:" in out
    assert err == ""  # no bar where nobody looks
    assert names(here)[0] == "clip"  # no hidden folder is left


def test_quiet_is_quiet(here, capsys):
    assert segment("--quiet") == 0
    assert capsys.readouterr() == ("", "")


def test_a_readout_that_this_machine_cannot_compile_is_refused_in_one_line(here, monkeypatch, capsys):
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(native_readout, "_loaded", [])
    assert segment("--backend", "native") == 1
    refused(
        capsys, here, "no C++ compiler is found; install g++ or clang, name one by", "CXX, or use backend="
    )
    davis_tree(here / "data", {"a": 2})
    assert main(["evaluate", "--data", "data", "--out", "out", "--device", "cpu", "--backend", "native"]) == 1
    refused(capsys, here, "no C++ compiler is found")


def test_a_compiled_key_encoder_gives_the_same_masks(here, capsys):
    if shutil.which("g++") is None and shutil.which("clang++") is None:
        pytest.skip("there is no C++ compiler here")
    assert segment() == 0
    assert segment("--compile", out="out2") == 0
    for name in names(here / "out"):
        np.testing.assert_array_equal(read_mask(here / "out2" / name), read_mask(here / "out" / name))


def test_an_encoder_that_this_machine_cannot_compile_is_refused_in_one_line(here):
    """In a new process, as torch asks once what the compiler is, and with nothing compiled on disk."""
    command = [sys.executable, "-m", "emavos", "segment", "clip", "--mask", "first.png", "--out", "out"]
    command += ["--device", "cpu", "--compile"]
    environment = os.environ | {"CXX": "no-such-compiler", "TORCHINDUCTOR_CACHE_DIR": str(here / "cache")}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    line = run.stderr.splitlines()[-1]  # torch may have warned before
    assert line.startswith("emavos: error: ")
    assert "--compile cannot run here: " in line
    assert "No working C++ compiler found" in line
    assert "CXX" in line
    assert not (here / "out").exists()


def test_a_terminal_sees_a_progress_bar_and_a_file_does_not(here, capsys, monkeypatch):
    importlib.import_module("huggingface_hub.utils.tqdm")
    monkeypatch.setattr(sys.modules["huggingface_hub.utils.tqdm"], "HF_HUB_DISABLE_PROGRESS_BARS", None)
    assert segment() == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert segment("--force") == 0
    assert "/5 [" in capsys.readouterr().err
    assert segment("--force", "--quiet") == 0
    assert capsys.readouterr().err == ""


def test_a_video_gives_numbered_masks_and_an_overlay_at_its_rate(here, clip):
    pytest.importorskip("av")
    write_video("clip.mp4", clip[0], fps=10)
    assert segment("--overlay", "shown/overlay.mp4", "--quiet", video="clip.mp4") == 0
    assert names(here / "out") == [f"0000{i}.png" for i in range(5)]
    shown = open_frames("shown/overlay.mp4")
    assert (shown.fps, len(list(shown)), names(here / "shown")) == (10.0, 5, ["overlay.mp4"])


def test_an_overlay_can_be_a_folder_of_images(here, clip):
    assert segment("--overlay", "out/overlay", "--quiet") == 0
    assert len(names(here / "out")) == 5 + 1 + 5
    shown = read_frame("out/overlay/img8.png")
    np.testing.assert_array_equal(shown[clip[1] == 0], clip[0][0][clip[1] == 0])
    assert (shown != clip[0][0]).any()


def test_a_folder_of_masks_introduces_objects_later(here, clip):
    late = np.zeros_like(clip[1])
    late[36:46, 40:60] = 9
    (here / "masks").mkdir()
    write_mask("masks/img9.png", clip[1])
    write_mask("masks/img11.png", late)
    assert segment("--quiet", mask="masks") == 0
    ids = [set(np.unique(read_mask(f"out/img{n}.png"))) for n in range(8, 13)]
    assert ids[0] == {0}
    assert 7 in ids[1]
    assert not any(9 in i for i in ids[:3])
    assert 9 in ids[3]


def test_a_model_can_be_a_folder_and_its_memory_set(here):
    save_model(load_model(), here / "model")
    options = ["--model", "model", "--every", "2", "--top-k", "4", "--include-last", "--max-frames", "0"]
    assert segment(*options, "--quiet") == 0
    assert segment("--max-cells", "60", "--eviction", "consolidate", "--force", "--quiet") == 0


def test_shortcuts_and_dtype_reach_the_session_and_what_was_taken_is_printed(here, monkeypatch, capsys):
    made = []
    session = Predictor.session
    monkeypatch.setattr(Predictor, "session", lambda self: made.append(session(self)) or made[-1])
    options = ["--decode-near", "--encode-near", "--still", "0.25", "--dtype", "auto"]
    assert segment(*options) == 0
    assert made[0].shortcuts == Shortcuts(decode_near=True, encode_near=True, still=0.25)
    taken = str(choose_dtype(torch.device("cpu"), made[0].model.config)).removeprefix("torch.")
    assert f"cpu, {taken})" in capsys.readouterr().out


def test_defaults_of_memory_and_shortcuts_are_those_of_the_library():
    args = _parser().parse_args(["segment", "clip", "--mask", "m.png", "--out", "o"])
    policy = MemoryPolicy(
        every=args.every,
        include_last=args.include_last,
        top_k=args.top_k,
        max_frames=args.max_frames,
        max_cells=args.max_cells,
        eviction=args.eviction,
        backend=args.backend,
    )
    assert policy == MemoryPolicy()
    assert Shortcuts(args.decode_near, args.encode_near, args.still) == Shortcuts()


def test_files_are_not_written_over_without_force(here, capsys):
    assert segment("--quiet") == 0
    before = (here / "out" / "img9.png").read_bytes()
    (here / "out" / "img9.png").write_bytes(b"old")
    (here / "out" / "notes.txt").write_text("mine")
    assert segment() == 1
    assert "out is not empty" in capsys.readouterr().err
    assert (here / "out" / "img9.png").read_bytes() == b"old"
    assert segment("--force", "--quiet") == 0
    assert (here / "out" / "img9.png").read_bytes() == before
    assert (here / "out" / "notes.txt").read_text() == "mine"
    assert len(names(here / "out")) == 6


def test_inputs_are_never_written_over(here, capsys):
    (here / "m").mkdir()
    shutil.copy("first.png", "m/img8.csv")
    before = {name: (here / name).read_bytes() for name in names(here) if "." in name}
    for options in (
        {"out": "clip"},
        {"out": "other", "more": ["--overlay", "clip/../clip"]},
        {"out": "same", "more": ["--overlay", "same"]},
        {"mask": "m/img8.csv", "more": ["--confidence", "m/../m/img8.csv"]},
        {"more": ["--rle", "same.csv", "--confidence", "same.csv"]},
    ):
        assert segment("--force", *options.pop("more", []), **options) == 1
        assert "choose another place" in capsys.readouterr().err
    assert before == {name: (here / name).read_bytes() for name in names(here) if "." in name}


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("", ["COMMAND"]),
        ("dance", ["dance"]),
        ("segment clip", ["--out"]),
        ("segment clip --mask first.png --out out --every 0", ["--every", "at least 1"]),
        ("segment clip --mask first.png --out out --size 8", ["--size", "at least 16"]),
        ("segment clip --mask first.png --out out --device tpu", ["--device", "tpu"]),
        ("segment clip --mask first.png --out out --still -1", ["--still", "at least 0"]),
        ("segment clip --mask first.png --out out --still much", ["--still", "'much'"]),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(here, capsys, argv, words):
    assert main(argv.split()) == 2
    refused(capsys, here, *words)


def test_a_video_without_a_mask_or_clicks_is_refused(here, capsys):
    assert main(["segment", "clip", "--out", "out"]) == 1
    refused(capsys, here, "--mask", "--click", "--box")


def test_missing_files_are_named(here, capsys):
    assert segment(video="nothing.mp4") == 1
    refused(capsys, here, "nothing.mp4 does not exist")
    assert segment(mask="nothing.png") == 1
    refused(capsys, here, "nothing.png does not exist")


def test_an_empty_folder_is_refused(here, capsys):
    (here / "empty").mkdir()
    assert segment(video="empty") == 1
    refused(capsys, here, "empty holds no images")


def test_a_frame_that_cannot_be_read_is_named_and_nothing_is_written(here, capsys):
    (here / "clip" / "img11.png").write_bytes(b"not an image")
    assert segment("--overlay", "out2") == 1
    refused(capsys, here, "img11.png is not an image", "nothing was written")


def test_a_frame_of_another_size_is_named_and_nothing_is_written(here, capsys):
    Image.new("RGB", (32, 32)).save(here / "clip" / "img10.png")
    assert segment() == 1
    refused(capsys, here, "frame 2 is 32x32", "48x64", "nothing was written")


def test_a_mask_that_does_not_do_is_refused(here, capsys):
    with Image.open("first.png") as image:
        mask = image.copy()
    mask.resize((20, 20)).save("small.png")
    tinted = np.asarray(mask.convert("RGB")) // 2 + np.array([9, 0, 0], np.uint8)  # of no known palette
    Image.fromarray(tinted).save("colours.png")
    Image.new("P", (64, 48)).save("empty.png")
    soft = mask.convert("L").point(lambda x: 255 if x else 0).rotate(30)
    soft.resize((640, 480)).resize((64, 48), Image.Resampling.LANCZOS).save("soft.png")
    Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (48, 1))).save("ramp.png")
    for name, word in {
        "small": "mask is 20x20 but frame is 48x64",
        "colours": "RGB mask of 2 colours",
        "empty": "empty",
        "soft": "anti-aliased",
        "ramp": "anti-aliased",
    }.items():
        assert segment(mask=f"{name}.png") == 1
        refused(capsys, here, word)


def test_a_mask_named_as_no_frame_is_refused(here, capsys, clip):
    (here / "masks").mkdir()
    write_mask("masks/img99.png", clip[1])
    assert segment(mask="masks") == 1
    refused(capsys, here, "img99.png is for frame img99, which the video does not have", "the first is img8")


def test_a_video_that_is_cut_off_says_so_and_nothing_is_written(here, capsys):
    pytest.importorskip("av")
    write_video("clip.mp4", np.random.default_rng(0).integers(0, 256, (20, 48, 64, 3), np.uint8), fps=25)
    (here / "clip.mp4").write_bytes((here / "clip.mp4").read_bytes()[:-20000])
    assert segment("--overlay", "out.mp4", video="clip.mp4") == 1
    refused(capsys, here, "clip.mp4 is damaged or cut off", "of 20 frames", "nothing was written")


def test_a_video_without_pyav_names_the_extra(here, capsys, without_package):
    without_package("av")
    (here / "clip.mp4").write_bytes(b"")
    assert segment(video="clip.mp4") == 1
    refused(capsys, here, 'pip install ".[video]"')
    assert segment("--overlay", "out.mp4") == 1
    refused(capsys, here, 'pip install ".[video]"')


def test_an_output_that_cannot_be_is_refused(here, capsys):
    (here / "file").write_text("mine")
    assert segment(out="file") == 1
    refused(capsys, here, "file is a file")
    assert segment(out="file/below") == 1
    refused(capsys, here, "below cannot be written")
    assert segment("--overlay", "shown.avi") == 1
    refused(capsys, here, "shown.avi", ".mp4")


@pytest.mark.parametrize("option", ["--out", "--overlay", "--matte", "--cutout", "--rle"])
@pytest.mark.parametrize("place", ["https://host/out.mp4", "s3://bucket/out", "gs://bucket/out.mov"])
def test_an_output_that_is_an_address_is_refused(here, capsys, option, place):
    assert segment(option, place) == 1
    refused(capsys, here, f"{option} {place} is an address; write to this machine")
    assert sorted(os.listdir(here)) == ["clip", "first.png"]


def test_the_home_folder_stands_for_its_sign_where_a_shell_leaves_it(here, monkeypatch):
    home = here / "home"
    home.mkdir()
    for name in ("clip", "first.png"):
        (here / name).rename(home / name)
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(home))
    argv = ["segment", "~/clip", "--mask=~/first.png", "--out=~/out", "--overlay=~/shown", "--quiet"]
    assert main([*argv, "--device", "cpu", "--size", "0"]) == 0
    assert os.listdir(here) == ["home"]
    assert sorted(os.listdir(home)) == ["clip", "first.png", "out", "shown"]
    (here / "~").mkdir()  # what is called so is meant, as the shell would say with ./~
    assert main(["masks", "convert", f"{home}/first.png", "--out=~/ids", "--quiet"]) == 0
    assert os.listdir(here / "~") == ["ids"]


def test_an_unknown_model_is_refused_with_those_that_are_known(here, capsys):
    assert segment("--model", "huge") == 1
    refused(capsys, here, "huge", "tiny")


@pytest.mark.parametrize("video", ["camera:97", "rtsp://me:secret@127.0.0.1:9/live"])
def test_a_camera_needs_an_end_and_one_that_is_not_there_is_an_error(here, capsys, video):
    pytest.importorskip("av")
    assert segment(video=video) == 1
    refused(capsys, here, "has no last frame", "--stop N")
    clicked = ["segment", video, "--click", "9,9", "--click-frame", "1", "--stop", "3", "--out", "out"]
    assert main(clicked) == 1
    refused(capsys, here, "you click on the first frame")
    assert segment("--stop", "3", video=video) == 1
    err = capsys.readouterr().err
    assert "cannot be opened" in err
    assert "secret" not in err


@pytest.mark.parametrize("option", [("--mask", "first.png"), ("--box", "2,2,40,30")])
def test_a_camera_is_followed_to_its_end_and_clicked_on_its_first_frame(here, monkeypatch, option):
    pytest.importorskip("av")
    plays = []

    def play(self):
        plays.append(0)
        for frame in open_frames("clip"):
            plays[-1] += 1
            yield frame

    monkeypatch.setattr("emavos.io.video.CameraSource.__iter__", play)
    argv = ["segment", "camera:0", *option, "--stop", "3", "--size", "96", "--device", "cpu", "--quiet"]
    assert main([*argv, "--out", "out"]) == 0
    assert names(here / "out") == ["00000.png", "00001.png", "00002.png"]
    assert plays == [3]
    argv[1] = "clip"
    assert main([*argv, "--out", "out2"]) == 0
    for live, file in zip(list_images("out"), list_images("out2"), strict=True):
        np.testing.assert_array_equal(read_mask(live), read_mask(file))


def test_ctrl_c_leaves_nothing_behind(here, capsys, monkeypatch):
    monkeypatch.setattr(Predictor, "_forward", lambda self, frames, *_: _stop_after(frames))
    assert segment() == 130
    refused(capsys, here, "interrupted")


def _stop_after(frames):
    next(iter(frames))
    raise KeyboardInterrupt
    yield


def test_the_version_and_the_help_are_shown(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"emavos {__version__}\n"
    assert main(["segment", "--help"]) == 0
    assert "--max-frames" in capsys.readouterr().out


def test_the_demo_writes_all_that_it_says(tmp_path, monkeypatch, capsys):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    assert main(["demo", "--frames", "3", "--device", "cpu", "--size", "96"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "first mask after" in out
    assert "mean J of 2 frames, 3 objects: 0." in out
    made = names(tmp_path / "demo")
    for folder in ("frames", "masks", "overlay"):
        assert [n for n in made if n.startswith(f"{folder}/")] == [f"{folder}/0000{i}.png" for i in range(3)]
    assert {"contact_sheet.png", "overlay.mp4"} < set(made)
    assert (
        main(["segment", "demo/frames", "--mask", "demo/masks/00000.png", "--out", "again", "--size", "96"])
        == 0
    )
    for i in range(3):
        again, first = (read_mask(f"{folder}/0000{i}.png") for folder in ("again", "demo/masks"))
        assert (again == first).mean() > 0.99
    capsys.readouterr()
    assert main(["demo", "--frames", "3"]) == 1
    assert "demo is not empty" in capsys.readouterr().err


def test_the_demo_keeps_the_frames_that_it_shows_and_no_others(tmp_path, monkeypatch):
    overlay, contact_sheet = visualize.overlay, visualize.contact_sheet
    made, kept = [], []

    def painted(*given):
        picture = overlay(*given)
        made.append(weakref.ref(picture))
        return picture

    def sheet(*given):
        gc.collect()
        kept.append(sum(picture() is not None for picture in made))
        return contact_sheet(*given)

    monkeypatch.setattr(visualize, "overlay", painted)
    monkeypatch.setattr(visualize, "contact_sheet", sheet)
    out = str(tmp_path / "demo")
    assert main(["demo", "--frames", "24", "--device", "cpu", "--size", "32", "--out", out, "--quiet"]) == 0
    assert (len(made), kept) == (24, [8])


@pytest.fixture
def davis(tmp_path):
    return davis_tree(tmp_path / "davis", {"one": 4, "two": 4})


def test_a_stage_of_training_can_be_stopped_and_gives_a_model(davis, capsys, monkeypatch):
    data = training_tree(davis.parent / "data")
    small = dataclasses.replace(STAGES["tiny-1"], size=48, batch=1)
    monkeypatch.setattr("emavos.training.STAGES", {"small": small})
    command = ["train", "--stage", "small", "--data", str(data), "--out", str(davis.parent / "run")]
    assert main([*command, "--device", "cpu", "--iterations", "1"]) == 0
    assert "the model is in" in capsys.readouterr().out
    assert load_model(davis.parent / "run" / "model").config == PRESETS["stcn-tiny"]
    assert main(["train", "--stage", "large", "--data", str(data), "--out", "run"]) == 1
    assert "there is no stage large; the stages are small" in capsys.readouterr().err


def test_the_folder_of_the_mask_is_never_written_to(here, capsys):
    (here / "m").mkdir()
    shutil.move("first.png", "m/00000.png")
    before = (here / "m" / "00000.png").read_bytes()
    for arguments in (["--overlay", "m"], ["--overlay", "x.png"]):
        assert segment("--force", *arguments, mask="m/00000.png") == 1
    assert segment("--force", mask="m/00000.png", out="m") == 1
    assert capsys.readouterr().err.count("\n") == 3
    assert (here / "m" / "00000.png").read_bytes() == before
    assert names(here / "m") == ["00000.png"]


def test_something_in_the_way_is_found_before_the_first_file_is_moved(here, capsys):
    (here / "out" / "img9.png").mkdir(parents=True)
    stem = names(here / "clip")[2].removesuffix(".png").removesuffix(".jpg")
    (here / "out" / f"{stem}.png").mkdir(exist_ok=True)
    before = names(here / "out")
    assert segment("--force") == 1
    assert "is in its way" in capsys.readouterr().err
    assert names(here / "out") == before


def test_out_of_memory_on_a_cpu_is_one_line(here, capsys, monkeypatch):
    def full(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(STCN, "encode_key", full)
    assert segment() == 1
    assert "out of memory at frame 0" in capsys.readouterr().err


def test_an_empty_video_is_not_the_current_folder(here, capsys):
    assert segment(video="") == 1
    refused(capsys, here, "VIDEO is empty")


def test_an_overlay_that_the_encoder_does_not_take_is_one_line(here, capsys):
    pytest.importorskip("av")
    (here / "wide").mkdir()
    Image.fromarray(np.zeros((16, 20000, 3), np.uint8)).save("wide/0.png")
    mask = np.zeros((16, 20000), np.uint8)
    mask[4:9, 4:3000] = 1
    write_mask("wide.png", mask)
    assert segment("--overlay", "out.mp4", video="wide", mask="wide.png") == 1
    refused(capsys, here, "out.mp4 cannot be written as H.264", "16x20000")


def test_links_that_lead_nowhere_or_in_a_circle_are_one_line(here, capsys):
    (here / "circle").symlink_to("circle")
    (here / "outward").symlink_to("nowhere")
    assert segment(video="circle") == 1
    assert "circle does not exist" in capsys.readouterr().err
    for out in ("circle", "outward"):
        assert segment(out=out) == 1
        assert "is a link that leads nowhere" in capsys.readouterr().err
    assert (here / "outward").is_symlink()


def test_nothing_else_appears_where_the_masks_cannot(here, capsys):
    pytest.importorskip("av")
    (here / "out" / "img9.png").mkdir(parents=True)
    more = ["--rle", "more/rle.json", "--confidence", "more/sure.csv"]
    for place in ("shown.mp4", "shown"):
        assert segment("--force", "--overlay", place, *more) == 1
        assert "is in its way" in capsys.readouterr().err
        assert not (here / place).exists()
        assert not (here / "more").exists()


def test_objects_are_described_where_a_table_is_asked_for_alone(here, monkeypatch):
    asked = []
    monkeypatch.setattr(Result, "objects", property(lambda self: asked.append(self.index) or {}))
    assert segment() == 0
    assert asked == []
    assert segment("--confidence", "sure.csv", out="again") == 0
    assert len(asked) == len(names(here / "out"))


def test_a_size_that_no_memory_holds_is_one_line(here, capsys):
    assert main(["segment", "clip", "--mask", "first.png", "--out", "out", "--size", "99999999999"]) == 1
    refused(capsys, here, "size is a whole number of pixels from 16 to 8192", "99999999999")


def test_a_config_without_end_is_one_line(here, capsys):
    (here / "model").mkdir()
    (here / "model" / "config.json").write_text("[" * 200_000)
    (here / "model" / "model.safetensors").write_bytes(b"")
    assert segment("--model", "model") == 1
    refused(capsys, here, "config.json")


INTERRUPTED = """
import sys

module = sys.argv[1]

class Stopping:
    def find_spec(self, name, path, target=None):
        if name == module:
            raise KeyboardInterrupt

sys.meta_path.insert(0, Stopping())
from emavos.__main__ import main
sys.argv[1:] = ["segment", "clip", "--mask", "first.png", "--out", "out"]
sys.exit(main())
"""


@pytest.mark.parametrize(
    "module", ["emavos.cli", "emavos.cli.ui", "argparse", "numpy", "torch", "emavos.session"]
)
def test_ctrl_c_during_an_import_is_one_line_and_leaves_nothing(here, module):
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, module], capture_output=True, text=True, cwd=here
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "emavos: error: interrupted\n")
    assert sorted(os.listdir(here)) == ["clip", "first.png"]


def test_the_command_and_the_module_begin_with_the_same_function():
    text = (Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    assert 'emavos = "emavos.__main__:main"' in text
