"""Images that are damaged, made to harm or unusual, as the table of docs/input.md lists them."""

from __future__ import annotations

import errno
import os
import re
import struct
import subprocess
import sys
import zlib
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from emavos import Predictor, Session
from emavos.annotations import read_arrays, read_labels
from emavos.batch import find_jobs
from emavos.evaluation import PROTOCOLS, find_videos
from emavos.io import open_frames, read_frame, read_mask, write_mask
from emavos.weights import load_model

PAGE = Path(__file__).parents[2] / "docs" / "input.md"
PIXELS = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)


def png(width, height):
    """The header of a PNG that declares so many pixels and holds next to none."""
    chunks = (b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0), b"IDAT" + bytes(16))
    parts = (struct.pack(">I", len(x) - 4) + x + struct.pack(">I", zlib.crc32(x)) for x in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def truncated(path):
    Image.fromarray(PIXELS).save(path)
    path.write_bytes(path.read_bytes()[:200])


def postscript(path):
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")


def declares(form):
    """A picture of this format whose header says 60000x60000."""

    def make(path):
        file = BytesIO()
        Image.fromarray(PIXELS).save(file, format=form)
        content, sides = bytearray(file.getvalue()), (60000, 60000)
        if form == "BMP":
            struct.pack_into("<ii", content, 18, *sides)
        elif form == "GIF":
            struct.pack_into("<HH", content, 6, *sides)
        elif form == "JPEG":
            struct.pack_into(">HH", content, content.index(b"\xff\xc0") + 5, *sides)
        elif form == "PPM":
            content[:] = content.replace(b"16 12", b"60000 60000")
        elif form == "TIFF":
            for tag in (256, 257):  # its width and its height, each a number of 4 or 2 bytes
                struct.pack_into("<HHI", content, content.index(struct.pack("<H", tag), 8), tag, 4, 1)
                struct.pack_into("<I", content, content.index(struct.pack("<HHI", tag, 4, 1)) + 8, 60000)
        path.write_bytes(content)

    return make


def note(path):
    """A PNG beside whose pixels is a text of 200 MB, in 200 kB."""
    Image.fromarray(PIXELS).save(path)
    body = b"zTXtComment\0\0" + zlib.compress(bytes(200_000_000))
    chunk = struct.pack(">I", len(body) - 4) + body + struct.pack(">I", zlib.crc32(body))
    path.write_bytes(path.read_bytes()[:33] + chunk + path.read_bytes()[33:])


def chunked(*chunks):
    """A PNG of these chunks, each a kind and a body."""
    parts = (
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def changed(path):
    """A PNG whose last byte of pixels is another one."""
    Image.fromarray(PIXELS).save(path)
    content = bytearray(path.read_bytes())
    content[content.index(b"IEND") - 9] ^= 1
    path.write_bytes(content)


def short(path):
    """A PNG of 12 rows without the last."""
    head = struct.pack(">IIBBBBB", 16, 12, 8, 0, 0, 0, 0)
    pixels = zlib.compress((b"\0" + bytes(range(1, 17))) * 11)
    path.write_bytes(chunked((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b"")))


def filled(path):
    """A JPEG whose second half became zeros, as after a crash of the system."""
    picture = Image.fromarray(PIXELS)
    picture.save(path, format="JPEG")
    content = path.read_bytes()
    path.write_bytes(content[:-200] + bytes(2000))


def cut_number(path):
    path.write_bytes(b"P2\n4 2\n255\n0 0 1 1 2 2 120 12")  # of 120


def circle(path):
    path.symlink_to(path.name)


IMAGES = {  # the case as the page tells it: what makes it, the exception, and words of its message
    "an image cut in the middle": (truncated, ValueError, "truncated"),
    "a PNG with a changed byte": (changed, ValueError, "a checksum is wrong"),
    "a PNG without its last row": (short, ValueError, "end before its last row"),
    "a JPEG cut in the middle and filled with zeros": (filled, ValueError, "filled with zeros"),
    "a PGM or PPM of numbers as text, cut in its last number": (cut_number, ValueError, "may be cut off"),
    "an empty file": (Path.touch, ValueError, "cannot identify"),
    "text under the name of an image": (lambda p: p.write_text("text"), ValueError, "cannot identify"),
    "PostScript under the name of an image": (postscript, ValueError, "cannot identify"),
    "an image that declares 30000x30000": (
        lambda p: p.write_bytes(png(30000, 30000)),
        ValueError,
        "exceeds limit",
    ),
    "a BMP that declares 60000x60000": (declares("BMP"), ValueError, "exceeds limit"),
    "a GIF picture that declares 60000x60000": (declares("GIF"), ValueError, "exceeds limit"),
    "a JPEG that declares 60000x60000": (declares("JPEG"), ValueError, "exceeds limit"),
    "a PPM that declares 60000x60000": (declares("PPM"), ValueError, "exceeds limit"),
    "a TIFF that declares 60000x60000": (declares("TIFF"), ValueError, "exceeds limit"),
    "a PNG with a text of 200 MB in 200 kB": (note, ValueError, "too large"),
    "a pipe or a device": (os.mkfifo, ValueError, "a pipe or a device"),
    "a folder under the name of an image": (Path.mkdir, ValueError, "is a folder"),
    "a link in a circle": (circle, FileNotFoundError, "does not exist"),
}


@pytest.mark.parametrize("case", IMAGES)
@pytest.mark.parametrize("read", [read_frame, read_mask])
def test_an_image_that_cannot_be_is_refused_by_name(tmp_path, read, case):
    make, kind, words = IMAGES[case]
    path = tmp_path / "bad.png"
    make(path)
    with pytest.raises(kind, match=rf"bad\.png.*{words}"):
        read(path)


IDS = np.zeros((9, 11), np.uint8)
IDS[2:5, 3:8], IDS[4:, 1:4] = 1, 7
TEXT = b"P2\n11 9\n255\n" + b"\n".join(b" ".join(b"%d" % id for id in row) for row in IDS * 17) + b"\n"
FILES = {  # masks: the format and options of Pillow
    "PNG": ("PNG", {}),
    "BMP": ("BMP", {}),
    "GIF": ("GIF", {}),
    "PGM": ("PPM", {}),
    "WebP": ("WEBP", {"lossless": True}),
    "TIFF": ("TIFF", {}),
} | {f"TIFF, {way}": ("TIFF", {"compression": way}) for way in ("tiff_lzw", "tiff_adobe_deflate", "packbits")}


def contents():
    """Masks of each format in 8 bits, and some of 16 and 1."""
    for name, (form, options) in FILES.items():
        ids = (IDS,) if form in ("BMP", "GIF", "WEBP") else (IDS, 300 * IDS.astype(np.uint16))
        for mask in ids:
            picture, file = Image.fromarray(mask), BytesIO()
            (picture.convert("RGB") if form == "WEBP" else picture).save(file, format=form, **options)
            yield pytest.param(file.getvalue(), mask, id=f"{name}, {mask.dtype}")
    for form, options in (("BMP", {}), ("PPM", {}), ("TIFF", {}), ("TIFF", {"compression": "group4"})):
        file = BytesIO()
        Image.fromarray(255 * (IDS > 0).astype(np.uint8)).convert("1").save(file, format=form, **options)
        yield pytest.param(file.getvalue(), IDS > 0, id=f"{form}, 1 bit, {options}")
    yield pytest.param(TEXT, IDS * 17, id="PGM as text")


@pytest.mark.parametrize(("content", "mask"), [*contents()])
def test_a_mask_cut_at_any_byte_is_right_or_refused_by_name(tmp_path, content, mask):
    path, errors = tmp_path / "a.png", set()
    path.write_bytes(content)
    known = read_mask(path)
    assert np.array_equal(known > 0, mask > 0)
    for end in range(len(content)):
        path.write_bytes(content[:end])
        try:
            ids = read_mask(path)
        except ValueError as error:
            errors.add(str(error))
            continue
        assert np.array_equal(ids, known)
    assert len(errors) > 1
    assert all(re.search(r"a\.png .+", error) and "\n" not in error for error in errors)
    path.write_bytes(content + b"more" * 9 + b"\n")
    assert np.array_equal(read_mask(path), known)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"exif": b"Exif\0\0"}], ids=str)
