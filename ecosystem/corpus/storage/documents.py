"""The table of all documents ever published, larger than memory: recent rows in memory, the others in Arrow files.

The files are mapped, and rows are read when asked for. They can be made again from the Parquet files of a run, so they
are deleted with the table.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import empty
from ecosystem.corpus.storage.scratch import Scratch

if TYPE_CHECKING:
    import pyarrow as pa

_MEMORY = 64 << 20  # bytes of documents above which recent rows move to a file
_ROW = 200  # bytes of a row without its content
_AT_ONCE = 8192  # rows read before pages are released
_CHUNKS = 8  # above this number, polars copies a column before it gathers rows


class Documents:
    """A table that only grows; a row is read by its number."""

    def __init__(self, schema: Mapping[str, pl.DataType], scratch: Scratch) -> None:
        """Create an empty table; ``schema`` has a column ``size`` (bytes of the content of a row)."""
        self._schema = dict(schema)
        self._scratch = scratch
        self._mapped: list[_Mapped] = []
        self._starts = np.zeros(1, np.int64)  # of each file, and of the rows in memory
        self._recent = empty(self._schema)
        self._recent_bytes = 0

    def __len__(self) -> int:
        """Return the number of rows."""
        return int(self._starts[-1]) + self._recent.height

    def append(self, rows: pl.DataFrame) -> None:
        """Append rows (columns of the schema)."""
        self._recent = pl.concat([self._recent, _only(rows, self._schema)])
        self._recent_bytes += int(rows["size"].sum()) + _ROW * rows.height
        if self._recent_bytes > _MEMORY:
            self._mapped.append(_Mapped(self._recent, self._scratch))
            self._starts = np.append(self._starts, len(self))
            self._recent, self._recent_bytes = empty(self._schema), 0
        elif self._recent.n_chunks() > _CHUNKS:
            self._recent = self._recent.rechunk()

    def rows(self, numbers: NDArray[np.int64], names: Sequence[str]) -> pl.DataFrame:
        """Return rows by number, in the order of ``numbers``, with the columns ``names``."""
        recent = _only(self._recent, names)
        if not self._mapped:
            return recent[numbers]
        part = np.searchsorted(self._starts, numbers, side="right") - 1
        order = np.argsort(part, kind="stable")
        first = np.searchsorted(part[order], np.arange(len(self._starts) + 1))
        frames = []
        for number, start in enumerate(self._starts.tolist()):
            inside = numbers[order[first[number] : first[number + 1]]] - start
            if inside.size and number < len(self._mapped):
                frames.append(self._mapped[number].rows(inside, names))
            elif inside.size:
                frames.append(recent[inside])
        if not frames:
            return recent.clear()
        back = np.empty_like(order)
        back[order] = np.arange(order.size)
        return pl.concat(frames)[back]

    def parts(self, name: str) -> Iterator[pl.Series]:
        """Yield one column of all rows, part by part."""
        for part in self._mapped:
            yield part.columns([name])[name]
        yield self._recent[name]

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        """Return all rows, with the columns ``names``."""
        return pl.concat([*(part.columns(names) for part in self._mapped), _only(self._recent, names)])


def _only(frame: pl.DataFrame, names: Iterable[str]) -> pl.DataFrame:
    """Return columns of a frame; the method ``select`` plans a query, which takes several times as long."""
    return pl.DataFrame([frame[name] for name in names])


class _Mapped:
    """Rows in an Arrow file that is mapped into memory."""

    def __init__(self, frame: pl.DataFrame, scratch: Scratch) -> None:
        """Write the rows to a new file, and map it."""
        import pyarrow as pa  # only for webs that are too large for memory

        path = scratch.file(".arrow")
        frame.write_ipc(path, compression="uncompressed", compat_level=pl.CompatLevel.oldest())
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        self._table: pa.Table = pa.ipc.open_file(pa.py_buffer(self._map)).read_all()
        self._types = dict(frame.schema)

    def rows(self, numbers: NDArray[np.int64], names: Sequence[str]) -> pl.DataFrame:
        table, frames = self._table.select(list(names)), []
        for first in range(0, numbers.size, _AT_ONCE):
            frames.append(self._own(table.take(numbers[first : first + _AT_ONCE])))
            self._release()
        return pl.concat(frames)

    def columns(self, names: Sequence[str]) -> pl.DataFrame:
        frame = self._own(self._table.select(list(names)).take(np.arange(self._table.num_rows)))
        self._release()
        return frame

    def _own(self, table: pa.Table) -> pl.DataFrame:
        """Return a copy of rows as a frame of the types of the schema."""
        frame = pl.from_arrow(table)
        assert isinstance(frame, pl.DataFrame)
        return frame.cast({name: self._types[name] for name in table.column_names})

    def _release(self) -> None:
        """Let the system take back the pages that were read; they are read again from the file when needed."""
        if hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
