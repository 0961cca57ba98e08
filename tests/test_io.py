from __future__ import annotations

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageOps

import emavos
from emavos.io import (
    VideoWriter,
    davis_palette,
    list_images,
    open_frames,
    palette,
    read_frame,
    read_mask,
    write_mask,
    write_video,
)
from emavos.io.fingerprint import fingerprint
from emavos.io.images import pixels_of
from emavos.visualize import colour


def picture(level=0, height=32, width=48):
    """Gray, with a red corner on the top left."""
    frame = np.full((height, width, 3), level, np.uint8)
    frame[:10, :20] = 255, 0, 0
    return frame


def disc(smooth, height=64, width=64):
    """A white disc on black, with soft borders or with hard ones."""
    big = Image.new("L", (width * 8, height * 8))
    ImageDraw.Draw(big).ellipse((40, 60, 400, 420), fill=255)
    return big.resize((width, height), Image.Resampling.LANCZOS if smooth else Image.Resampling.NEAREST)


def video(path, count=30):
    """Noise, which compresses badly, so that a cut through the file cuts frames."""
    random = np.random.default_rng(0)
    write_video(path, random.integers(0, 256, (count, 32, 48, 3), dtype=np.uint8), fps=25)
    return path


# folders


def test_frames_of_a_folder_come_in_natural_order_with_their_names(tmp_path):
    for number in (10, 2, 1):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    frames = open_frames(tmp_path)
    assert frames.count == 3
    assert [int(f[-1, -1, 0]) for f in frames] == [1, 2, 10]
    assert [frames.name(i) for i in range(3)] == ["1", "2", "10"]
    assert [frames.find(name) for name in ("10", "1", "3")] == [2, 0, None]


def test_a_folder_can_be_read_twice(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "a.png")
    frames = open_frames(str(tmp_path))
    assert len(list(frames)) == len(list(frames)) == 1


def test_hidden_files_and_files_that_are_no_images_are_passed_over(tmp_path):
    for name in ("a.png", ".b.png", "._a.png"):
        Image.fromarray(picture()).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("hello")
    assert [p.name for p in list_images(tmp_path)] == ["a.png"]


def test_an_empty_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="holds no images"):
        open_frames(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path):
    for name in ("a.png", "a.bmp"):
        Image.fromarray(picture()).save(tmp_path / name)
    with pytest.raises(ValueError, match=r"both a\.bmp and a\.png"):
        open_frames(tmp_path)


def test_frames_are_read_one_at_a_time(tmp_path):
    Image.fromarray(picture()).save(tmp_path / "1.png")
    (tmp_path / "2.png").write_bytes(b"not an image")
    frames = iter(open_frames(tmp_path))
    assert next(frames).shape == (32, 48, 3)
    with pytest.raises(ValueError, match=r"2\.png is not an image"):
        next(frames)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_images_of_every_kind_become_rgb(tmp_path, mode):
    path = tmp_path / ("a.tif" if mode == "CMYK" else "a.png")
    Image.new("RGB", (48, 32), "white").convert(mode).save(path)
    frame = read_frame(path)
    assert frame.shape == (32, 48, 3)
    assert frame.dtype == np.uint8
    assert (frame == 255).all()


def test_sixteen_bits_become_eight_without_clipping(tmp_path):
    Image.fromarray(np.linspace(0, 65535, 256).astype(np.uint16)[None]).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png")[0, :, 1], np.arange(256))


def test_thirty_two_bits_are_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="32 bits"):
        read_frame(tmp_path / "a.tif")


def test_what_is_transparent_is_black(tmp_path):
    Image.new("RGBA", (4, 4), (255, 255, 255, 0)).save(tmp_path / "a.png")
    assert not read_frame(tmp_path / "a.png").any()


def test_a_photograph_is_turned_as_the_camera_was_held(tmp_path):
    image = Image.fromarray(picture())
    exif = image.getexif()
    exif[0x0112] = 6  # to be turned by 90 degrees, clockwise
    image.save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_frame(tmp_path / "a.png"), np.rot90(picture(), -1))


