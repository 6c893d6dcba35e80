"""Arrays that only grow, in memory or in files.

Files are read in blocks and not mapped, since every page of a map that was touched counts as memory of the process.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.corpus.storage.scratch import Scratch

_RECENT = 64 << 20  # bytes of rows above which they move to a file
_TAKEN = 1 << 12  # rows read by number at a time
_GAP = 1 << 12  # bytes between two rows that are read through rather than skipped


class FileArray:
    """An array in a file of a scratch folder, to which rows are appended, and which is read in parts."""

    def __init__(self, scratch: Scratch, dtype: type[np.generic], shape: tuple[int, ...] = ()) -> None:
        """Create an empty array; ``shape`` is that of a row."""
        self._scratch = scratch  # deletes the file with itself
        self._path = scratch.file()
        self._path.touch()
        self._dtype, self._shape = np.dtype(dtype), shape
        self._row = self._dtype.itemsize * math.prod(shape)  # bytes
        self._rows = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        with self._path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, dtype=self._dtype).data)  # tofile() hides the cause of an error
        self._rows += len(rows)

    def read(self, first: int, last: int) -> NDArray[Any]:
        """Return the rows from ``first`` to ``last``."""
        return self.spans(np.array([min(first, len(self))]), np.array([min(last, len(self))]))

    def spans(self, starts: NDArray[np.int64], stops: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows from each start to the stop at the same place, one span after the other."""
        sizes = (stops - starts) * self._row
        at = np.cumsum(sizes) - sizes
        rows = np.empty((int(sizes.sum()) // self._row, *self._shape), self._dtype)
        bytes_of_rows = rows.reshape(-1).view(np.uint8).data
        with self._path.open("rb", buffering=0) as file:
            for start, size, place in zip((starts * self._row).tolist(), sizes.tolist(), at.tolist(), strict=True):
                file.seek(start)
                file.readinto(bytes_of_rows[place : place + size])
        return rows

    def take(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows by number, in the order of ``numbers``."""
        unique, inverse = np.unique(numbers, return_inverse=True)
        rows = np.empty((unique.size, *self._shape), self._dtype)
        for i in range(0, unique.size, _TAKEN):
            wanted = unique[i : i + _TAKEN]
            first = np.append(True, np.diff(wanted) * self._row > _GAP)  # of a span
            starts, span = wanted[first], np.cumsum(first) - 1
            stops = wanted[np.append(first[1:], True)] + 1
            before = np.cumsum(stops - starts) - (stops - starts)
            rows[i : i + _TAKEN] = self.spans(starts, stops)[wanted - starts[span] + before[span]]
        return rows[inverse]

    def delete(self) -> None:
        """Delete the file."""
        self._path.unlink()


class GrowingArray:
    """An array in memory to which rows are appended."""

    def __init__(self, dtype: type[np.generic], shape: tuple[int, ...] = ()) -> None:
        """Create an empty array; ``shape`` is that of a row."""
        self._rows, self._size = np.empty((0, *shape), dtype), 0

    @property
    def array(self) -> NDArray[Any]:
        """All rows."""
        return self._rows[: self._size]

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        last = self._size + len(rows)
        if last > len(self._rows):
            grown = np.empty((max(last, len(self._rows) * 3 // 2), *self._rows.shape[1:]), self._rows.dtype)
            grown[: self._size] = self.array
            self._rows = grown
        self._rows[self._size : last] = rows
        self._size = last


class StoredRows:
    """An array to which rows are appended: the first ones in a file, if there are many, the others in memory."""

    def __init__(self, scratch: Scratch, dtype: type[np.generic], shape: tuple[int, ...]) -> None:
        """Create an empty array; ``shape`` is that of a row."""
        self._scratch, self._dtype, self._shape = scratch, dtype, shape
        self._recent = GrowingArray(dtype, shape)
        self._file: FileArray | None = None

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        self._recent.append(rows)
        if self._recent.array.nbytes > _RECENT:
            if self._file is None:
                self._file = FileArray(self._scratch, self._dtype, self._shape)
            self._file.append(self._recent.array)
            self._recent = GrowingArray(self._dtype, self._shape)

    def take(self, numbers: NDArray[np.int64]) -> NDArray[Any]:
        """Return rows by number, in the order of ``numbers``."""
        if self._file is None:
            taken: NDArray[Any] = self._recent.array[numbers]
            return taken
        rows = np.empty((numbers.size, *self._shape), self._dtype)
        filed = numbers < len(self._file)
        rows[filed] = self._file.take(numbers[filed])
        rows[~filed] = self._recent.array[numbers[~filed] - len(self._file)]
        return rows
