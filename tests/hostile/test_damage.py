"""Videos that were cut, are damaged in the middle, or say of themselves what is not so."""

from __future__ import annotations

import gc
import io
import itertools
import json
import re
import struct
import warnings
import zlib
from fractions import Fraction

import numpy as np
import pytest
from PIL import Image

from emavos import Predictor
from emavos.cli import main, resuming
from emavos.cli.written import Written
from emavos.io import InputWarning, open_frames, read_frame, write_mask, write_video
from emavos.io.containers import gaps_in_ts

av = pytest.importorskip("av")

NOISE = np.random.default_rng(0).integers(0, 256, (12, 32, 48, 3), dtype=np.uint8)
KINDS = {  # FFmpeg's container, codec and pixels
    "gif": ("gif", "gif", "rgb8"),
    "ts": ("mpegts", "mpeg2video", "yuv420p"),
    "wmv": ("asf", "wmv2", "yuv420p"),
    "nut": ("nut", "mpeg4", "yuv420p"),
    "y4m": ("yuv4mpegpipe", "wrapped_avframe", "yuv420p"),
    "mjpeg": ("mjpeg", "mjpeg", "yuvj420p"),
    "mkv": ("matroska", "mpeg4", "yuv420p"),
    "avi": ("avi", "mpeg4", "yuv420p"),
    "flv": ("flv", "flv", "yuv420p"),
    "mp4": ("mp4", "mpeg4", "yuv420p"),
    "m2v": ("mpeg2video", "mpeg2video", "yuv420p"),
    "mpg": ("mpeg", "mpeg1video", "yuv420p"),
    "webm": ("webm", "libvpx-vp9", "yuv420p"),
    "ivf": ("ivf", "libvpx", "yuv420p"),
    "apng": ("apng", "apng", "rgb24"),
    "mxf": ("mxf", "mpeg2video", "yuv420p"),
}
RAW = ("m2v", "mpg")  # say nowhere where they end
LOOSE = ("m2v", "mjpeg", "nut", "wmv")  # a hole in these does not always show


def encode(path, codec, pixels, form=None, frames=NOISE, begin=0, options=None, container_options=None):
    place = path if isinstance(path, Pipe) else str(path)
    with av.open(place, "w", format=form, options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=25, options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixels
        for i, picture in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
            frame.pts = begin + i
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("kind", KINDS)
def test_a_video_that_is_whole_is_read_and_one_that_was_cut_is_refused_or_told(tmp_path, kind):
    form, codec, pixels = KINDS[kind]
    encode(tmp_path / f"a.{kind}", codec, pixels, form)
    content = (tmp_path / f"a.{kind}").read_bytes()
    for part in (1.0, 0.9, 0.7, 0.5):
        (tmp_path / f"b.{kind}").write_bytes(content[: int(part * len(content))])
        count, notes = outcome(tmp_path / f"b.{kind}")
        if part == 1:
            assert count == 12
        else:
            assert kind in RAW or f"b.{kind} is " in str(count)
        assert bool(notes) == (kind in RAW and isinstance(count, int))


def outcome(path):
    """The number of frames that are read, or the error, and the notes."""
    with warnings.catch_warnings(record=True) as notes:
        warnings.simplefilter("always")
        try:
            count: int | str = sum(1 for _ in open_frames(path))
        except ValueError as error:
            count = str(error)
    return count, [str(note.message) for note in notes]


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in LOOSE])
def test_a_hole_in_a_file_takes_no_frame_in_silence(tmp_path, kind):
    form, codec, pixels = KINDS[kind]
    encode(tmp_path / f"a.{kind}", codec, pixels, form)
    content = (tmp_path / f"a.{kind}").read_bytes()
    for part in (0.3, 0.5, 0.7):
        for lost in (bytes(4096), b""):
            place = int(part * len(content))
            (tmp_path / f"b.{kind}").write_bytes(content[:place] + lost + content[place + 4096 :])
            count, notes = outcome(tmp_path / f"b.{kind}")
            assert count == 12 or notes or f"b.{kind} is " in str(count)


def test_a_hole_over_the_beginning_of_a_packet_of_a_wmv_is_refused(tmp_path):
    encode(tmp_path / "a.wmv", "wmv2", "yuv420p", "asf")
    content = (tmp_path / "a.wmv").read_bytes()
    packets = content.index(bytes.fromhex("3626b2758e66cf11a6d900aa0062ce6c")) + 50
    for packet in (1, 2):
        place = packets + 3200 * packet - 100
        (tmp_path / "b.wmv").write_bytes(content[:place] + bytes(200) + content[place + 200 :])
        assert "has a damaged part" in str(outcome(tmp_path / "b.wmv")[0])


