"""Mattes, cut-outs, previews and sound: what is written is decoded again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from emavos import Result
from emavos.cli import main
from emavos.io import (
    AnimationWriter,
    InputWarning,
    Sound,
    VideoWriter,
    open_frames,
    read_frame,
    read_mask,
    write_image,
    write_mask,
    write_matte,
)
from emavos.visualize import cut_out

SIZE = (48, 64)


def soft_result():
    """Object 3 fades out to the right; object -5 is a square at the left."""
    prob = torch.zeros(3, *SIZE)
    prob[1] = torch.linspace(1, 0, SIZE[1])
    prob[2, 10:20, :8] = 0.2
    prob[1, 10:20, :8] = 0.8
    prob[0] = 1 - prob[1:].sum(dim=0)
    return Result(0, (3, -5), prob, (0.9, 0.9))


def frame(level=120):
    pixels = np.full((*SIZE, 3), level, np.uint8)
    pixels[:20, :30] = 200, 60, 30
    return pixels


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_matte_at_half_agrees_with_the_mask(count):
    prob = torch.randn(1 + count, *SIZE, generator=torch.Generator().manual_seed(0)).mul(2).softmax(dim=0)
    result = Result(0, tuple(range(1, 1 + count)), prob, (0.9,) * count)
    matte, mask = result.matte(), result.mask
    assert not mask[matte < 0.499].any()  # several objects can beat the background together, and none alone
    for id in result.ids:
        assert (mask[result.matte([id]) > 0.501] == id).all()
    if count == 1:
        clear = abs(matte - 0.5) > 0.001
        np.testing.assert_array_equal((matte > 0.5)[clear], (mask != 0)[clear])


def test_a_matte_is_soft_between_and_flat_beyond_its_edges():
    result = soft_result()
    matte = result.matte()
    assert (matte.dtype, matte.shape) == (np.float32, SIZE)
    assert matte[0, 0] == 1
    assert matte[0, -1] == 0
    assert (np.diff(matte[0]) <= 0).all()
    assert 0.45 < matte[0, 32] < 0.55
    assert result.matte([-5])[12, 4] == pytest.approx((0.2 - 0.05) / 0.9)
    assert not result.matte([-5])[30].any()
    assert not result.matte([]).any()
    with pytest.raises(ValueError, match="object 9 is not tracked in frame 0, but 3, -5"):
        result.matte([9])


@pytest.mark.parametrize("bits", [8, 16])
def test_a_matte_in_a_png_has_its_values(tmp_path, bits):
    matte = soft_result().matte()
    write_matte(tmp_path / "a.png", matte, bits)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == ("L" if bits == 8 else "I;16")
        read = np.array(image) / (2**bits - 1)
    np.testing.assert_allclose(read, matte, atol=0.5 / (2**bits - 1) + 1e-6)


def test_a_cutout_keeps_colours_unmultiplied_and_hides_the_rest(tmp_path):
    result = soft_result()
    cutout = result.cutout(frame())
    alpha = np.rint(result.matte() * 255)
    np.testing.assert_array_equal(cutout[..., 3], alpha)
    np.testing.assert_array_equal(cutout[alpha > 0, :3], frame()[alpha > 0])
    assert not cutout[alpha == 0].any()
    write_image(tmp_path / "a.png", cutout)
    with Image.open(tmp_path / "a.png") as image:
        assert image.mode == "RGBA"
        np.testing.assert_array_equal(np.array(image), cutout)
    with pytest.raises(ValueError, match="matte is 48x64 but frame is 8x9"):
        result.cutout(np.zeros((8, 9, 3), np.uint8))


@pytest.mark.parametrize("size", [SIZE, (45, 61)])
def test_a_mov_has_the_colours_and_the_opacity_that_were_written(tmp_path, size):
    av = pytest.importorskip("av")
    cutout = cut_out(frame(), soft_result().matte())[: size[0], : size[1]]
    with VideoWriter(tmp_path / "a.mov", fps=12.5) as video:
        for _ in range(3):
            video.write(cutout)
    with av.open(str(tmp_path / "a.mov")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_tag, stream.average_rate) == ("prores", "ap4h", 12.5)
        read = [one.to_ndarray(format="rgba") for one in container.decode(video=0)]
    assert [one.shape for one in read] == [cutout.shape] * 3
    assert abs(read[1][..., 3].astype(int) - cutout[..., 3]).max() <= 1
    flat = np.zeros(size, bool)  # two colours, away from all edges
    flat[4:16, 1:4], flat[24:, 1:4] = True, True
    assert (cutout[flat, 3] == 255).all()
    assert abs(read[1][flat].astype(int) - cutout[flat]).max() <= 2


@pytest.mark.parametrize(
    ("name", "written", "words"),
    [
        ("a.mp4", np.zeros((8, 8, 4), np.uint8), r"an mp4 has no transparency; name the file \.mov"),
        ("a.mov", np.zeros((8, 8, 2), np.uint8), "a frame is"),
        ("a.mov", np.zeros((8, 8, 4), np.float32), "a frame is"),
    ],
)
def test_frames_that_a_video_cannot_have_are_refused(tmp_path, name, written, words):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match=words), VideoWriter(tmp_path / name, 5) as video:
        video.write(written)
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize(
    ("matte", "bits"),
    [
        (np.zeros((4, 5), np.uint8), 8),
        (np.zeros((4, 5, 1), np.float32), 8),
        (np.full((4, 5), 1.1), 8),
        (np.full((4, 5), np.nan), 8),
        (np.zeros((4, 5)), 12),
    ],
)
def test_what_is_no_matte_is_refused(tmp_path, matte, bits):
    with pytest.raises(ValueError, match=r"a matte is|bits are"):
        write_matte(tmp_path / "a.png", matte, bits)


def talkie(path, codec="aac", seconds=2, fps=10):
    """A video with a tone that is quiet in its first second."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w") as container:
        picture = container.add_stream("libx264", rate=fps)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        sound = container.add_stream(codec, rate=16000)
        for index in range(seconds * fps):
            container.mux(picture.encode(av.VideoFrame.from_ndarray(frame(index * 5), format="rgb24")))
        for begin in range(0, seconds * 16000, 1024):
            at = np.arange(begin, begin + 1024) / 16000
            wave = np.sin(at * 2 * np.pi * 440) * np.where(at < 1, 800, 16000)
            samples = av.AudioFrame.from_ndarray(wave.astype(np.int16)[None], format="s16", layout="mono")
            samples.sample_rate, samples.pts = 16000, begin
            container.mux(sound.encode(samples))
        container.mux(picture.encode())
        container.mux(sound.encode())
    return path


