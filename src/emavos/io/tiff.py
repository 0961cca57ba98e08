"""The pictures that a TIFF lists, without decoding any."""

from __future__ import annotations

import os
import re
import struct
from typing import Any

_MOST_TEXT = 1 << 16  # characters of a description that are searched


def planes_of(description: object) -> tuple[int, int]:
    """The numbers of channels and of slices at each time of a stack; 1 if its description names none.

    description: the tag ImageDescription of the first picture, as ImageJ or OME write it.

    Slices without times are the times of a film that was saved as a stack, so they count as 1.
    """
    if not isinstance(description, str):
        return 1, 1
    if description.startswith("ImageJ="):
        words, form = ("channels", "slices", "frames"), "^{}=([0-9]{{1,6}})$"
    else:  # attributes of the element <Pixels ...>
        words, form = ("SizeC", "SizeZ", "SizeT"), ' {}="([0-9]{{1,6}})"'
        description = description[max(description.find("<Pixels "), 0) :].partition(">")[0]
    found = [re.search(form.format(word), description[:_MOST_TEXT], re.MULTILINE) for word in words]
    channels, slices, times = (int(match[1]) if match else 1 for match in found)
    return channels, slices if times > 1 else 1


def kinds_of_pages(file: Any) -> list[int]:
    """NewSubfileType of each picture of a TIFF; bit 0 marks a reduced copy.

    file: open, seekable and binary; its position stays.

    Pillow counts pictures in quadratic time, so a file of 2 MB could keep it busy for hours.

    Raises ValueError if the list of pictures is cut off, or larger than the file.
    """
    start, size = file.tell(), file.seek(0, os.SEEK_END)

    def numbers(form: str, place: int) -> tuple[int, ...]:
        file.seek(place)
        content = file.read(struct.calcsize(order + form))
        try:
            return struct.unpack(order + form, content)
        except struct.error as error:
            raise ValueError("its list of pictures is cut off") from error

    file.seek(0)
    order = "<" if file.read(2) == b"II" else ">"
    # BigTIFF has the number 43, and longer counts, entries and places in the file
    big = 43 in numbers("BB", 2)
    count_form, entry, place_form, value = ("Q", 20, "Q", 12) if big else ("H", 12, "I", 8)
    kinds, seen, read = list[int](), set[int](), 0
    (place,) = numbers(place_form, 8 if big else 4)
    while place and place not in seen:  # a list that leads back to itself ends there, as for Pillow
        seen.add(place)
        (count,) = numbers(count_form, place)
        place += struct.calcsize(count_form)
        read += count * entry
        if read > size:
            raise ValueError("its list of pictures is larger than the file")
        file.seek(place)
        entries = file.read(count * entry)
        kind = 0
        for at in range(0, len(entries) - entry + 1, entry):
            if struct.unpack_from(f"{order}H", entries, at)[0] == 254:
                (form,) = struct.unpack_from(f"{order}H", entries, at + 2)
                (kind,) = struct.unpack_from(order + ("H" if form == 3 else "I"), entries, at + value)
        kinds.append(kind)
        (place,) = numbers(place_form, place + count * entry)
    file.seek(start)
    return kinds