@pytest.mark.parametrize("kind", ["flv", "mxf", "mpg"])
@pytest.mark.parametrize(
    "rest", [b"TAG" + b"x" * 125, b"\n", b"\r\n<!-- uploaded -->", b"https://", bytes(range(256)) * 16]
)
def test_bytes_after_the_end_of_a_file_that_says_where_it_ends_are_no_damage(tmp_path, kind, rest):
    form, codec, pixels = KINDS[kind]
    path = tmp_path / f"a.{kind}"
    encode(path, codec, pixels, form)
    if kind == "mpg":  # FFmpeg does not write the mark of the end
        path.write_bytes(path.read_bytes() + b"\0\0\1\xb9")
    content = path.read_bytes()
    path.write_bytes(content + rest)
    assert outcome(path) == (12, [])
    for part in (0.9, 0.7, 0.5):
        path.write_bytes(content[: int(part * len(content))] + rest)
        assert f"a.{kind} is " in str(outcome(path)[0])


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
@pytest.mark.parametrize("form", [188, 192])
def test_lost_packets_of_a_transport_stream_are_noted_and_joined_files_are_not(tmp_path, form, codec):
    """FFmpeg compares the numbers of packets, but does not say so of the frames."""
    encode(tmp_path / "a.ts", codec, "yuv420p", "mpegts", NOISE.repeat(4, axis=0)[:, :16, :16])
    content = (tmp_path / "a.ts").read_bytes()
    packets = [bytes(form - 188) + content[at : at + 188] for at in range(0, len(content), 188)]
    for times in (1, 2):
        (tmp_path / "b.ts").write_bytes(times * b"".join(packets))
        assert outcome(tmp_path / "b.ts") == (times * 48, [])
    for place, lost in itertools.product(range(20, len(packets) - 20, 7), (1, 7)):
        rest = packets[place + lost :]
        flags = next(
            head[5] if head[3] & 32 else 0 for head in (p[form - 188 :] for p in rest) if head[1] & 31 == 1
        )
        if packets[place][form - 187] & 31 != 1 or flags & 64:
            continue  # of a table, or before a key frame, as between files that were joined
        (tmp_path / "b.ts").write_bytes(b"".join(packets[:place] + rest))
        count, notes = outcome(tmp_path / "b.ts")
        assert "b.ts is " in str(count) or "packets are missing at one place" in notes[0]


@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_joined_films_with_pauses_of_their_own_are_whole(tmp_path, codec):
    """A pause counts as lost frames only if packets are missing there, not elsewhere in the file."""
    for name, count in ("a", 47), ("b", 50):  # so that the numbers of the packets jump where they are joined
        with av.open(f"{tmp_path}/{name}.ts", "w") as container:
            stream = container.add_stream(codec, rate=25, options={"g": "12", "bf": "2"})
            stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
            for i in range(count):
                picture = av.VideoFrame.from_ndarray(NOISE[i % len(NOISE)], format="rgb24")
                picture.pts, picture.time_base = i + 9 * (i > 20) + 4 * (i > 24), Fraction(1, 25)
                container.mux(stream.encode(picture))
            container.mux(stream.encode())
    one, two = ((tmp_path / name).read_bytes() for name in ("a.ts", "b.ts"))
    (tmp_path / "joined.ts").write_bytes(one + two + one)
    with av.open(f"{tmp_path}/a.ts") as container:
        stream_id = container.streams.video[0].id
    assert gaps_in_ts(tmp_path / "joined.ts", stream_id)
    assert outcome(tmp_path / "joined.ts") == (144, [])


@pytest.mark.parametrize("on_damage", ["stop", "hold", "skip"])
@pytest.mark.parametrize("codec", ["mpeg2video", "libx264"])
def test_frames_that_were_lost_before_a_key_frame_are_noticed_by_their_times(tmp_path, codec, on_damage):
    """The decoder begins anew at a key frame, and all later masks would belong to other frames."""
    encode(
        tmp_path / "a.ts",
        codec,
        "yuv420p",
        "mpegts",
        NOISE.repeat(4, axis=0)[:, :16, :16],
        options={"g": "6"},
    )
    content = (tmp_path / "a.ts").read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    keys = [i for i, p in enumerate(packets) if p[1] & 31 == 1 and p[3] & 32 and p[4] and p[5] & 64]
    assert len(keys) > 3
    refused = 0
    for key, lost in itertools.product(keys[1:], (1, 3, 6)):
        (tmp_path / "b.ts").write_bytes(b"".join(packets[: key - lost] + packets[key:]))
        with warnings.catch_warnings(record=True) as notes:
            warnings.simplefilter("always")
            try:
                count = sum(1 for _ in open_frames(tmp_path / "b.ts", on_damage=on_damage))
            except ValueError as error:
                refused += bool(
                    re.search(r"b\.ts is .*lacks packets and, by the times of its frames, \d", str(error))
                )
                continue
        warned = any("by the times of its frames" in str(note.message) for note in notes)
        refused += warned
        assert warned or count == 48  # only packets of tables were lost
    assert refused >= len(keys) - 1