def test_a_jpeg_cut_at_any_byte_is_right_or_refused_by_name(tmp_path, options):
    path = tmp_path / "a.jpg"
    Image.fromarray(PIXELS).save(path, **options)
    content, pixels, errors = path.read_bytes(), read_frame(path), set()
    for end in range(len(content)):
        for rest in (b"", bytes(3000)):
            path.write_bytes(content[:end] + rest)
            try:
                found = read_frame(path)
            except ValueError as error:
                errors.add(str(error))
                continue
            assert np.array_equal(found, pixels)
    assert len(errors) > 1
    assert all("a.jpg is not an image that can be read" in error for error in errors)
    for rest in (b"more" * 9, bytes(3000)):
        path.write_bytes(content + rest)
        assert np.array_equal(read_frame(path), pixels)


@pytest.mark.parametrize("name", ["a.png", "a.apng"])  # read by Pillow, and by FFmpeg
def test_the_picture_that_stands_in_for_an_animation_is_no_frame(tmp_path, name):
    if name == "a.apng":
        pytest.importorskip("av")
    pictures = [np.full((8, 12, 3), level, np.uint8) for level in (9, 50, 100, 150)]
    first, *others = map(Image.fromarray, pictures)
    file = BytesIO()
    first.save(file, "PNG", save_all=True, append_images=others, default_image=True, duration=40)
    (tmp_path / name).write_bytes(file.getvalue())
    frames = open_frames(tmp_path / name)
    assert frames.count in (3, None)
    assert np.array_equal(list(frames), pictures[1:])


