"""The sound of a project's video, stored beside the frames without encoding it again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from emavos.io.ffmpeg import SAFE, import_av
from emavos.io.notices import notice
from emavos.io.sound import CODECS, Sound, codec_of, packets
from emavos.io.whole import partial_folder
from emavos.ui.folder import Folder

FILE = "sound.mka"
LARGEST = 1 << 28  # bytes of stored sound: more than four hours at 128 kbit/s
_STEP = 1000  # packets between two chances to stop
_DISK = (errno.EDQUOT, errno.EFBIG, errno.ENOSPC, errno.EROFS)


class _NoSoundError(ValueError):
    """Why sound is not copied; empty if there is none."""


def keep_sound(files: Folder, sound: Sound, name: str) -> Iterator[None]:
    """Store the sound of a video in the folder of its project; yields now and then, so that you can stop.

    If the codec does not fit an mp4, or the sound is damaged or larger than `LARGEST`, a note tells so.

    files: folder of the project.
    sound: part of the sound that belongs to the frames.
    name: name of the video, for notes.

    Raises OSError if the disk is full or read-only.
    """
    av = import_av(f"the sound of {name}")
    try:
        with files.staged(FILE) as path:
            place = f"file:{os.path.abspath(sound.path)}"
            with av.open(place, options=dict(SAFE), metadata_errors="replace") as container:
                yield from _copy(av, container, sound, path, "matroska", name)
    except _NoSoundError as why:
        if str(why):
            notice(f"overlays of {name} will have no sound: {why}")
    except av.FFmpegError as error:
        if error.errno in _DISK:
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(files.path / FILE)) from error
        notice(f"overlays of {name} will have no sound: {error.strerror}")


@contextmanager
def stored_sound(files: Folder, path: Path, end: float) -> Iterator[Sound | None]:
    """Context with the stored sound for an mp4, read from a copy that is removed at the end.

    None if there is no sound, or a note tells why the sound is left out. The project may come from a
    stranger, so the copy is first written to an mp4 of its own: sound that fails there would spoil the mp4
    with the frames.

    files: folder of the project.
    path: mp4 to write, with a folder for the copy.
    end: length of the mp4 in seconds.
    """
    av = import_av(f"writing {path}")
    with partial_folder(path.parent, FILE) as folder:
        sound: Sound | None = None
        try:
            if FILE not in files.names():
                raise _NoSoundError
            sound = _copy_stored(av, files, Sound(folder / FILE, end=end), folder / "trial.mp4")
        except av.FFmpegError as error:
            notice(f"{path.name} has no sound: {FILE} is damaged: {error.strerror}")
        except (OSError, ValueError, ArithmeticError) as error:
            if str(error):
                notice(f"{path.name} has no sound: {error}")
        yield sound


def _copy_stored(av: Any, files: Folder, sound: Sound, trial: Path) -> Sound:
    """Copy the stored sound to `sound.path`, and from there to an mp4; returns the sound."""
    with files.open(FILE) as file:
        if os.fstat(file.fileno()).st_size > LARGEST:
            raise _NoSoundError(f"{FILE} has more than {LARGEST:,} bytes")
        with av.open(file, format="matroska", options=dict(SAFE), metadata_errors="replace") as container:
            for _ in _copy(av, container, sound, sound.path, "matroska", FILE):
                pass
    with av.open(f"file:{os.path.abspath(sound.path)}", options=dict(SAFE)) as container:
        for _ in _copy(av, container, sound, trial, "mp4", FILE):
            pass
    trial.unlink()
    return sound


def _copy(av: Any, container: Any, sound: Sound, path: Path, kind: str, name: str) -> Iterator[None]:
    """Copy the packets of an opened container to a new file; yields every `_STEP` packets.

    kind: FFmpeg's name of the new file's format.
    name: of the sound, for notes.

    Raises _NoSoundError if the container has no sound to copy, and av.FFmpegError.
    """
    stream = container.streams.best("audio")
    if stream is None:
        raise _NoSoundError
    codec = codec_of(stream)
    if codec not in CODECS[".mp4"]:
        raise _NoSoundError(f"{codec or 'an unknown codec'} cannot be copied into an mp4")
    count = size = 0
    with av.open(str(path), "w", format=kind, options={"fflags": "bitexact"}) as copy:
        copied = copy.add_stream_from_template(stream)
        for packet in _whole(av, sound, container, stream, name):
            size += packet.size
            if size > LARGEST:
                raise _NoSoundError(f"the sound of {name} has more than {LARGEST:,} bytes")
            packet.stream = copied
            copy.mux(packet)
            count += 1
            if count % _STEP == 0:
                yield
    if not count:
        raise _NoSoundError


def _whole(av: Any, sound: Sound, container: Any, stream: Any, name: str) -> Iterator[Any]:
    """The packets up to the end or to damage, which is noted."""
    reading = packets(sound, container, stream)
    while True:
        try:
            packet = next(reading, None)
        except av.FFmpegError as error:
            notice(f"{name} has only a part of its sound: {error.strerror}")
            return
        if packet is None:
            return
        yield packet[1]
