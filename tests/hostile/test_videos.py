"""Videos that are damaged, made to harm or unusual, as the table of docs/input.md lists them."""

from __future__ import annotations

import os
import struct
import subprocess
import sys
import zlib
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emavos.cli import main
from emavos.io import InputWarning, open_frames, read_frame, video, video_writer, write_mask, write_video
from emavos.io.images import pixels_of

av = pytest.importorskip("av")

PAGE = Path(__file__).parents[2] / "docs" / "input.md"
NOISE = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)


def lossless(path, frames, pix_fmt="bgr0", form="matroska", times=None):
    """A video of ffv1, whatever its name, whose frames are shown at these milliseconds."""
    with av.open(str(path), "w", format=form) as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            form = "rgb24" if pixels.dtype == np.uint8 else pix_fmt
            picture = av.VideoFrame.from_ndarray(pixels, format=form)
            picture.pts, picture.time_base = 40 * i if times is None else times[i], Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())


def cut(path):
    write_video(path, NOISE, fps=25)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def playlist(path):
    path.write_text(f"ffconcat version 1.0\nfile {path.parent / 'other.mp4'}\n")


def sound(path):
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        samples.rate = 8000
        container.mux(stream.encode(samples))
        container.mux(stream.encode())


def song(path):
    """Sound with a cover picture, as m4a."""
    with av.open(str(path), "w", format="mp4") as container:
        sound = container.add_stream("aac", rate=44100, layout="mono")
        cover = container.add_stream("mjpeg", rate=25)
        cover.width, cover.height, cover.pix_fmt = 48, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        container.mux(cover.encode(av.VideoFrame.from_ndarray(NOISE[0], format="rgb24")))
        container.mux(cover.encode())
        for _ in range(4):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            samples.rate = 44100
            container.mux(sound.encode(samples))
        container.mux(sound.encode())


def empty(path):
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "bgr0"
        container.start_encoding()


def two_sizes(path):
    """Two streams of H.264, one behind the other."""
    whole = b""
    for frames in (NOISE[:5], NOISE[:5, :, :32]):
        part = path.with_suffix(".h264")
        with av.open(str(part), "w", format="h264") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        whole += part.read_bytes()
        part.unlink()
    path.write_bytes(whole)


def raw(path, side=60000):
    path.write_bytes(b"YUV4MPEG2 W%d H%d F25:1\nFRAME\n" % (side, side) + bytes(99))


