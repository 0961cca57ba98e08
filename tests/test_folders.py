"""A folder is not believed: what is left out, added or ordered oddly is said, or refused."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import Predictor
from emavos.cli import main
from emavos.io import InputWarning, list_images, open_frames, read_frame, read_mask, write_mask
from emavos.io.notices import noting

BOX = np.zeros((32, 48), np.uint8)
BOX[8:24, 8:24] = 1


def frame(i=0):
    pixels = np.full((32, 48, 3), 90, np.uint8)
    pixels[8:24, 8 + i : 24 + i] = 220, 40, 30
    return pixels


def fill(folder, names):
    folder.mkdir(exist_ok=True)
    for i, name in enumerate(names):
        form = {"jfif": "JPEG", "jpe": "JPEG", "pgm": "PPM", "ppm": "PPM", "dib": "BMP"}.get(
            name.rpartition(".")[2]
        )
        Image.fromarray(frame(i)).save(folder / name, format=form)
    return folder


def names_of(source):
    return [source.name(i) for i in range(source.count)]


@pytest.fixture(scope="module")
def predictor():
    return Predictor.from_pretrained(size=32)


@pytest.mark.parametrize("name", ["first.png", "img_00001_mask.png", "zz.png"])
def test_the_mask_among_the_frames_is_no_frame_and_a_note_says_so(tmp_path, predictor, name):
    folder = fill(tmp_path / "f", [f"img_{i:05d}.jpg" for i in range(3)])
    write_mask(folder / name, BOX)
    for path in (folder / name, str(folder / name)):
        with pytest.warns(InputWarning, match=f"left out: the mask {name}"):
            results = list(predictor.propagate(folder, path))
        assert len(results) == 3
    assert np.array_equal(results[0].mask, BOX)


def test_the_command_leaves_the_mask_out_of_the_frames_in_a_line(tmp_path, capsys):
    folder = fill(tmp_path / "f", [f"img_{i:05d}.png" for i in range(3)])
    write_mask(folder / "first.png", BOX)
    arguments = ["segment", folder, "--mask", folder / "first.png", "--out", tmp_path / "out", "--size", "32"]
    assert main([*map(str, arguments), "--quiet"]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"img_{i:05d}.png" for i in range(3)
    ]
    assert capsys.readouterr().err == f"emavos: note: {folder}: left out: the mask first.png\n"


@pytest.mark.parametrize("place", ["first", "last"])
def test_an_earlier_mask_among_the_frames_is_refused_by_name(tmp_path, place):
    folder = fill(tmp_path / "f", [f"img_{i:05d}.png" for i in range(3)])
    write_mask(folder / ("a.png" if place == "first" else "result_2.png"), BOX)
    with pytest.raises(ValueError, match=r"is a mask of object ids, and lies among the frames"):
        open_frames(folder)


def test_a_frame_that_a_mask_was_written_over_is_refused_when_it_is_read(tmp_path):
    folder = fill(tmp_path / "f", [f"{i:05d}.png" for i in range(3)])
    write_mask(folder / "00001.png", BOX)
    with pytest.raises(ValueError, match=r"00001\.png is a mask of object ids"):
        list(open_frames(folder))


@pytest.mark.parametrize("suffix", ["jfif", "jpe", "ppm", "pgm", "dib", "JFIF"])
def test_every_kind_of_image_that_is_read_is_a_frame(tmp_path, suffix):
    folder = fill(tmp_path / "f", ["00000.jpg", f"00001.{suffix.lower()}", "00002.jpg"])
    (folder / f"00001.{suffix.lower()}").rename(folder / f"00001.{suffix}")
    assert names_of(open_frames(folder)) == ["00000", "00001", "00002"]


@pytest.mark.parametrize("name", ["00001.heic", "00001.CR2", "cover.avif", "00001.jpg.part", "00001"])
def test_what_looks_like_a_frame_and_is_not_read_is_named(tmp_path, name):
    folder = fill(tmp_path / "f", ["00000.jpg", "00002.jpg"])
    (folder / name).touch()
    with pytest.warns(InputWarning, match=f": left out: {name}$"):
        assert open_frames(folder).count == 2


def test_all_that_a_folder_leaves_out_is_one_line(tmp_path, capsys):
    folder = fill(tmp_path / "f", [f"img_{i:05d}.png" for i in range(3)])
    write_mask(folder / "first.png", BOX)
    for name in (*(f"img_{i:05d}.heic" for i in range(3, 11)), "cover.avif", "img_00011.jpg.part"):
        (folder / name).touch()
    arguments = ["segment", folder, "--mask", folder / "first.png", "--out", tmp_path / "out", "--size", "32"]
    assert main([*map(str, arguments), "--quiet"]) == 0
    line = f"{folder}: left out: cover.avif, 8 .heic, img_00011.jpg.part, the mask first.png"
    assert capsys.readouterr().err == f"emavos: note: {line}\n"


def test_a_mask_in_a_list_of_files_is_left_out_and_named(tmp_path, capsys):
    folder = fill(tmp_path / "f", [f"img_{i:05d}.png" for i in range(3)])
    write_mask(folder / "first.png", BOX)
    arguments = [*folder.iterdir(), "--mask", folder / "first.png", "--out", tmp_path / "out", "--size", "32"]
    assert main(["segment", *map(str, arguments), "--quiet"]) == 0
    assert len([*(tmp_path / "out").iterdir()]) == 3
    assert capsys.readouterr().err == "emavos: note: left out: the mask first.png\n"
    with pytest.raises(ValueError, match="only image in the list is the mask"):
        open_frames([folder / "first.png"], but=[folder / "first.png"])


def test_notes_and_hidden_files_are_passed_over(tmp_path):
    folder = fill(tmp_path / "f", ["00000.jpg", "00001.jpg"])
    for name in ("notes.txt", "00001.json", ".DS_Store", "Thumbs.db", "._00001.jpg"):
        (folder / name).touch()
    (folder / "masks").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_frames(folder).count == 2


def test_an_image_that_is_named_unlike_the_others_is_a_frame_and_named(tmp_path):
    folder = fill(tmp_path / "f", ["cover.jpg", *(f"img_{i}.jpg" for i in range(4))])
    with pytest.warns(InputWarning, match=r"cover\.jpg is named unlike the other images"):
        assert names_of(open_frames(folder))[0] == "cover"


@pytest.mark.parametrize(
    "order",
    [
        ["t0.25", "t0.5", "t0.75", "t1", "t1.5", "t10.0"],
        ["0.05", "0.1", "0.15", "0.2"],
        ["-10", "-2", "-1", "0", "1", "2", "10"],
        ["t=-1.5", "t=-1.25", "t=0", "t=2"],
        ["v1.1", "v1.2", "v1.3", "v1.4", "v1.5", "v1.6", "v1.7", "v1.8", "v1.9", "v1.10"],
        ["a-1", "a-2", "a-10"],
        ["2024.1.9", "2024.1.10", "2024.2.1"],
        ["1", "2", "10"],
        ["clip1.001", "clip1.002", "clip1.010"],
    ],
)
def test_numbers_in_names_are_ordered_as_numbers(tmp_path, order):
    folder = fill(tmp_path / "f", [f"{name}.png" for name in sorted(order)])
    assert [path.stem for path in list_images(folder)] == order
    surprising = any("." in name or name.startswith("-") or "=-" in name for name in order)
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        open_frames(folder)
    uneven = {len(name.partition(".")[2]) for name in order if name.count(".") == 1}
    warned = any("are ordered as" in str(note.message) for note in notes)
    assert warned == (surprising and (len(uneven) > 1 or order[0][0] == "-" or "=-" in order[0]))


SEVERAL = {"a.apng": "PNG", "a.png": "PNG", "a.webp": "WEBP", "a.tif": "TIFF"}


def write_pages(path, count=6):
    pages = [Image.fromarray(np.full((20, 30, 3), 20 + 30 * i, np.uint8)) for i in range(count)]
    options = {"lossless": True} if path.suffix == ".webp" else {}
    pages[0].save(
        path, save_all=True, append_images=pages[1:], duration=40, format=SEVERAL[path.name], **options
    )


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_an_image_of_several_pictures_is_a_video(tmp_path, name):
    write_pages(tmp_path / name)
    source = open_frames(tmp_path / name)
    assert [int(pixels[0, 0, 0]) for pixels in source] == [20 + 30 * i for i in range(6)]
    assert (source.count, source.size()) == (6, (20, 30))
    assert name == "a.tif" or source.fps == 25


IMAGEJ = "ImageJ=1.53t\nimages=12\n{}hyperstack=true\nmode=grayscale\n"
OME = '<?xml version="1.0"?><OME><Image ID="I:0"><Pixels ID="P:0" SizeX="3" {} Type="uint16"/></Image></OME>'


@pytest.mark.parametrize(
    ("description", "words"),
    [
        (IMAGEJ.format("channels=2\nframes=6\n"), "has 2 channels at each time.*12 pages.*--step 2 with"),
        (IMAGEJ.format("slices=3\nframes=4\n"), "has 3 slices at each time.*--step 3 with"),
        (IMAGEJ.format("channels=2\nslices=3\nframes=2\n"), "has 2 channels and 3 slices at.*--step 6 with"),
        (IMAGEJ.format("channels=2\nslices=6\n"), "has 2 channels at each time.*--step 2 with"),
        (OME.format('SizeC="3" SizeT="4" SizeZ="1"'), "has 3 channels at each time.*--step 3 with"),
        (OME.format('SizeC="1" SizeT="4" SizeZ="3"'), "has 3 slices at each time.*--step 3 with"),
        (IMAGEJ.format("slices=12\n"), None),  # as ImageJ saves a film by default
        (IMAGEJ.format("frames=12\n"), None),
        (IMAGEJ.format("channels=99\n"), None),  # more than there are pages
        (OME.format('SizeC="1" SizeT="12" SizeZ="1"'), None),
        ('{"shape": [12, 20, 30]}', None),
        ("channels=2", None),
    ],
)
def test_a_stack_of_channels_or_slices_is_told_of(tmp_path, description, words):
    pages = [Image.fromarray(np.full((20, 30), 65535 - 4000 * i, np.uint16)) for i in range(12)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:], tiffinfo={270: description})
    with noting() as notes:
        assert len([*open_frames(tmp_path / "a.tif")]) == 12
        shown = [int(x[0, 0, 0]) for x in open_frames(tmp_path / "a.tif", start=1, step=2)]
    assert shown == pytest.approx([(65535 - 4000 * i) / 257 for i in range(1, 12, 2)], abs=1)
    assert len(notes) == (words is not None)
    assert words is None or re.search(rf"a\.tif {words}", notes[0])


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
def test_an_image_of_several_pictures_is_followed_backward_too(tmp_path, predictor, name):
    write_pages(tmp_path / name, 3)
    mask = np.zeros((20, 30), np.uint8)
    mask[5:12, 5:12] = 1
    assert len(list(predictor.propagate(tmp_path / name, {2: mask}, direction="backward"))) == 3


@pytest.mark.parametrize("name", ["a.png", "a.webp", "a.tif"])
@pytest.mark.filterwarnings("ignore::emavos.io.InputWarning")
@pytest.mark.parametrize("others", [0, 2])
def test_pictures_of_an_image_do_not_vanish_among_frames(tmp_path, name, others):
    folder = fill(tmp_path / "f", [f"b{i}.jpg" for i in range(others)])
    write_pages(folder / name)
    with pytest.raises(ValueError, match=rf"{name}.*holds 6 pictures"):
        list(open_frames(folder))
    for read in (read_frame, read_mask):
        with pytest.raises(ValueError, match=rf"{name}.*holds 6 pictures.*masks .* can be a \.npy"):
            read(folder / name)


def test_smaller_copies_in_a_tiff_are_no_pictures(tmp_path):
    from PIL.TiffImagePlugin import ImageFileDirectory_v2

    small = Image.fromarray(frame()[::2, ::2])
    tags = ImageFileDirectory_v2()
    tags[254] = 1
    small.encoderinfo = {"tiffinfo": tags}
    Image.fromarray(frame()).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    assert np.array_equal(read_frame(tmp_path / "a.tif"), frame())


@pytest.mark.parametrize("bits", [8, 10, 12, 14])
def test_sixteen_bits_of_which_few_are_used_are_told(tmp_path, bits):
    levels = (np.arange(64, dtype=np.uint16) * (2**bits // 64)).reshape(8, 8)
    Image.fromarray(levels).save(tmp_path / "a.png")
    with pytest.warns(InputWarning, match=rf"uses only the lower {bits} bits.*--window 0,{2**bits - 1}"):
        read_frame(tmp_path / "a.png")


@pytest.mark.parametrize("kind", [str, Path])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_frames_may_be_named_by_their_files(tmp_path, predictor, kind, direction):
    folder = fill(tmp_path / "f", [f"{i:05d}.png" for i in range(6)])
    files = [kind(path) for path in sorted(folder.iterdir())[::2]]
    results = list(predictor.propagate(files, BOX, direction=direction))
    assert [result.index for result in results] == [0, 1, 2]
    if direction == "forward":
        assert len(list(predictor.propagate(iter(files), BOX))) == 3
    with pytest.raises(FileNotFoundError, match=r"no\.png does not exist"):
        open_frames([*files, kind(folder / "no.png")])


@pytest.mark.parametrize("name", ["img_*.png", "img_%d.png", "img_?.png", "img_[0-9].png", "i%%g_%d.png"])
def test_a_pattern_of_files_is_their_frames_in_the_order_of_their_numbers(tmp_path, name):
    begin = "i%g_" if "%%" in name else "img_"
    folder = fill(tmp_path / "f", [*(f"{begin}{i}.png" for i in (9, 8, 7)), "other_1.png", "img_1.jpg"])
    assert names_of(open_frames(folder / name)) == [f"{begin}{i}" for i in (7, 8, 9)]


def test_a_number_of_a_pattern_is_as_wide_as_it_says_and_gaps_are_told(tmp_path):
    folder = fill(tmp_path / "f", ["0001.png", "0002.png", "0005.png", "00003.png", "4.png", "12345.png"])
    with pytest.warns(InputWarning, match=r"%04d\.png: no file has the numbers 3 to 4, 6 to 12344"):
        assert names_of(open_frames(folder / "%04d.png")) == ["0001", "0002", "0005", "12345"]


@pytest.mark.parametrize("name", ["*.jpg", "%05d.png", "img_??.jpg", "no/*.png"])
def test_a_pattern_that_matches_nothing_says_so(tmp_path, name):
    fill(tmp_path / "f", ["0.png"])
    with pytest.raises(FileNotFoundError, match="matches no file"):
        open_frames(tmp_path / "f" / name)


def test_files_on_the_command_line_are_frames_in_the_order_of_their_numbers(tmp_path):
    folder = fill(tmp_path / "f", [f"i{i}.png" for i in (8, 9, 10)])
    write_mask(folder / "i_mask.png", BOX)
    files = sorted(map(str, folder.iterdir()))  # as a shell sorts them: i10, i8, i9, i_mask
    arguments = ["--mask", folder / "i_mask.png", "--out", tmp_path / "out", "--size", "32", "--quiet"]
    assert main(["segment", *files, *map(str, arguments)]) == 0
    assert np.array_equal(read_mask(tmp_path / "out" / "i8.png"), BOX)
    assert len([*(tmp_path / "out").iterdir()]) == 3


@pytest.mark.parametrize("kind", ["folder", "list", "pages", "iterable"])
@pytest.mark.parametrize(
    ("chosen", "numbers"), [((1, 5, 2), [1, 3]), ((2, None, 3), [2, 5]), ((0, 99, 1), range(6))]
)
def test_some_frames_are_chosen_and_keep_their_names(tmp_path, kind, chosen, numbers):
    folder = fill(tmp_path / "f", [f"img_{i}.png" for i in range(6)])
    files = [folder / f"img_{i}.png" for i in range(6)]
    if kind == "pages":
        pages = [Image.open(file) for file in files]
        pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    source = {
        "folder": folder,
        "list": files,
        "pages": tmp_path / "a.tif",
        "iterable": [frame(i) for i in range(6)],
    }
    start, stop, step = chosen
    frames = open_frames(source[kind], start=start, stop=stop, step=step)
    for found in (
        list(frames),
        [frames.reel()[i] for i in range(len(numbers))] if frames.reel() else list(frames),
    ):
        assert all(np.array_equal(a, frame(n)) for a, n in zip(found, numbers, strict=True))
    assert frames.count == len(numbers)
    for place, number in enumerate(numbers):
        name = f"img_{number}" if kind in ("folder", "list") else f"{number:05d}"
        assert frames.name(place) == name
        assert frames.find(name) == frames.place(number) == place
    assert frames.place(1) == ([*numbers].index(1) if 1 in numbers else None)


@pytest.mark.parametrize(
    "wrong",
    [{"start": -1}, {"step": 0}, {"start": 3, "stop": 3}, {"start": 1.5}, {"start": True}, {"start": 6}],
)
def test_a_choice_without_a_frame_is_refused_before_the_first(tmp_path, wrong):
    folder = fill(tmp_path / "f", [f"{i}.png" for i in range(6)])
    with pytest.raises(ValueError, match=r"start|stop|step|frame"):
        open_frames(folder, **wrong)


def test_the_command_follows_the_frames_that_are_chosen(tmp_path, capsys):
    folder = fill(tmp_path / "f", [f"{i:05d}.png" for i in range(8)])
    (tmp_path / "m").mkdir()
    for i in (1, 2, 5):
        write_mask(tmp_path / "m" / f"{i:05d}.png", BOX)
    arguments = [
        "--mask",
        tmp_path / "m",
        "--out",
        tmp_path / "out",
        "--size",
        "32",
        "--start",
        "1",
        "--step",
        "4",
    ]
    assert main(["segment", str(folder), *map(str, arguments), "--quiet"]) == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["00001.png", "00005.png"]
    assert (
        capsys.readouterr().err == "emavos: note: masks of frames that are not tracked are left out: 00002\n"
    )


@pytest.mark.parametrize("bits", [10, 12])
@pytest.mark.parametrize("kind", ["folder", "pages"])
def test_images_of_16_bits_that_use_few_have_one_window_and_a_note(tmp_path, kind, bits):
    levels = [np.full((8, 8), value, np.uint16) for value in (2**bits - 1, 2 ** (bits - 1), 0)]
    (tmp_path / "f").mkdir()
    for i, level in enumerate(levels):
        Image.fromarray(level).save(tmp_path / "f" / f"{i}.png")
    images = [Image.fromarray(level) for level in levels]
    images[0].save(tmp_path / "a.tif", save_all=True, append_images=images[1:])
    with pytest.warns(
        InputWarning, match=rf"use the lower {bits}; all frames are shown from 0 to {2**bits - 1} "
    ):
        seen = [
            int(pixels[0, 0, 0]) for pixels in open_frames(tmp_path / {"folder": "f", "pages": "a.tif"}[kind])
        ]
    assert seen == [255, 128, 0]


@pytest.mark.parametrize("kind", [np.uint16, np.float32, np.int32])
def test_a_window_says_what_is_black_and_white_in_every_frame(tmp_path, kind):
    values = np.array([[-50, 100, 200, 300, 900]]).clip(0 if kind is np.uint16 else -50).astype(kind)
    Image.fromarray(values).save(tmp_path / "0.tif")
    (pixels,) = open_frames([tmp_path / "0.tif"], window=(100, 300))
    assert pixels[0, :, 0].tolist() == [0, 0, 128, 255, 255]
    if kind is not np.uint16:
        with pytest.raises(ValueError, match="32 bits per channel; choose black and white"):
            list(open_frames([tmp_path / "0.tif"]))


@pytest.mark.parametrize("window", [(1,), (3, 3), (5, 1), (0, np.nan), "0,9", (0, np.inf), 7])
def test_a_window_that_is_none_is_refused(tmp_path, window):
    folder = fill(tmp_path / "f", ["0.png"])
    with pytest.raises(ValueError, match="window"):
        open_frames(folder, window=window)


def test_a_window_for_8_bits_or_for_a_stream_is_refused(tmp_path, capsys):
    folder = fill(tmp_path / "f", ["0.png"])
    with pytest.raises(
        ValueError, match=r"0\.png has 8 bits per channel; a window is for gray of 16 or 32 bits"
    ):
        list(open_frames(folder, window=(0, 9)))
    with pytest.raises(ValueError, match="a window is for image files"):
        open_frames([frame()], window=(0, 9))
    assert main(["segment", str(folder), "--mask", "a.png", "--out", "o", "--window", "9,0"]) == 2
    assert "is not a window LOW,HIGH, such as 0,4095" in capsys.readouterr().err


class Old:
    """What torchcodec, decord and torch's data sets are: __len__ and __getitem__, no __iter__."""

    def __len__(self):
        return 3

    def __getitem__(self, i):
        if not 0 <= i < 3:
            raise IndexError(i)
        return torch.from_numpy(frame(i)).permute(2, 0, 1)