@pytest.mark.parametrize("orientation", [1, 3])
def test_pixels_are_a_copy_and_an_upright_picture_is_copied_once(monkeypatch, orientation):
    image, copies = Image.fromarray(picture()), []
    image.getexif()[0x0112] = orientation
    monkeypatch.setattr(
        Image.Image, "copy", lambda self, copy=Image.Image.copy: copies.append(1) or copy(self)
    )
    pixels = pixels_of(image)
    np.testing.assert_array_equal(pixels, np.rot90(picture(), 0 if orientation == 1 else 2))
    assert not copies
    pixels[:] = 7  # writable, and not the picture's own
    np.testing.assert_array_equal(np.asarray(image), picture())


def test_a_truncated_image_is_named(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / "a.png")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:2000])
    with pytest.raises(ValueError, match=r"a\.png is not an image that can be read"):
        read_frame(tmp_path / "a.png")


# other sources


def test_an_iterable_passes_through_unchanged():
    items = [picture(), torch.zeros(3, 4, 4), Image.new("L", (4, 4))]
    frames = open_frames(items)
    assert all(a is b for a, b in zip(frames, items, strict=True))
    assert frames.count == 3
    assert open_frames(iter(items)).count is None
    assert (frames.name(7), frames.find("00007"), frames.find("7")) == ("00007", 7, None)
    assert open_frames(frames) is frames


def test_a_source_that_is_none_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        open_frames(tmp_path / "nothing")
    with pytest.raises(ValueError, match="not float"):
        open_frames(1.5)
    with pytest.raises(ValueError, match="not bool"):
        open_frames(True)
    with pytest.raises(ValueError, match="the path of the frames is empty"):
        open_frames("")
    Image.fromarray(picture()).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="is one image"):
        open_frames(tmp_path / "a.png")


def test_a_video_without_pyav_names_the_extra(tmp_path, without_package):
    (tmp_path / "a.mp4").write_bytes(b"")
    without_package("av")
    for use in (lambda: open_frames(tmp_path / "a.mp4"), lambda: VideoWriter(tmp_path / "b.mp4", 25)):
        with pytest.raises(ImportError, match=r"pip install .*\[video\]"):
            use()


def test_a_camera_that_is_not_there_is_an_error():
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="camera 97 cannot be opened"):
        next(iter(open_frames("camera:97")))


# videos


def test_a_video_that_was_written_reads_back(tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", (picture(8 * i) for i in range(10)), fps=12.5)
    frames = open_frames(tmp_path / "a.mp4")
    assert (frames.count, frames.fps, frames.name(3), frames.find("00003")) == (10, 12.5, "00003", 3)
    for _ in range(2):
        levels = [float(f[20:, 30:].mean()) for f in frames]
        np.testing.assert_allclose(levels, np.arange(10) * 8, atol=4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.mp4"]


def test_odd_sides_get_one_more_pixel(tmp_path):
    pytest.importorskip("av")
    write_video(tmp_path / "a.mp4", [picture(100, 33, 47)], fps=25)
    (frame,) = open_frames(tmp_path / "a.mp4")
    assert frame.shape == (34, 48, 3)
    np.testing.assert_allclose(frame[-1, 30:].astype(float), 100, atol=4)


def test_a_video_that_fails_leaves_nothing_behind(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="began with 32x48"):
        write_video(tmp_path / "a.mp4", [picture(), picture(height=16)], fps=25)
    with pytest.raises(ValueError, match="has no frames"):
        write_video(tmp_path / "a.mp4", [], fps=25)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match=r"not named \.mp4"):
        VideoWriter(tmp_path / "a.avi", 25)


@pytest.mark.parametrize("share", [0.5, 0.97])
def test_a_video_that_is_cut_off_says_how_many_frames_came(tmp_path, share):
    pytest.importorskip("av")
    path = video(tmp_path / "a.mp4")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    came = []
    with pytest.raises(ValueError, match=r"a\.mp4 is damaged or cut off: \d+ of 30 frames") as error:
        came.extend(open_frames(path))
    assert 0 < len(came) < 30
    assert f" {len(came)} of 30" in str(error.value)


def test_a_container_that_ends_early_between_two_frames_is_noticed(tmp_path):
    av = pytest.importorskip("av")
    path = tmp_path / "a.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for frame in np.random.default_rng(0).integers(0, 256, (30, 32, 48, 3), dtype=np.uint8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    assert len(list(open_frames(path))) == 30
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match="cut off"):
        list(open_frames(path))