def gif(path, side=60000):
    head = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
    path.write_bytes(head + b"," + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x02\x02\x44\x01\x00;")


def pngs(path, side=60000):
    """Frames that declare so much in a container that declares 32x48."""
    with av.open(str(path), "w", format="mov") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "rgb24"
        for pixels in NOISE:
            for packet in stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")):
                content = bytearray(packet)
                struct.pack_into(">II", content, 16, side, side)
                struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
                changed = av.Packet(bytes(content))
                changed.stream, changed.pts, changed.dts = stream, packet.pts, packet.dts
                changed.time_base = packet.time_base
                container.mux(changed)


def beyond(path):
    """An MP4 that lists the times of 2^31 - 1 frames, more than FFmpeg takes memory for."""
    write_video(path, NOISE[:4], fps=25)
    content = path.read_bytes()
    place = content.index(b"stts") + 8
    path.write_bytes(content[:place] + b"\x7f\xff\xff\xff" + content[place + 4 :])


REFUSED = {  # the case as the page tells it: what makes it, and words of the message
    "an empty video": (Path.touch, "is not a video"),
    "text under the name of a video": (lambda p: p.write_text("text"), "is not a video"),
    "a video cut in the middle": (cut, r"is damaged or cut off: \d+ of 12 frames could be read"),
    "a list of other files under the name of a video": (playlist, "is not a video"),
    "a video of sound alone": (sound, "is not a video: it has only audio"),
    "a song with a cover picture": (song, "is not a video: it has only a picture, audio"),
    "a video without a frame": (empty, "no frames could be read"),
    "a video whose size changes midway": (
        two_sizes,
        r"changes its size: frame 5 is 32x32 but it began with 32x48",
    ),
    "a video that declares 60000x60000": (raw, "is not a video"),
    "a GIF that declares 60000x60000": (gif, "frames declare more than 134217728 pixels"),
    "a video that declares 2^31 frames": (beyond, "is damaged: it declares more than FFmpeg can read"),
    "a video whose frames declare 60000x60000": (pngs, "frames declare more than 134217728 pixels"),
    "a pipe or a device as a video": (os.mkfifo, "a pipe or a device"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_video_that_cannot_be_is_refused_by_name(tmp_path, case):
    make, words = REFUSED[case]
    make(tmp_path / "bad.mp4")
    with pytest.raises(ValueError, match=rf"bad\.mp4.*{words}"):
        list(open_frames(tmp_path / "bad.mp4"))


@pytest.mark.parametrize("case", REFUSED)
def test_a_video_that_cannot_be_leaves_no_mask(tmp_path, capsys, case):
    make, _ = REFUSED[case]
    make(tmp_path / "bad.mp4")
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24] = 1
    write_mask(tmp_path / "first.png", mask)
    before = {*tmp_path.iterdir()}
    argv = ["segment", f"{tmp_path}/bad.mp4", "--mask", f"{tmp_path}/first.png", "--out", f"{tmp_path}/out"]
    assert main([*argv, "--overlay", f"{tmp_path}/overlay.mp4", "--size", "32", "--quiet"]) == 1
    output, error = capsys.readouterr()
    assert error.startswith("emavos: error: ")
    assert "bad.mp4" in error
    assert error.count("\n") == 1
    assert output == ""
    assert {*tmp_path.iterdir()} == before


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
@pytest.mark.parametrize("side", [60000, 14000])  # the latter FFmpeg would take
def test_videos_that_declare_much_do_not_ask_for_much(tmp_path, side):
    for make in (raw, gif, pngs):
        make(tmp_path / f"{make.__name__}.mp4", side)
    code = """
import errno, resource, sys
import av
from emavos.io import open_frames
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (512 << 20),) * 2)
for path in sys.argv[1:]:
    try:
        list(open_frames(path))
    except ValueError as error:  # which comes before the limit does
        print(path in str(error) and getattr(error.__cause__, "errno", 0) != errno.ENOMEM)
"""
    paths = sorted(map(str, tmp_path.iterdir()))
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=300)
    assert done.stdout == 3 * "True\n", done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is in other units elsewhere")
def test_a_large_gif_takes_little_more_than_its_frames(tmp_path):
    """FFmpeg needs 8 bytes for each pixel, two frames 6; another 12 are copies."""
    for side in (16, 4000):
        picture = Image.new("P", (side, side), 1)
        picture.putpalette([0, 0, 0, 200, 100, 50])
        picture.save(tmp_path / f"{side}.gif", save_all=True, append_images=[picture.point(lambda _: 0)])
    code = """
import sys
from resource import RUSAGE_SELF, getrusage
from emavos.io import open_frames
for path in sys.argv[1:]:
    before = getrusage(RUSAGE_SELF).ru_maxrss
    count = sum(1 for _ in open_frames(path))
print(count, (getrusage(RUSAGE_SELF).ru_maxrss - before) * 1024 < 20 * 4000**2)
"""
    paths = [str(tmp_path / f"{side}.gif") for side in (16, 4000)]
    done = subprocess.run([sys.executable, "-c", code, *paths], capture_output=True, text=True, timeout=300)
    assert done.stdout == "2 True\n", done.stderr


@pytest.mark.parametrize("kind", ["rgba", "bgra", "argb", "yuva420p", "rgba64le", "ya8"])
@pytest.mark.parametrize("shape", [(33, 47), (1, 1), (1, 300), (300, 1)])
def test_a_transparent_frame_is_blended_in_bands_as_in_one_piece(monkeypatch, kind, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 4), dtype=np.uint8)
    frame = av.VideoFrame.from_ndarray(pixels, format="rgba").reformat(format=kind)
    whole = pixels_of(Image.fromarray(frame.to_ndarray(format="rgba")))
    for band in (1, 100, 500, 1 << 20):
        monkeypatch.setattr(video, "_BAND", band)
        assert np.array_equal(video._upright(frame), whole)


def test_frames_of_unequal_length_count_once_each(tmp_path):
    times = [0, 40, 50, 500, 520, 2000]
    for form, fps in (("mp4", 6 / 2.04), ("matroska", 5 / 2)):
        lossless(tmp_path / "a.mp4", NOISE[:6], form=form, times=times)
        frames = open_frames(tmp_path / "a.mp4")
        assert np.array_equal(list(frames), NOISE[:6])
        assert frames.fps == pytest.approx(fps, rel=0.25)


