"""Arrays on disk, for what must be seen again and is too much to hold."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Spool:
    """Arrays of uint8 in a temporary file, compressed without loss, read by the order they came in.

    In memory is where each begins, and nothing else. The file has no name and is gone when the spool is
    closed or its process ends; it lies where `tempfile` puts such files, which TMPDIR sets.
    """

    def __init__(self) -> None:
        with named_temporary():
            self._file = tempfile.TemporaryFile()  # noqa: SIM115, closed by close()
        self._places: list[tuple[int, tuple[int, ...]]] = []
        self._end = 0

    def __len__(self) -> int:
        return len(self._places)

    @property
    def nbytes(self) -> int:
        """Bytes on disk."""
        return self._end

    def append(self, array: NDArray[np.uint8]) -> None:
        packed = zlib.compress(np.ascontiguousarray(array).data, level=1)
        with named_temporary():
            self._file.seek(self._end)
            self._file.write(packed)
            self._file.flush()
        self._places.append((self._end, array.shape))
        self._end += len(packed)

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        begin, shape = self._places[index]
        end = self._places[index + 1][0] if index + 1 < len(self) else self._end
        self._file.seek(begin)
        return np.frombuffer(zlib.decompress(self._file.read(end - begin)), np.uint8).reshape(shape)

    def __enter__(self) -> Spool:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: Any, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        with suppress(OSError):  # of a full disk, which `append` has told of
            self._file.close()


@contextmanager
def named_temporary() -> Iterator[None]:
    """What the disk says of a temporary file names its folder, and TMPDIR, which names another."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # no folder will do: `tempfile` has said so
            raise
        reason = f"{os.strerror(error.errno)}; have TMPDIR name a folder with room for temporary files"
        raise OSError(error.errno, reason, tempfile.gettempdir()) from error