def test_a_picture_larger_than_its_animation_is_refused_before_it_is_inflated(tmp_path):
    """A million bytes of it become a thousand million, and no decoder would need them."""

    def control(number, side):
        return struct.pack(">IIIIIHHBB", number, side, side, 0, 0, 1, 25, 0, 0)

    head, rows = struct.pack(">IIBBBBB", 4, 4, 8, 0, 0, 0, 0), zlib.compress(bytes(20))
    for side in (4, 5, 1 << 20):
        chunks = ((b"IHDR", head), (b"acTL", struct.pack(">II", 2, 0)), (b"fcTL", control(0, 4)))
        more = ((b"IDAT", rows), (b"fcTL", control(1, side)), (b"fdAT", b"\0\0\0\2" + rows), (b"IEND", b""))
        (tmp_path / "a.png").write_bytes(chunked(*chunks, *more))
        if side == 4:
            assert sum(1 for _ in open_frames(tmp_path / "a.png")) == 2
            continue
        with pytest.raises(ValueError, match="picture 1 is larger than the file declares"):
            list(open_frames(tmp_path / "a.png"))


@pytest.mark.parametrize("white", [3, 100, 255, 1000, 65535])
@pytest.mark.parametrize("magic", ["P2", "P5"])
def test_ids_of_a_pgm_are_its_numbers_whatever_it_declares_as_white(tmp_path, magic, white):
    ids = np.array([[0, 0, 1, 1], [2, 2, 3, 3]], np.int32)
    numbers = " ".join(map(str, ids.ravel())).encode() + b"\n"
    content = numbers if magic == "P2" else ids.astype("u1" if white < 256 else ">u2").tobytes()
    (tmp_path / "a.pgm").write_bytes(f"{magic}\n4 2\n{white}\n".encode() + content)
    assert np.array_equal(read_mask(tmp_path / "a.pgm"), ids)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
@pytest.mark.parametrize("read", [read_mask, read_frame])
def test_an_image_that_the_system_cannot_open_is_not_called_damaged(tmp_path, read):
    """As one without permission, which root always has; here, too many files are open."""
    resource = pytest.importorskip("resource")
    write_mask(tmp_path / "a.png", np.ones((8, 8), np.uint8))
    read(tmp_path / "a.png")  # loads the decoder
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
    try:
        with pytest.raises(OSError, match=r"Too many open files.*a\.png"):
            read(tmp_path / "a.png")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def locked(tmp_path, monkeypatch):
    """A folder that nobody may enter, not even root."""
    folder, stat = tmp_path / "locked", os.stat

    def refused(path, *arguments, **options):
        if isinstance(path, (str, os.PathLike)) and str(path).startswith(f"{folder}{os.sep}"):
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path, *arguments, **options)

    folder.mkdir()
    monkeypatch.setattr(os, "stat", refused)
    return folder