@pytest.mark.parametrize("form", ["matroska", "flv", "mpegts", "mp4", "fragmented"])
@pytest.mark.parametrize("rate", [1000, 25])
def test_the_frame_rate_is_the_mean_and_not_what_a_recording_declares(tmp_path, form, rate):
    times = np.cumsum(np.random.default_rng(1).integers(20, 120, 40)).tolist()
    codec = "flv1" if form == "flv" else "mpeg4"
    options = {"movflags": "frag_keyframe+empty_moov"} if form == "fragmented" else {}
    kind = "mp4" if form == "fragmented" else form
    with av.open(f"{tmp_path}/a.mp4", "w", format=kind, options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time in enumerate(times):
            picture = av.VideoFrame.from_ndarray(NOISE[i % 12], format="rgb24")
            picture.pts, picture.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
    frames = open_frames(tmp_path / "a.mp4")
    assert frames.fps == pytest.approx(39e3 / (times[-1] - times[0]), rel=0.03)
    half = open_frames(tmp_path / "a.mp4", step=2)
    assert half.fps == frames.fps / 2


@pytest.mark.parametrize("options", [{"step": 2}, {"start": 3, "stop": 9}, {"on_damage": "skip"}])
def test_a_part_of_a_video_is_opened_without_a_question_for_its_rate(tmp_path, monkeypatch, options):
    """The rate of many videos is found by reading the file, and only who writes a video needs it."""
    lossless(tmp_path / "a.mkv", NOISE)
    asked = []
    monkeypatch.setattr(video.VideoSource, "fps", property(lambda self: asked.append(self) or 25.0))
    frames = open_frames(tmp_path / "a.mkv", **options)
    assert sum(1 for _ in frames) == (12 if "on_damage" in options else 6)
    assert not asked
    assert frames.fps == 25 / options.get("step", 1)
    assert asked


@pytest.mark.parametrize("form", ["matroska", "mpegts", "mp4"])
def test_a_constant_frame_rate_is_exactly_what_the_container_declares(tmp_path, form):
    with av.open(f"{tmp_path}/a.mp4", "w", format=form) as container:
        stream = container.add_stream("mpeg4", rate=Fraction(24000, 1001))
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in NOISE[np.arange(200) % 12]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    assert open_frames(tmp_path / "a.mp4").fps == 24000 / 1001


@pytest.mark.parametrize("begins", [0, 3600])
def test_the_frame_rate_of_joined_files_is_that_of_their_pieces(tmp_path, begins):
    for name, first in ("a", 0), ("b", begins):
        with av.open(f"{tmp_path}/{name}.ts", "w") as container:
            stream = container.add_stream("mpeg4", rate=25, options={"bf": "2"})
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for i in range(60):
                picture = av.VideoFrame.from_ndarray(NOISE[i % 12], format="rgb24")
                picture.pts, picture.time_base = 25 * first + i, Fraction(1, 25)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    one, two = ((tmp_path / name).read_bytes() for name in ("a.ts", "b.ts"))
    (tmp_path / "joined.ts").write_bytes(one + two + two)
    frames = open_frames(tmp_path / "joined.ts")
    assert frames.fps == pytest.approx(25, rel=0.01)
    assert sum(1 for _ in frames) == 180


def test_a_video_is_turned_as_its_container_says(tmp_path):
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:10, :20, 0] = 255
    write_video(tmp_path / "a.mp4", [picture], fps=25)
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    matrix = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8  # past version and flags, times and ids, layers
    assert struct.unpack_from(">9i", content, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", content, matrix, 0, 65536, 0, -65536, 0, 0, 32 << 16, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    (frame,) = open_frames(tmp_path / "a.mp4")
    assert frame.shape == (48, 32, 3)
    assert frame[5, -5, 0] > 200  # the red corner is on the right now
    assert frame[5, 5, 0] < 50


@pytest.mark.parametrize("shape", [(33, 47), (1, 1), (1, 48)])
def test_a_video_of_odd_sides_keeps_them(tmp_path, shape):
    frames = np.resize(NOISE, (2, *shape, 3))
    lossless(tmp_path / "a.mp4", frames)
    assert np.array_equal(list(open_frames(tmp_path / "a.mp4")), frames)


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square_stay_so_in_what_is_written(tmp_path, turned):
    with av.open(f"{tmp_path}/a.mp4", "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        for pixels in NOISE[:3]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    if turned:
        matrix = content.find(b"tkhd") + 4 + 4 + 20 + 8 + 8
        struct.pack_into(">9i", content, matrix, 0, 65536, 0, -65536, 0, 0, 32 << 16, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content)
    frames = open_frames(tmp_path / "a.mp4", start=1)
    aspect = Fraction(3, 4) if turned else Fraction(4, 3)
    assert frames.pixel_aspect == aspect
    mask = np.zeros(frames.size(), np.uint8)
    mask[8:20, 8:20] = 1
    write_mask(tmp_path / "first.png", mask)
    written = [f"{tmp_path}/{name}" for name in ("overlay.mp4", "matte.mov", "cutout.mov")]
    argv = ["segment", f"{tmp_path}/a.mp4", "--mask", f"{tmp_path}/first.png", "--out", f"{tmp_path}/out"]
    options = [
        x
        for kind, name in zip(("overlay", "matte", "cutout"), written, strict=True)
        for x in (f"--{kind}", name)
    ]
    assert main([*argv, *options, "--size", "32", "--quiet"]) == 0
    assert [open_frames(name).pixel_aspect for name in written] == 3 * [aspect]
    write_video(tmp_path / "square.mp4", NOISE[:2], fps=25)
    assert open_frames(tmp_path / "square.mp4").pixel_aspect is None


@pytest.mark.parametrize("aspect", [(1, 300), (300, 1)])
def test_a_video_that_declares_pixels_as_lines_is_written_with_square_ones(tmp_path, aspect):
    with video_writer.VideoWriter(tmp_path / "a.mov", 25, pixel_aspect=Fraction(4, 3)) as writer:
        for frame in NOISE[:3]:
            writer.write(frame)
    content = bytearray((tmp_path / "a.mov").read_bytes())
    struct.pack_into(">II", content, content.find(b"pasp") + 4, *aspect)
    (tmp_path / "a.mov").write_bytes(content)
    with av.open(f"{tmp_path}/a.mov") as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(*aspect)
    frames = open_frames(tmp_path / "a.mov")
    assert frames.pixel_aspect is None
    with video_writer.VideoWriter(tmp_path / "b.mp4", 25, pixel_aspect=frames.pixel_aspect) as writer:
        for frame in frames:
            writer.write(frame)
    assert open_frames(tmp_path / "b.mp4").pixel_aspect is None


@pytest.mark.parametrize("aspect", [0, -1, 1000, float("nan")])
def test_a_pixel_aspect_that_no_pixel_has_is_refused(tmp_path, aspect):
    with pytest.raises(ValueError, match=r"pixel_aspect is from 0\.01 to 100, not"):
        video_writer.VideoWriter(tmp_path / "a.mp4", 25, pixel_aspect=aspect)


def test_ten_bits_become_eight(tmp_path):
    levels = np.arange(1024, dtype=np.uint16).reshape(32, 32, 1).repeat(3, axis=2)
    lossless(tmp_path / "a.mp4", [levels], pix_fmt="gbrp10le")
    (frame,) = open_frames(tmp_path / "a.mp4")
    np.testing.assert_allclose(frame.astype(float), levels / 4, atol=1)  # dithered


ODD = (
    "a video with a damaged frame",
    "a video of several streams",
    "a video with alpha",
    "a video that does not begin at 0",
    "a video whose duration is too long",
    "a video whose count of frames is too small",
    "a video whose tags are not UTF-8",
    "a video of an unknown codec",
    "a video of frames of unequal length",
    "a video that its container turns",
    "a video of odd sides",
    "a video whose pixels are not square",
    "a video of 10 bits",
)


@pytest.mark.parametrize("case", [*REFUSED, *ODD])
def test_the_page_tells_of_each_video(case):
    assert f"| {case} |" in PAGE.read_text()


@pytest.mark.parametrize("codec", ["libvpx", "libvpx-vp9"])
@pytest.mark.parametrize("on_damage", ["stop", "hold"])
def test_a_transparent_webm_is_shown_like_a_transparent_png(tmp_path, codec, on_damage):
    picture = np.full((32, 48, 4), (200, 100, 50, 255), np.uint8)
    picture[:, :24, 3] = 128
    with av.open(str(tmp_path / "a.webm"), "w") as container:
        stream = container.add_stream(codec, rate=25, options={"auto-alt-ref": "0"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuva420p"
        for number in range(12):
            frame = av.VideoFrame.from_ndarray(picture, format="rgba").reformat(format="yuva420p")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    Image.fromarray(picture).save(tmp_path / "a.png")
    shown = read_frame(tmp_path / "a.png").astype(int)
    frames = [*open_frames(tmp_path / "a.webm", on_damage=on_damage)]
    assert len(frames) == 12
    assert max(np.abs(frame - shown).max() for frame in frames) < 8


def test_transparency_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    test_a_transparent_webm_is_shown_like_a_transparent_png(tmp_path, "libvpx-vp9", "stop")
    monkeypatch.setattr("emavos.io.video._WITH_ALPHA", {"vp9": "no-such-decoder"})
    with pytest.warns(InputWarning, match=r"a\.webm: this PyAV cannot read its transparency"):
        assert len([*open_frames(tmp_path / "a.webm")]) == 12