@pytest.mark.parametrize("source", [Old(), torch.utils.data.Subset(Old(), [0, 2])])
@pytest.mark.parametrize("direction", ["forward", "both"])
def test_a_sequence_without_iter_is_frames(predictor, source, direction):
    assert len(list(predictor.propagate(source, BOX, direction=direction))) == len(source)


@pytest.mark.parametrize("wrong", ["size", "empty", "text"])
@pytest.mark.parametrize("way", ["command", "python"])
def test_what_is_wrong_with_a_later_mask_is_said_before_the_first_frame(
    tmp_path, capsys, predictor, wrong, way
):
    folder = fill(tmp_path / "f", [f"{i:05d}.png" for i in range(4)])
    later = {"size": BOX[::2, ::2], "empty": np.zeros_like(BOX), "text": BOX}[wrong]
    (tmp_path / "m").mkdir()
    write_mask(tmp_path / "m" / "00000.png", BOX)
    write_mask(tmp_path / "m" / "00003.png", later)
    if wrong == "text":
        (tmp_path / "m" / "00003.png").write_text("text")
    if way == "python":
        masks = {i: tmp_path / "m" / f"{i:05d}.png" for i in (0, 3)}
        with pytest.raises(ValueError, match=r"00003\.png"):
            predictor.propagate(folder, masks)
        return
    arguments = ["segment", folder, "--mask", tmp_path / "m", "--out", tmp_path / "out", "--size", "32"]
    assert main(list(map(str, arguments))) == (0 if wrong == "empty" else 1)
    said = capsys.readouterr().err
    assert "00003" in said
    assert "nothing was written" not in said
    assert {"size": "16x24", "empty": "without an object are left out", "text": "not an image"}[wrong] in said