def heard(path):
    """The samples of a video in [-1, 1], at 16 kHz."""
    import av

    with av.open(str(path)) as container:
        assert container.streams.audio, "no sound"
        return np.concatenate([one.to_ndarray()[0] for one in container.decode(audio=0)])


def copied(frames, path):
    with VideoWriter(path, frames.fps, frames.sound) as video:
        for one in frames:
            video.write(one)


def test_a_video_keeps_the_sound_of_its_source(tmp_path):
    frames = open_frames(talkie(tmp_path / "a.mp4"))
    assert frames.sound == Sound(tmp_path / "a.mp4")
    copied(frames, tmp_path / "b.mp4")
    samples = heard(tmp_path / "b.mp4")
    assert abs(len(samples) / 16000 - 2) < 0.15
    np.testing.assert_array_equal(
        samples[1024:20000], heard(tmp_path / "a.mp4")[1024:20000]
    )  # but the packet before 0
    assert open_frames(tmp_path / "b.mp4").count == 20


def test_a_part_of_a_video_has_the_sound_of_that_part(tmp_path):
    talkie(tmp_path / "a.mp4")
    frames = open_frames(tmp_path / "a.mp4", start=10, stop=16, step=2)
    assert (frames.sound.begin, frames.sound.end) == (1.0, 1.6)
    copied(frames, tmp_path / "b.mp4")
    samples = heard(tmp_path / "b.mp4")
    assert abs(len(samples) / 16000 - 0.6) < 0.15
    assert samples[3000:6000].std() > 0.2  # the loud part


