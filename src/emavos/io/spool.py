"""Arrays stored on disk, for data needed again but too large for memory."""

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
    """uint8 arrays in a temporary file, compressed losslessly and read by index.

    Memory holds only the position of each array. The file has no name, and disappears when the spool is
    closed or the process ends. The folder is `tempfile`'s, so you can choose it with TMPDIR.
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
        """Size on disk in bytes."""
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
        with suppress(OSError):  # a full disk, already reported by `append`
            self._file.close()


@contextmanager
def named_temporary() -> Iterator[None]:
    """Name the folder of temporary files in OSErrors, and suggest TMPDIR."""
    try:
        yield
    except OSError as error:
        if error.errno is None:  # `tempfile` found no usable folder, and its message says so
            raise
        reason = f"{os.strerror(error.errno)}; have TMPDIR name a folder with room for temporary files"
        raise OSError(error.errno, reason, tempfile.gettempdir()) from error