@pytest.mark.parametrize("lost", [1000, 100, 7])
@pytest.mark.parametrize("form", [188, 192, 204])
def test_a_hole_near_the_beginning_of_a_transport_stream_is_found(tmp_path, form, lost):
    """FFmpeg finds the next packets, and passes over the frames between."""
    encode(tmp_path / "a.ts", "mpeg2video", "yuv420p", "mpegts", NOISE.repeat(4, axis=0))
    content = (tmp_path / "a.ts").read_bytes()
    packets = [content[at : at + 188] for at in range(0, len(content), 188)]
    before, after = {188: (0, 0), 192: (4, 0), 204: (0, 16)}[form]
    content = b"".join(bytes(before) + packet + bytes(after) for packet in packets)
    for place in (0, 900, 2000, 4000, 12000):
        left = content[:place] + content[place + lost :] if place else content
        (tmp_path / "b.ts").write_bytes(left)
        count, _ = outcome(tmp_path / "b.ts")
        assert count == 48 if not place else "b.ts is " in str(count)


def test_a_changed_bit_of_an_animated_png_is_found_by_its_checksum(tmp_path):
    encode(tmp_path / "a.apng", "apng", "rgb24", "apng")
    content = (tmp_path / "a.apng").read_bytes()
    for at in (content.index(b"IDAT") + 900, content.rindex(b"fcTL") + 1, content.rindex(b"fdAT") + 200):
        changed = bytearray(content)
        changed[at] ^= 32
        for name in ("b.apng", "b.png"):  # read by FFmpeg, and by Pillow
            (tmp_path / name).write_bytes(changed)
            assert f"{name} is " in str(outcome(tmp_path / name)[0])


def parts_of_png(content):
    """[kind, body] of each chunk."""
    parts, at = [], 8
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        parts.append([content[at + 4 : at + 8], content[at + 8 : at + 8 + length]])
        at += 12 + length
    return parts


def png_of(parts):
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in parts
    )


def later_rows(parts, at, change):
    """Change the rows of a later picture, from their bytes before compression."""
    number, rows = parts[at][1][:4], zlib.decompress(parts[at][1][4:])
    parts[at][1] = number + change(rows)