@pytest.mark.parametrize("option", ["--mask", "--labels", "--reference", "jobs", "job"])
def test_an_address_in_place_of_a_file_is_answered_with_what_to_do(tmp_path, capsys, option):
    folder = fill(tmp_path / "f", ["00000.jpg", "00001.jpg"])
    write_mask(tmp_path / "m.png", BOX)
    address = "https://me:secret@host/m.png"
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"video": str(folder), "mask": address}))
    ways = {
        "--mask": ["segment", folder, "--mask", address],
        "--labels": ["segment", folder, "--mask", tmp_path / "m.png", "--labels", address],
        "--reference": ["segment", folder, "--reference", address, address],
        "jobs": ["batch", address],
        "job": ["batch", tmp_path / "jobs.jsonl"],
    }
    assert main([*map(str, ways[option]), "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert (
        "https://host/m.png is an address, not a file of this machine; download it and pass the file" in said
    )
    assert "secret" not in said
    with pytest.raises(FileNotFoundError, match="is an address"):
        Predictor.from_pretrained(size=32).propagate(folder, address)


@pytest.mark.parametrize("names", [["frame1.png", "frame01.png"], ["a_1.png", "a_001.png", "a_2.png"]])
def test_a_note_names_two_frames_of_the_same_number(tmp_path, names):
    fill(tmp_path / "f", names)
    with pytest.warns(InputWarning, match=f"{names[1]} have the same number|{names[0]} have the same number"):
        assert open_frames(tmp_path / "f").count == len(names)


@pytest.mark.parametrize(
    "stems", [["a1_01", "a1_10", "a10_01", "a10_10"], ["0", "1", "10"], ["1.05", "1.50"]]
)
def test_frames_of_different_numbers_cause_no_note(tmp_path, stems):
    fill(tmp_path / "f", [f"{stem}.png" for stem in stems])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_frames(tmp_path / "f").count == len(stems)


def test_masks_of_several_pages_can_be_passed_as_the_array_that_the_error_names(tmp_path, predictor):
    frames = [np.full((20, 30, 3), 90, np.uint8) for _ in range(3)]
    masks = np.zeros((3, 20, 30), np.uint16)
    masks[:, 5:12, 5:12], masks[2, 14:18, 20:26] = 7, 300
    pages = [Image.fromarray(mask) for mask in masks]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(ValueError, match=r"a\.tif.*holds 3 pictures.*\.npy of ids \(T, H, W\)"):
        next(predictor.propagate(frames, tmp_path / "a.tif"))
    np.save(tmp_path / "a.npy", masks)
    results = predictor.propagate(frames, tmp_path / "a.npy")
    assert [result.ids for result in results] == [(7,), (7,), (7, 300)]