NEEDED = {
    "frame": lambda folder: read_frame(folder / "a.png"),
    "mask": lambda folder: read_mask(folder / "a.png"),
    "array": lambda folder: read_arrays(folder / "a.npy"),
    "mask of propagate": lambda folder: next(load_predictor().propagate([PIXELS], folder / "a.png")),
    "list of labels": lambda folder: read_labels(folder / "labels.txt"),
    "video": lambda folder: open_frames(folder / "a.mp4"),
    "frames": lambda folder: open_frames(folder / "frames"),
    "pattern": lambda folder: open_frames(folder / "frames" / "*.png"),
    "list of images": lambda folder: open_frames([folder / "a.png"]),
    "model": lambda folder: load_model(folder / "model"),
    "jobs": lambda folder: find_jobs(folder / "jobs.jsonl"),
    "data set": lambda folder: find_videos(folder / "davis", PROTOCOLS["davis-2017-val"]),
}


def load_predictor():
    return Predictor.from_pretrained(device="cpu", size=16)


@pytest.mark.parametrize("what", NEEDED)
def test_what_is_in_a_folder_that_you_may_not_enter_is_not_said_to_be_missing(locked, what):
    with pytest.raises(PermissionError, match=r"Permission denied.*locked"):
        NEEDED[what](locked)


def test_a_changed_bit_in_the_pixels_of_a_mask_is_refused(tmp_path):
    mask = np.zeros((24, 32), np.int32)
    mask[4:12, 5:20], mask[8:20, 10:14] = 1, 2
    for ids in (mask, 300 * mask):  # palette, and 16-bit gray
        write_mask(tmp_path / "a.png", ids)
        content = (tmp_path / "a.png").read_bytes()
        for at in range(content.index(b"IDAT") - 4, content.index(b"IEND") - 4):
            for bit in range(8):
                flipped = bytearray(content)
                flipped[at] ^= 1 << bit
                (tmp_path / "a.png").write_bytes(flipped)
                with pytest.raises(ValueError, match=r"a\.png is not an image that can be read"):
                    read_mask(tmp_path / "a.png")


@pytest.mark.parametrize("read", [read_mask, read_frame])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("sides", [(2**27, 1), (1, 2**27), (2**25, 4), (2**24 + 1, 1)])
def test_a_strip_with_a_side_beyond_the_limit_is_refused_and_is_no_lack_of_memory(tmp_path, read, sides):
    (tmp_path / "a.png").write_bytes(png(*sides))
    with pytest.raises(ValueError, match=r"a\.png .*a side beyond 16777216 pixels"):
        read(tmp_path / "a.png")


@pytest.mark.parametrize("sides", [(1, 2**24 + 1), (2**24 + 1, 1)])
def test_no_mask_is_written_that_would_not_be_read(tmp_path, sides):
    with pytest.raises(ValueError, match="at most 16777216 pixels"):
        write_mask(tmp_path / "a.png", np.zeros(sides, np.uint8))
    assert not list(tmp_path.iterdir())


PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