def test_a_video_without_an_index_or_of_another_kind_is_refused(tmp_path):
    pytest.importorskip("av")
    for content in (b"", b"text, not a video", video(tmp_path / "whole.mp4", 2).read_bytes()[:100]):
        (tmp_path / "a.mp4").write_bytes(content)
        with pytest.raises(ValueError, match=r"a\.mp4 is not a video, or is cut off: no frames"):
            open_frames(tmp_path / "a.mp4")


# masks


@pytest.mark.parametrize("high", [1, 3, 255, 256, 65535])
def test_a_mask_that_was_written_reads_back(tmp_path, high):
    mask = np.zeros((6, 8), np.int32)
    mask[1:3, 2:4], mask[4:, 5:] = 1, high
    write_mask(tmp_path / "a.png", mask)
    read = read_mask(tmp_path / "a.png")
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, mask)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode.startswith("P" if high <= 255 else "I")


@pytest.mark.parametrize("kind", [bool, np.uint8, np.int64])
def test_masks_of_any_integers_are_written_in_the_colours_of_overlays(tmp_path, kind):
    mask = np.eye(6, 8).astype(kind)
    write_mask(tmp_path / "a.png", mask)
    with Image.open(tmp_path / "a.png") as image:
        np.testing.assert_array_equal(np.array(image.convert("RGB")), palette()[mask.astype(int)])


def test_the_palette_of_davis_is_that_of_voc():
    assert davis_palette()[:4].tolist() == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert davis_palette()[[8, 64, 255]].tolist() == [[64, 0, 0], [32, 0, 0], [224, 224, 192]]


@pytest.mark.parametrize("colours", [palette, davis_palette])
def test_masks_in_colours_of_a_known_palette_are_read_as_its_ids(tmp_path, colours):
    assert len(np.unique(colours(), axis=0)) == 256
    ids = np.random.default_rng(0).permutation(256).reshape(16, 16)
    mask = np.kron(ids, np.ones((4, 4), int)).astype(np.int32)
    for name, saved in (("a.png", colours()[mask]), ("b.png", np.dstack([colours()[mask], mask * 0 + 255]))):
        Image.fromarray(saved.astype(np.uint8)).save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), mask)
    write_mask(tmp_path / "c.png", mask, colours())
    np.testing.assert_array_equal(read_mask(tmp_path / "c.png"), mask)


def test_an_id_has_one_colour_in_masks_overlays_and_on_the_page():
    script = (Path(emavos.__file__).parent / "ui/static/state.js").read_text()
    vivid = re.search(r"const vivid = (\[\[.*?\]\])", script, re.DOTALL)[1]
    assert json.loads(vivid) == palette()[1:9].tolist()
    assert [list(colour(id)) for id in (0, 1, 9, 255, 256)] == palette()[[0, 1, 9, 255, 1]].tolist()


@pytest.mark.parametrize("id", [-1, 65536])
def test_an_id_that_a_png_cannot_hold_is_named(tmp_path, id):
    with pytest.raises(ValueError, match=f"id {id} "):
        write_mask(tmp_path / "a.png", np.full((4, 4), id))
    with pytest.raises(ValueError, match="of integers"):
        write_mask(tmp_path / "a.png", np.zeros((4, 4)))
    assert not list(tmp_path.iterdir())