def test_sound_that_a_file_cannot_have_is_left_out_and_told(tmp_path):
    talkie(tmp_path / "a.mkv", "pcm_s16le")
    frames = open_frames(tmp_path / "a.mkv")
    with pytest.warns(InputWarning, match=r"b\.mp4 has no sound: pcm_s16le cannot be copied"):
        copied(frames, tmp_path / "b.mp4")
    assert open_frames(tmp_path / "b.mp4").count == 20


def test_the_last_packet_of_sound_is_played_even_if_its_length_is_unknown(tmp_path):
    av = pytest.importorskip("av")
    frames = open_frames(talkie(tmp_path / "a.mkv", "alac"))
    copied(frames, tmp_path / "b.mp4")
    counts = []
    for name in ("a.mkv", "b.mp4"):
        with av.open(str(tmp_path / name)) as container:
            counts.append(sum(1 for packet in container.demux(audio=0) if packet.size))
    assert counts[0] == counts[1] > 3


@pytest.mark.parametrize("kind", ["gif", "webp"])
def test_a_preview_is_small_and_plays_at_the_speed_of_its_video(tmp_path, kind):
    with AnimationWriter(tmp_path / f"a.{kind}", fps=50, longest=32) as preview:
        for index in range(40):
            preview.write(frame(4 * index))
    with Image.open(tmp_path / f"a.{kind}") as image:
        assert image.size == (32, 24)
        shown = 0
        for place in range(image.n_frames):
            image.seek(place)
            image.load()
            shown += image.info["duration"]
        assert shown == 800
        last = np.array(image.convert("RGB"))[-1, -1]
        assert abs(last.astype(int) - 4 * 36).max() < 8  # no other frame that is shown is as near
        assert image.info["loop"] == 0


def test_a_small_object_keeps_its_colour_in_a_gif(tmp_path):
    generator = np.random.default_rng(0)
    sea = generator.integers((0, 90, 90), (60, 150, 150), (120, 160, 3)).astype(np.uint8)
    sea[60:66, 80:92] = 38, 156, 255
    with AnimationWriter(tmp_path / "a.gif", 5) as preview:
        preview.write(sea)
    with Image.open(tmp_path / "a.gif") as image:
        shown = np.array(image.convert("RGB")).astype(int)
    assert abs(shown[60:66, 80:92] - (38, 156, 255)).max() < 20
    assert abs(shown - sea).mean() < 8


def test_a_long_preview_is_thinned_out(tmp_path, monkeypatch):
    monkeypatch.setattr("emavos.io.animation._MOST_FRAMES", 8)
    with AnimationWriter(tmp_path / "a.gif", fps=10) as preview:
        for index in range(30):
            preview.write(frame(8 * index))
    with Image.open(tmp_path / "a.gif") as image:
        assert image.n_frames == 8
        assert image.info["duration"] == 400


def test_a_preview_that_fails_leaves_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"not named \.gif or \.webp"):
        AnimationWriter(tmp_path / "a.png", 5)
    with pytest.raises(ValueError, match="has no frames"), AnimationWriter(tmp_path / "a.gif", 5):
        pass
    with AnimationWriter(tmp_path / "a.gif", 5) as preview:
        preview.write(frame())
        with pytest.raises(ValueError, match="began with 48x64"):
            preview.write(frame()[:20])
    (tmp_path / "a.gif").unlink()
    assert not [*tmp_path.iterdir()]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0).integers(90, 130, (*SIZE, 3), dtype=np.uint8)
    (tmp_path / "clip").mkdir()
    for index in range(3):
        shown = random.copy()
        shown[10:34, 6 + 2 * index : 30 + 2 * index] = 220, 60, 40
        shown[30:, 44:] = 20, 40, 230
        Image.fromarray(shown).save(f"clip/{index}.png")
    mask = np.zeros(SIZE, np.int32)
    mask[10:34, 6:30], mask[30:, 44:] = 7, 2
    write_mask("first.png", mask)
    return tmp_path


