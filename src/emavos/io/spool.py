"""Arrays on disk, for what must be seen again and is too much to hold."""

from __future__ import annotations

import zlib
from tempfile import TemporaryFile
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
        self._file = TemporaryFile()  # noqa: SIM115, closed by close()
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
        self._file.seek(self._end)
        self._file.write(packed)
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
        self._file.close()