def with_half(parts, at):
    later_rows(parts, at, lambda rows: zlib.compress(rows)[: len(zlib.compress(rows)) // 2])


def without_rows(parts, at):
    later_rows(parts, at, lambda rows: zlib.compress(rows[: len(rows) // 2]))


def with_noise(parts, at):
    later_rows(parts, at, lambda rows: b"\x78\x9c" + b"\xff" * len(rows))


def without_rows_in_two(parts, at):
    without_rows(parts, at)
    number, data = struct.unpack(">I", parts[at][1][:4])[0], parts[at][1][4:]
    parts[at : at + 1] = [
        [b"fdAT", struct.pack(">I", number) + data[:50]],
        [b"fdAT", struct.pack(">I", number + 1) + data[50:]],
    ]
    for count, part in enumerate(x for x in parts if x[0] in (b"fcTL", b"fdAT")):
        part[1] = struct.pack(">I", count) + part[1][4:]


def without_pixels(parts, at):
    del parts[at]


def without_a_picture(parts, at):
    del parts[at - 1 : at + 1]


def without_the_rest(parts, at):
    del parts[at + 1 : -1]


@pytest.mark.parametrize("name", ["b.apng", "b.png"])  # read by FFmpeg, and by Pillow
@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    "damage",
    [
        with_half,
        without_rows,
        with_noise,
        without_rows_in_two,
        without_pixels,
        without_a_picture,
        without_the_rest,
    ],
)
def test_later_pictures_of_an_animated_png_are_checked_as_the_first(tmp_path, name, damage, interlaced):
    """The checksums are right; FFmpeg and Pillow read missing rows as others."""
    pictures = [Image.fromarray(picture) for picture in NOISE[:4]]
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:], duration=40)
    parts = parts_of_png((tmp_path / "a.png").read_bytes())
    if interlaced:
        parts[0][1] = parts[0][1][:12] + b"\1"
        black = zlib.compress(bytes(7 * NOISE.shape[1] + NOISE[0].size))
        for part in parts:
            if part[0] in (b"IDAT", b"fdAT"):
                part[1] = part[1][:4] * (part[0] == b"fdAT") + black
    (tmp_path / name).write_bytes(png_of(parts))
    count, _ = outcome(tmp_path / name)
    assert count == 4
    damage(parts, [at for at, (kind, _) in enumerate(parts) if kind == b"fdAT"][1])
    (tmp_path / name).write_bytes(png_of(parts))
    count, _ = outcome(tmp_path / name)
    assert f"{name} is " in str(count)


@pytest.mark.parametrize("kind", ["mp4", "gif"])
def test_frames_are_freed_without_the_garbage_collector(tmp_path, kind):
    """Hundreds of frames can otherwise wait for the collector, which are gigabytes of a large video."""
    form, codec, pixels = KINDS[kind]
    encode(tmp_path / f"a.{kind}", codec, pixels, form)
    gc.collect()
    gc.disable()
    try:
        assert sum(1 for _ in open_frames(tmp_path / f"a.{kind}")) == 12
        assert not [value for value in gc.get_objects() if type(value) is av.VideoFrame]
    finally:
        gc.enable()


class Pipe(io.RawIOBase):
    """What cannot seek, so that a container is written as by a browser or a camera."""

    def __init__(self):
        self.content = b""

    def writable(self):
        return True

    def write(self, content):
        self.content += bytes(content)
        return len(content)


@pytest.mark.parametrize("begin", [0, 25])
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("mp4", *RAW)])
def test_a_file_that_was_written_as_a_stream_is_read_without_a_word(tmp_path, kind, begin):
    form, codec, pixels = KINDS[kind]
    for number, options in enumerate([{}, {"cluster_time_limit": "100"}]):
        pipe = Pipe()
        with av.open(pipe, "w", format=form, options=options) as container:
            stream = container.add_stream(codec, rate=25)
            stream.height, stream.width, stream.pix_fmt = 32, 48, pixels
            for i, picture in enumerate(NOISE):
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pixels)
                frame.pts = begin + i
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        path = tmp_path / f"{number}.{kind}"
        path.write_bytes(pipe.content)
        count, notes = outcome(path)
        assert count == 12
        assert all("does not say where it ends" in note for note in notes)


@pytest.mark.parametrize("kind", ["mkv", "webm"])
def test_a_stream_that_was_cut_within_a_frame_is_refused(tmp_path, kind):
    form, codec, pixels = KINDS[kind]
    encode(pipe := Pipe(), codec, pixels, form)
    for part in (0.9, 0.7, 0.5):
        (tmp_path / f"a.{kind}").write_bytes(pipe.content[: int(part * len(pipe.content))])
        count, _ = outcome(tmp_path / f"a.{kind}")
        assert "it ends before the end" in str(count)


@pytest.mark.parametrize("kind", ["avi", "gif", "mkv", "wmv"])
@pytest.mark.parametrize(
    "tags", [b"TAG" + bytes(10) + b"x" * 115, b"made by a program, serial number 1234; " * 9]
)
def test_tags_after_the_end_of_a_whole_video_are_no_damage(tmp_path, kind, tags):
    form, codec, pixels = KINDS[kind]
    encode(tmp_path / f"a.{kind}", codec, pixels, form)
    with (tmp_path / f"a.{kind}").open("ab") as file:
        file.write(tags)
    assert outcome(tmp_path / f"a.{kind}") == (12, [])