def segment(*more):
    options = ("--mask", "first.png", "--out", "out", "--size", "0", "--quiet", "--device", "cpu")
    return main(["segment", "clip", *options, *more])


def pictures(folder):
    """The PNGs of a folder by the order of their names, as arrays."""
    return [np.array(Image.open(path)) for path in sorted(Path(folder).iterdir())]


def test_segment_writes_mattes_cutouts_and_a_preview(here):
    assert segment("--matte", "m", "--matte-bits", "16", "--cutout", "c", "--overlay", "o.webp") == 0
    for index, (matte, cutout) in enumerate(zip(pictures("m"), pictures("c"), strict=True)):
        mask = read_mask(f"out/{index}.png")
        assert (matte.dtype, mask.any()) == (np.uint16, True)
        np.testing.assert_allclose(cutout[..., 3] / 255, matte / 65535, atol=0.6 / 255)
        assert not mask[matte < 32700].any()
        shown = cutout[..., 3] > 0
        np.testing.assert_array_equal(cutout[shown, :3], read_frame(f"clip/{index}.png")[shown])
        assert not cutout[~shown].any()
    with Image.open("o.webp") as image:
        assert image.n_frames == 2  # of 25 a second, every other one


def test_the_matte_of_the_only_object_is_its_mask_with_soft_edges(here):
    write_mask("first.png", np.where(read_mask("first.png") == 7, 7, 0))
    assert segment("--matte", "m", "--matte-bits", "16") == 0
    for index, matte in enumerate(pictures("m")):
        clear = abs(matte / 65535 - 0.5) > 0.001
        np.testing.assert_array_equal(
            (matte / 65535 > 0.5)[clear], (read_mask(f"out/{index}.png") == 7)[clear]
        )


def test_videos_for_editors_show_what_the_pngs_do(here):
    av = pytest.importorskip("av")
    options = ("--matte-of", "2", "--clean", "4", "--force")
    assert segment("--matte", "m", "--cutout", "c", *options) == 0
    assert segment("--matte", "m.mp4", "--cutout", "c.mov", *options) == 0
    with av.open("c.mov") as container:
        read = [one.to_ndarray(format="rgba") for one in container.decode(video=0)]
    mattes, cutouts, shown = pictures("m"), pictures("c"), [*open_frames("m.mp4")]
    assert len(mattes) == len(cutouts) == len(shown) == len(read) == 3
    for index in range(3):
        mask = read_mask(f"out/{index}.png")
        assert (mask[mattes[index] > 128] == 2).all()
        clear = abs(mattes[index].astype(int) - 128) > 64  # H.264 blurs the edges
        np.testing.assert_array_equal((shown[index][..., 1] > 128)[clear], (mattes[index] > 128)[clear])
        assert abs(read[index][..., 3].astype(int) - cutouts[index][..., 3]).max() <= 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--matte", "m.avi"), "--matte m.avi is written as .mp4, .mov, or as a folder of PNGs"),
        (("--cutout", "c.mp4"), "--cutout c.mp4 is written as .mov, or as a folder of PNGs"),
        (("--overlay", "o.mp5"), "whose name has no ending such as .mp5 unless it exists"),
        (("--overlay", "o.mov"), "--overlay o.mov is written as .mp4, .gif, .webp, or as"),
        (("--matte", "m", "--cutout", "m"), "--cutout m is also --matte"),
        (("--matte", "clip"), "--matte clip is also the video"),
        (("--matte-of", "2"), "--matte-of changes nothing"),
        (("--matte", "m.mp4", "--matte-bits", "16"), "--matte-bits changes nothing"),
        (("--matte", "m", "--matte-of", "9"), "--matte-of 9 is not an object; the masks have 2, 7"),
    ],
)
def test_mattes_that_cannot_be_written_are_refused_and_nothing_is(here, capsys, options, words):
    assert segment(*options) == 1
    assert words in capsys.readouterr().err
    assert sorted(path.name for path in here.iterdir()) == ["clip", "first.png"]