def test_equal_masks_give_equal_files(tmp_path):
    mask = np.arange(64, dtype=np.int32).reshape(8, 8)
    for name in ("a.png", "b.png", "b.png"):  # over another, too
        write_mask(tmp_path / name, mask)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_failing_write_leaves_the_old_file(tmp_path, monkeypatch):
    write_mask(tmp_path / "a.png", np.zeros((4, 4), int))
    before = (tmp_path / "a.png").read_bytes()

    real = Path.write_bytes

    def fail(self, content):
        real(self, content[:4])
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(OSError, match="full"):
        write_mask(tmp_path / "a.png", np.ones((4, 4), int))
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    assert (tmp_path / "a.png").read_bytes() == before


def test_gray_and_black_and_white_masks_hold_their_values(tmp_path):
    hard = disc(smooth=False)
    hard.save(tmp_path / "gray.png")
    hard.convert("1").save(tmp_path / "bits.png")
    assert np.unique(read_mask(tmp_path / "gray.png")).tolist() == [0, 255]
    assert np.unique(read_mask(tmp_path / "bits.png")).tolist() == [0, 1]


def test_an_empty_mask_is_read(tmp_path):
    Image.new("P", (8, 8)).save(tmp_path / "a.png")
    assert not read_mask(tmp_path / "a.png").any()


def test_hundreds_of_true_objects_are_no_blur(tmp_path):
    mask = np.arange(200, dtype=np.int32).reshape(10, 20).repeat(5, 0).repeat(5, 1)
    write_mask(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA"])
def test_an_antialiased_mask_is_refused(tmp_path, mode):
    disc(smooth=True).convert(mode).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png .*looks anti-aliased"):
        read_mask(tmp_path / "a.png")


def test_a_mask_of_colours_is_refused_with_their_number(tmp_path):
    ImageOps.colorize(disc(smooth=False), "black", "orange").save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"RGB mask of 2 colours.*--number-colours"):
        read_mask(tmp_path / "a.png")


def test_a_jpeg_mask_is_refused(tmp_path):
    disc(smooth=False).save(tmp_path / "a.jpg")
    with pytest.raises(ValueError, match="JPEG"):
        read_mask(tmp_path / "a.jpg")


def test_a_mask_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    with pytest.raises(ValueError, match=r"a\.png is not an image"):
        read_mask(tmp_path / "a.png")
    with pytest.raises(FileNotFoundError, match=r"b\.png does not exist"):
        read_mask(tmp_path / "b.png")


def test_a_few_levels_of_smoothing_are_enough_to_be_refused(tmp_path):
    """An ellipse of twice the size, halved: 0, 64, 128, 192 and 255."""
    rows, columns = np.mgrid[-40:40, -60:60] + 0.5
    big = Image.fromarray((((rows / 30) ** 2 + (columns / 50) ** 2 < 1) * 255).astype(np.uint8))
    big.resize((60, 40), Image.Resampling.BOX).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="looks anti-aliased"):
        read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("side", [2, 3])
def test_many_small_objects_are_no_blur(tmp_path, side):
    mask = np.zeros((48, 64), np.int32)
    for i in range(30):
        mask[8 * (i // 6) + 2 :, 10 * (i % 6) + 2 :][:side, :side] = i + 1
    write_mask(tmp_path / "a.png", mask)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


@pytest.mark.parametrize("fps", [0, 1e-4, 1001, -25])
def test_a_rate_that_cannot_be_written_is_refused(tmp_path, fps):
    with pytest.raises(ValueError, match=r"fps is from 0\.01 to 1000"):
        VideoWriter(tmp_path / "a.mp4", fps)


@pytest.mark.parametrize("box", [(20, 10, 60, 40), (21, 10, 60, 40)])
def test_a_box_that_ends_between_two_pixels_is_refused(tmp_path, box):
    """Halved: 128 on its edges and 64 in its corners, and nothing else between black and white."""
    big = Image.new("L", (96, 64))
    ImageDraw.Draw(big).rectangle(box, fill=255)
    big.resize((48, 32), Image.Resampling.BOX).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="looks anti-aliased"):
        read_mask(tmp_path / "a.png")


def test_objects_side_by_side_and_a_void_border_are_no_blur(tmp_path):
    mask = np.zeros((40, 60), np.uint8)
    mask[8:32, 8:52] = 255  # void, as VOC draws it around objects
    mask[10:30, 10:30], mask[10:30, 30:50] = 20, 38
    Image.fromarray(mask).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), mask)