def damage(path, *numbers):
    """Zeros in place of packets, as on a disk that lost sectors."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for place, size in (packets[number] for number in numbers):
        content[place : place + size] = bytes(size)
    path.write_bytes(content)


def damage_again(tmp_path):
    """b.mp4, whose frames 2 to 5 of 12 are damaged."""
    encode(tmp_path / "b.mp4", "libx264", "yuv420p", options={"g": "6", "bf": "0"})
    damage(tmp_path / "b.mp4", 2, 3, 4, 5)


@pytest.fixture
def damaged(tmp_path):
    encode(tmp_path / "a.mp4", "libx264", "yuv420p", options={"g": "6", "bf": "0"})
    damage(tmp_path / "a.mp4", 8, 9, 11)
    return tmp_path / "a.mp4"


def test_a_damaged_frame_is_refused_with_the_number_of_each_and_the_way_on(damaged):
    with pytest.raises(
        ValueError,
        match=r"a\.mp4 is damaged or cut off: 8 of 12 .*\(frames 8, 9, 11 are damaged\); .*--on-damage hold",
    ):
        list(open_frames(damaged))


def test_the_last_good_frame_stands_in_for_a_damaged_one(damaged):
    source = open_frames(damaged, on_damage="hold")
    with pytest.warns(InputWarning, match=r"frames 8, 9, 11 are damaged and replaced by the last good"):
        frames = list(source)
    assert len(frames) == 12
    assert [source.stands_in(index) for index in range(12)] == [False] * 8 + [True, True, False, True]
    assert all((frame == frames[7]).all() for frame in frames[8:10])
    assert (frames[10] != frames[7]).any()
    assert (frames[11] == frames[10]).all()


def test_damaged_frames_are_left_out_and_the_others_keep_their_names(damaged, tmp_path):
    damage_again(tmp_path)
    source = open_frames(tmp_path / "b.mp4", on_damage="skip")
    with pytest.warns(InputWarning, match=r"frames 2 to 5 are damaged and left out") as notes:
        names = [source.name(index) for index in range(8)]
    assert len(list(source)) == 8
    assert len(notes) == 1  # however often the video is read
    assert names == ["00000", "00001", "00006", "00007", "00008", "00009", "00010", "00011"]
    assert [source.find(name) for name in ("00001", "00004", "00006", "00012")] == [1, None, 2, None]
    some = open_frames(tmp_path / "b.mp4", on_damage="skip", start=1, stop=11, step=3)
    with pytest.warns(InputWarning, match="left out"):
        count = len(list(some))
    assert [some.name(index) for index in range(count)] == ["00001", "00007", "00010"]
    for wrong in ("keep", "refuse"):
        with pytest.raises(ValueError, match=f"on_damage is one of stop, skip, hold, not '{wrong}'"):
            open_frames(damaged, on_damage=wrong)


def test_of_some_frames_one_stands_in_only_if_the_one_before_is_the_same(tmp_path):
    damage_again(tmp_path)
    some = open_frames(tmp_path / "b.mp4", on_damage="hold", step=2)
    with pytest.warns(InputWarning, match="frames 2 to 5 are damaged"):
        assert len(list(some)) == 6
    assert [some.stands_in(index) for index in range(6)] == [False, False, True, False, False, False]


def test_damage_is_listed_if_only_the_first_frames_are_used(damaged):
    with pytest.warns(InputWarning, match=r"frames 8, 9 are damaged"):
        assert len(list(open_frames(damaged, on_damage="hold", stop=10))) == 10


def test_damage_after_the_frames_that_were_read_first_is_listed_too(damaged):
    source = open_frames(damaged, on_damage="hold")
    for number, _ in zip(range(9), source, strict=False):
        assert source.damaged == (number == 8)
    with pytest.warns(InputWarning, match=r"frame 8 is damaged"):
        source.tell_damage()
    with pytest.warns(InputWarning, match=r"frames 8, 9, 11 are damaged"):
        list(source)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        source.tell_damage()
        list(source)


def test_a_part_without_a_good_frame_is_refused(tmp_path, follow, capsys):
    damage_again(tmp_path)
    assert follow("b.mp4", "out", "--on-damage", "skip", "--start", "3", "--stop", "5", code=1) == {}
    assert "all of these frames are damaged" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("codec", ["libx264", "mpeg4", "mjpeg"])
def test_frames_keep_their_numbers_if_the_first_cannot_be_decoded(tmp_path, codec):
    frames = np.stack([np.full((32, 48, 3), 20 * number, np.uint8) for number in range(12)])
    options = {"g": "1", **({"bf": "0"} if codec == "libx264" else {})}
    encode(
        tmp_path / "a.mp4", codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", "mp4", frames, 0, options
    )
    damage(tmp_path / "a.mp4", 0)
    damage(tmp_path / "a.mp4", 1)
    with pytest.warns(InputWarning, match=r"frames 0, 1 are damaged and replaced"):
        read = list(open_frames(tmp_path / "a.mp4", on_damage="hold"))
    assert len(read) == 12
    for number in range(2, 12):
        assert abs(int(read[number].mean()) - 20 * number) < 8
    assert (read[0] == read[2]).all()


@pytest.mark.parametrize("kind", ["gif", "mjpeg", "y4m", "flv"])
def test_the_part_before_a_cut_is_kept_if_asked(tmp_path, kind):
    form, codec, pixels = KINDS[kind]
    encode(tmp_path / f"a.{kind}", codec, pixels, form)
    content = (tmp_path / f"a.{kind}").read_bytes()
    (tmp_path / f"a.{kind}").write_bytes(content[: len(content) * 7 // 10])
    with pytest.warns(InputWarning, match="ends before the end|are damaged"):
        held = len(list(open_frames(tmp_path / f"a.{kind}", on_damage="hold")))
    assert 3 < held < 12
    with pytest.warns(InputWarning, match="ends before the end|are damaged"):
        assert 3 < len(list(open_frames(tmp_path / f"a.{kind}", on_damage="skip"))) <= held


def test_a_batch_and_a_review_go_on_as_one_video_does(damaged, tmp_path, capsys):
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24] = 1
    write_mask(tmp_path / "m.png", mask)
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"video": "a.mp4", "mask": "m.png", "name": "a"}))
    how = ["--size", "32", "--device", "cpu", "--quiet"]
    batch = ["batch", str(tmp_path / "jobs.jsonl"), "--out", str(tmp_path / "out"), *how]
    assert main(batch) == 1
    assert "--on-damage hold" in capsys.readouterr().err
    assert main([*batch, "--on-damage", "hold"]) == 0
    assert re.search(r"^emavos: note: a: .*frames 8.* are damaged and replaced", capsys.readouterr().err)
    status = json.loads((tmp_path / "out" / "status" / "a.json").read_text())
    assert [note.count("are damaged and replaced") for note in status["notes"]] == [1]
    assert status["on_damage"] == "hold"
    assert main(batch) == 1  # what is held is not what is refused
    assert "other settings (on_damage)" in capsys.readouterr().err
    review = ["review", str(damaged), "--mask", str(tmp_path / "m.png"), "--out", str(tmp_path / "review")]
    assert main([*review, *how]) == 1
    assert main([*review, *how, "--on-damage", "hold"]) == 0
    assert "frames 8" in capsys.readouterr().err


def test_videos_without_damage_stay_if_a_batch_goes_on_over_damage(damaged, tmp_path, capsys):
    encode(tmp_path / "whole.mp4", "libx264", "yuv420p")
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24] = 1
    write_mask(tmp_path / "m.png", mask)
    jobs = [{"video": name, "mask": "m.png"} for name in ("a.mp4", "whole.mp4")]
    (tmp_path / "jobs.jsonl").write_text("\n".join(map(json.dumps, jobs)))
    out = ["--out", str(tmp_path / "out"), "--size", "32", "--device", "cpu"]
    batch = ["batch", str(tmp_path / "jobs.jsonl"), *out]
    assert main(batch) == 1
    assert "whole: done (2 of 2)" in capsys.readouterr().err
    assert main([*batch, "--on-damage", "hold"]) == 0
    assert "a: done (1 of 2)\nwhole: already there (2 of 2)\n" in capsys.readouterr().err
    assert main(batch) == 1
    assert "made with other settings (on_damage)" in capsys.readouterr().err


@pytest.fixture
def follow(tmp_path):
    """A function that runs the command on a video of the folder; returns the names and bytes of the masks."""
    mask = np.zeros((32, 48), np.uint8)
    mask[8:24, 8:24] = 1
    write_mask(tmp_path / "m.png", mask)
    how = ["--mask", str(tmp_path / "m.png"), "--size", "32", "--quiet", "--device", "cpu"]

    def run(video, out, *more, code=0):
        assert main(["segment", str(tmp_path / video), "--out", str(tmp_path / out), *how, *more]) == code
        return {path.stem: path.read_bytes() for path in sorted((tmp_path / out).glob("*.png"))}

    return run


def test_the_command_stops_skips_or_holds(damaged, tmp_path, follow, capsys):
    assert follow("a.mp4", "stop", code=1) == {}
    assert "frames 8, 9, 11 are damaged" in capsys.readouterr().err
    part = follow("a.mp4", "part", "--keep-partial", code=1)
    assert [*part] == [f"{index:05d}" for index in range(8)]
    damage_again(tmp_path)
    capsys.readouterr()
    held = follow("b.mp4", "hold", "--on-damage", "hold")
    assert len(held) == 12
    assert {held[f"{index:05d}"] for index in range(2, 6)} == {held["00001"]}
    assert capsys.readouterr().err.endswith(
        "b.mp4: frames 2 to 5 are damaged and replaced by the last good frame before each\n"
    )
    skipped = follow("b.mp4", "skip", "--on-damage", "skip", "--overlay", str(tmp_path / "skip.mp4"))
    assert [*skipped] == ["00000", "00001", *(f"{index:05d}" for index in range(6, 12))]
    assert "frames 2 to 5 are damaged and left out" in capsys.readouterr().err


@pytest.mark.parametrize("way", ["forward", "both"])
def test_masks_of_the_frame_before_are_repeated_in_each_direction(tmp_path, follow, way):
    damage_again(tmp_path)
    masks = follow("b.mp4", "out", "--on-damage", "hold", "--direction", way)
    assert {masks[f"{index:05d}"] for index in range(2, 6)} == {masks["00001"]}


def test_a_held_frame_with_a_mask_of_the_user_has_this_mask(tmp_path):
    damage_again(tmp_path)
    planes = [np.zeros((32, 48), np.uint8) for _ in range(2)]
    planes[0][8:24, 8:24] = planes[1][4:8, 4:8] = 1
    predictor, masks = Predictor.from_pretrained(size=32, device="cpu"), {0: planes[0], 4: planes[1]}
    frames = open_frames(tmp_path / "b.mp4", on_damage="hold")
    results = []

    def follow():
        for result in predictor.propagate(frames, masks):
            results.append(result.mask.copy())
            result.prob.zero_()  # your copy

    with pytest.warns(InputWarning, match="frames 2 to 5"):
        follow()
    assert (results[4] == planes[1]).all()
    assert (results[5] == planes[1]).all()
    assert (results[3] == results[1]).all()
    assert (results[3] != planes[1]).any()


@pytest.mark.parametrize("way", ["hold", "skip"])
@pytest.mark.parametrize("at", range(1, 11))
def test_a_stopped_run_goes_on_over_damage_to_the_same_bytes(tmp_path, follow, monkeypatch, way, at):
    damage_again(tmp_path)
    whole = follow("b.mp4", "whole", "--on-damage", way)
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    write = Written.write

    def stopped(self, name, *rest):
        if name == f"{at:05d}":
            raise KeyboardInterrupt
        write(self, name, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Written, "write", stopped)
        missing = way == "skip" and 2 <= at < 6
        follow("b.mp4", "again", "--on-damage", way, code=0 if missing else 130)
    assert missing or follow("b.mp4", "again", "--on-damage", way) == whole


def test_a_run_that_stopped_at_the_damage_can_be_told_to_go_on(tmp_path, follow, monkeypatch, capsys):
    damage_again(tmp_path)
    monkeypatch.setattr(resuming, "SECONDS", 0.0)
    for way, other in (("hold", "skip"), ("skip", "hold")):
        assert follow("b.mp4", way, code=1) == {}
        said = capsys.readouterr().err
        assert re.search(r"[12] frames are kept and the same command continues", said)
        assert (tmp_path / f".{way}.resume").exists()
        assert follow("b.mp4", way, "--on-damage", way) == follow("b.mp4", f"{way}2", "--on-damage", way)
        write = Written.write

        def stopped(self, name, *rest, write=write):
            if name == "00009":
                raise KeyboardInterrupt
            write(self, name, *rest)

        with monkeypatch.context() as patch:
            patch.setattr(Written, "write", stopped)
            follow("b.mp4", f"{way}3", "--on-damage", way, code=130)
        follow("b.mp4", f"{way}3", "--on-damage", other, code=1)
        assert "of a stopped run with other on damage" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["mkv", "mp4", "ts"])
def test_a_recording_may_begin_late(tmp_path, kind):
    form, codec, pixels = KINDS[kind]
    encode(tmp_path / f"a.{kind}", codec, pixels, form, begin=250)
    assert len(list(open_frames(tmp_path / f"a.{kind}"))) == 12


def test_a_duration_that_is_too_long_is_told(tmp_path):
    encode(tmp_path / "a.mkv", "mpeg4", "yuv420p")
    content = (tmp_path / "a.mkv").read_bytes()
    place = content.index(b"\x44\x89\x88") + 3
    longer = struct.pack(">d", 9 * struct.unpack(">d", content[place : place + 8])[0])
    (tmp_path / "a.mkv").write_bytes(content[:place] + longer + content[place + 8 :])
    with pytest.warns(InputWarning, match=r"says that it lasts 4\.3 s, but its frames end at 0\.5 s"):
        assert len(list(open_frames(tmp_path / "a.mkv"))) == 12


def test_the_count_of_a_fragmented_mp4_is_no_bound(tmp_path):
    options = {"movflags": "frag_keyframe"}
    encode(tmp_path / "a.mp4", "libx264", "yuv420p", options={"g": "4"}, container_options=options)
    frames = open_frames(tmp_path / "a.mp4")
    assert (frames.count, frames.exact, len(list(frames))) == (None, False, 12)
    write_video(tmp_path / "b.mp4", NOISE, 25)
    assert (open_frames(tmp_path / "b.mp4").count, open_frames(tmp_path / "b.mp4").exact) == (12, True)


TURNS = {  # a, b, c, d of the matrix of a track, and what players show
    "left and right": ((-1, 0, 0, 1), lambda p: p[:, ::-1]),
    "up and down": ((1, 0, 0, -1), lambda p: p[::-1]),
    "by 180": ((-1, 0, 0, -1), lambda p: p[::-1, ::-1]),
    "by 90": ((0, 1, -1, 0), lambda p: np.rot90(p, -1)),
    "by 270": ((0, -1, 1, 0), lambda p: np.rot90(p)),
    "along one diagonal": ((0, 1, 1, 0), lambda p: p.transpose(1, 0, 2)),
    "along the other": ((0, -1, -1, 0), lambda p: p.transpose(1, 0, 2)[::-1, ::-1]),
}


@pytest.mark.parametrize("name", TURNS)
def test_a_video_is_turned_and_mirrored_as_players_show_it(tmp_path, name):
    (a, b, c, d), seen = TURNS[name]
    picture = np.zeros((32, 48, 3), np.uint8)
    picture[:16, :24], picture[:16, 24:], picture[16:, :24] = (220, 30, 30), (30, 220, 30), (30, 30, 220)
    write_video(tmp_path / "a.mp4", [picture], 10)
    content = (tmp_path / "a.mp4").read_bytes()
    at = content.index(b"tkhd") + 44
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    (tmp_path / "a.mp4").write_bytes(content[:at] + matrix + content[at + 36 :])
    (frame,) = open_frames(tmp_path / "a.mp4")
    assert np.abs(frame.astype(int) - seen(picture)).mean() < 10


def test_the_stream_is_the_one_that_players_show(tmp_path):
    from av.stream import Disposition

    large = np.resize(NOISE, (12, 64, 96, 3))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        streams = []
        for frames in (NOISE, large):
            stream = container.add_stream("mpeg4", rate=25)
            stream.height, stream.width = frames[0].shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.disposition = Disposition.default if frames is large else 0
            streams.append((stream, frames))
        for stream, frames in streams:
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    frames = list(open_frames(tmp_path / "a.mp4"))
    assert (len(frames), frames[0].shape) == (12, (64, 96, 3))


def test_transparent_pixels_are_black_in_videos_as_in_images(tmp_path):
    picture = np.dstack([NOISE[0], np.resize(np.arange(256, dtype=np.uint8), (32, 48))])
    Image.fromarray(picture).save(tmp_path / "a.png")
    with av.open(str(tmp_path / "a.mov"), "w") as container:
        stream = container.add_stream("png", rate=25)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "rgba"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgba")))
        container.mux(stream.encode())
    (frame,) = open_frames(tmp_path / "a.mov")
    assert np.array_equal(frame, read_frame(tmp_path / "a.png"))


def test_a_title_in_latin_1_does_not_hide_the_picture(tmp_path):
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        container.metadata["title"] = "xxxxxxxx"
        stream = container.add_stream("ffv1", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "bgr0"
        for pixels in NOISE:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    content = (tmp_path / "a.avi").read_bytes()
    assert b"xxxxxxxx" in content
    (tmp_path / "a.avi").write_bytes(content.replace(b"xxxxxxxx", b"Gr\xfc\xdfe \xe0 "))
    assert np.array_equal(list(open_frames(tmp_path / "a.avi")), NOISE)


def test_an_unknown_codec_is_a_line_with_the_name_of_the_file(tmp_path):
    write_video(tmp_path / "a.mp4", NOISE, 25)
    content = (tmp_path / "a.mp4").read_bytes()
    at = content.index(b"stsd")
    changed = content[:at] + content[at:].replace(b"avc1", b"zzzz", 1).replace(b"avcC", b"zzzC", 1)
    (tmp_path / "a.mp4").write_bytes(changed)
    with pytest.raises(ValueError, match=r"a\.mp4 is of a codec that this PyAV cannot decode"):
        list(open_frames(tmp_path / "a.mp4"))


@pytest.mark.parametrize(("codec", "form"), [("libx264", "mp4"), ("libx264", "matroska"), ("mpeg4", "mp4")])
def test_damage_that_stops_a_run_is_also_noted_by_runs_that_go_on(tmp_path, codec, form):
    if codec not in av.codecs_available:
        pytest.skip(f"PyAV has no {codec}")
    gentle = {"g": "4", "bf": "0"} if codec == "libx264" else {"g": "4"}
    large = NOISE.repeat(4, axis=1).repeat(4, axis=2)  # small frames are decoded by one thread
    encode(tmp_path / "a.video", codec, "yuv420p", form, frames=large, options=gentle)
    content, stopped = (tmp_path / "a.video").read_bytes(), 0
    for part in (0.2, 0.35, 0.5, 0.65, 0.8):
        place = int(part * len(content))
        flipped = bytes(255 - byte for byte in content[place : place + 60])
        (tmp_path / "b.video").write_bytes(content[:place] + flipped + content[place + 60 :])
        count, _ = outcome(tmp_path / "b.video")
        if isinstance(count, int):
            continue
        stopped += 1
        for way in ("skip", "hold"):
            with pytest.warns(InputWarning, match=r"damaged|cut off|read further"):
                assert list(open_frames(tmp_path / "b.video", on_damage=way))
    assert stopped