@pytest.mark.parametrize("passes", [((0, 0, 1, 1),), PASSES], ids=["plain", "interlaced"])
@pytest.mark.parametrize("sides", [(9, 8), (8, 9), (1, 1), (7, 5), (3, 2), (6, 1), (1, 6)])
@pytest.mark.parametrize(
    ("colour", "bits", "channels"), [(0, 8, 1), (0, 1, 1), (0, 16, 1), (2, 8, 3), (6, 8, 4)]
)
def test_a_png_that_lacks_a_row_is_refused_whatever_its_pixels(
    tmp_path, passes, sides, colour, bits, channels
):
    """Pillow reads missing rows as zeros, so that objects would end there."""
    (width, height), path = sides, tmp_path / "a.png"
    head = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, len(passes) > 1)
    for value in (b"\xff", b"\0"):
        rows = []
        for x, y, dx, dy in passes:
            w, h = -(-(width - x) // dx), -(-(height - y) // dy)
            rows += [b"\0" + value * -(-w * bits * channels // 8)] * (h if w > 0 else 0)
        for pixels in (rows, rows[:-1]):
            data = zlib.compress(b"".join(pixels))
            parts = [(b"IDAT", data[:9]), (b"IDAT", data[9:])]  # in two chunks, as large pictures have
            path.write_bytes(chunked((b"IHDR", head), *parts, (b"IEND", b"")))
            if pixels is rows:
                assert read_frame(path).shape == (height, width, 3)
            else:
                with pytest.raises(ValueError, match=r"a\.png .*(end before its last row|truncated)"):
                    read_frame(path)


@pytest.mark.skipif(sys.platform != "linux", reason="the limit is one of Linux")
def test_what_declares_much_takes_little(tmp_path):
    (tmp_path / "bad.png").write_bytes(png(13000, 13000))
    code = """
import resource, sys
from emavos.io import read_frame
from emavos.weights import load_model
held = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + (64 << 20),) * 2)
try:
    read_frame(sys.argv[1])
except ValueError as error:
    print("beyond" in str(error))
"""
    path = str(tmp_path / "bad.png")
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, path], capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


def in_mode(mode, **options):
    """PIXELS as Pillow turns them into this mode, and back."""
    picture = Image.fromarray(PIXELS).convert(mode, **options)
    return picture, np.array(picture.convert("RGB"))


def transparent():
    picture = Image.fromarray(np.dstack([PIXELS, np.where(PIXELS[..., 0] > 99, 255, 0).astype(np.uint8)]))
    return picture, PIXELS * (PIXELS[..., :1] > 99)


def turned():
    """A photograph that is to be turned by 90 degrees, clockwise."""
    picture = Image.fromarray(PIXELS)
    picture.getexif()[0x0112] = 6
    return picture, np.rot90(PIXELS, -1)


def sixteen():
    levels = np.arange(256, dtype=np.uint16).reshape(16, 16)
    return Image.fromarray(levels * 257), levels[..., None].repeat(3, axis=2)


READ = {  # the format, the picture, and the pixels that are read
    "an image of 1x1": ("PNG", Image.fromarray(PIXELS[:1, :1]), PIXELS[:1, :1]),
    "an image of 16 bits": ("PNG", *sixteen()),
    "an image of CMYK": ("TIFF", *in_mode("CMYK")),
    "an image with a palette": ("PNG", *in_mode("P")),
    "an image with alpha": ("PNG", *transparent()),
    "an image that its EXIF turns": ("TIFF", *turned()),
    "an image under the name of another format": ("BMP", *in_mode("RGB")),
}


@pytest.mark.parametrize("case", READ)
def test_an_odd_image_is_read_as_the_page_says(tmp_path, case):
    form, picture, pixels = READ[case]
    options = {"exif": picture.getexif()} if picture.getexif() else {}
    picture.save(tmp_path / "odd.png", format=form, **options)
    assert np.array_equal(read_frame(tmp_path / "odd.png"), pixels)


def test_a_frame_of_one_pixel_is_followed():
    session = Session(load_model(), size=16)
    for mask in (np.ones((1, 1), np.uint8), None):
        assert session.step(np.full((1, 1, 3), 90, np.uint8), mask).mask.shape == (1, 1)


def test_a_folder_of_100_000_images_is_listed_and_one_is_read(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "7.png")
    for number in range(100_000):
        if number != 7:
            (tmp_path / f"{number}.png").touch()
    frames = open_frames(tmp_path)
    assert frames.count == 100_000
    assert [frames.name(i) for i in (0, 10, 99_999)] == ["0", "10", "99999"]  # in natural order
    assert np.array_equal(frames.reel()[frames.find("7")], PIXELS)
    with pytest.raises(ValueError, match=r"/0\.png is not an image"):
        next(iter(frames))


def test_a_folder_that_holds_itself_is_read_once(tmp_path):
    Image.fromarray(PIXELS).save(tmp_path / "0.png")
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "1.png").symlink_to(tmp_path)
    with pytest.raises(ValueError, match=r"1\.png is a folder"):
        list(open_frames(tmp_path))
    (tmp_path / "1.png").unlink()
    assert len(list(open_frames(tmp_path / "self" / "self"))) == 1


ODD = ("a folder of 100,000 images", "a folder with a link to itself")


@pytest.mark.parametrize("case", [*IMAGES, *READ, *ODD])
def test_the_page_tells_of_each_case(case):
    assert f"| {case} |" in PAGE.read_text()