def test_frames_that_the_encoder_does_not_take_are_told_by_their_size(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match=r"a\.mp4 cannot be written as H\.264 with frames of 16x20000"):
        write_video(tmp_path / "a.mp4", [np.zeros((16, 20000, 3), np.uint8)], fps=25)
    assert not list(tmp_path.iterdir())


def test_slivers_of_a_written_mask_are_no_blur(tmp_path):
    """Ids in between, on an edge: what an argmax leaves there, not what smoothing does."""
    mask = np.zeros((100, 160), np.int32)
    mask[20:80, 30:130] = 4
    for i, row in enumerate((30, 40, 50), start=1):
        mask[row, 30] = i
    write_mask(tmp_path / "mask.png", mask)
    assert np.array_equal(read_mask(tmp_path / "mask.png"), mask)


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs /proc, where open files are listed")
def test_a_video_may_be_closed_by_hand_and_leaves_no_file_open(tmp_path):
    pytest.importorskip("av")
    frame = np.zeros((16, 16, 3), np.uint8)
    before = len(os.listdir("/proc/self/fd"))
    with VideoWriter(tmp_path / "a.mp4", 5) as video:
        video.write(frame)
        video.close()
    video = VideoWriter(tmp_path / "b.mp4", 5)
    video.write(frame)
    video.close()
    assert len(os.listdir("/proc/self/fd")) == before
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


@pytest.mark.parametrize(
    ("source", "name"),
    [("rtsp://me:secret@host/live?key=secret", "stream rtsp://host/live"), ("camera:0", "camera 0")],
)
def test_a_live_source_that_breaks_off_is_an_error_with_its_name_and_frames(monkeypatch, source, name):
    av = pytest.importorskip("av")
    from contextlib import nullcontext
    from types import SimpleNamespace

    errors = av.error.TimeoutError(110, "Connection timed out"), OSError(19, "No such device")

    class Container(nullcontext):
        streams = SimpleNamespace(video=[1])

        def decode(self, video):
            yield av.VideoFrame(16, 16, "rgb24")
            raise broken

    monkeypatch.setattr(av, "open", lambda *_, **__: Container())
    for broken in errors:
        frames = iter(open_frames(source))
        assert next(frames).shape == (16, 16, 3)
        with pytest.raises(ValueError, match=f"{name} broke off after 1 frames: {broken.strerror}") as caught:
            next(frames)
        assert "secret" not in str(caught.value)
    Container.streams.video.clear()  # a microphone
    with pytest.raises(ValueError, match=f"{name} has no picture"):
        next(iter(open_frames(source)))


def test_another_file_of_the_same_name_and_size_is_noticed(tmp_path):
    path = tmp_path / "clip.mp4"
    for size in (0, 1, 10_000, 16_384, 40_000, 1_000_000):
        content = bytearray(size)
        path.write_bytes(content)
        before = fingerprint(path)
        assert fingerprint(path) == before
        for place in {0, size // 2, size - 1} if size else ():
            changed = content.copy()
            changed[place] = 1
            path.write_bytes(changed)
            assert fingerprint(path) != before, (size, place)
        path.write_bytes(content + b"0")
        assert fingerprint(path) != before


@pytest.mark.parametrize(
    ("make", "kind", "words"),
    [
        (os.mkfifo if hasattr(os, "mkfifo") else None, ValueError, "is a pipe or a device"),
        (Path.mkdir, ValueError, "is a folder"),
        (lambda path: None, FileNotFoundError, "does not exist"),
    ],
    ids=["a pipe", "a folder", "nothing"],
)
def test_what_is_no_file_has_no_fingerprint_and_is_not_waited_for(tmp_path, make, kind, words):
    if make is None:
        pytest.skip("no pipes in folders here")
    make(tmp_path / "bad.mp4")
    with pytest.raises(kind, match=rf"bad\.mp4 {words}"):
        fingerprint(tmp_path / "bad.mp4")
