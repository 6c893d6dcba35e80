"""Texts of calls to workers: every text is sent once, and calls hold row numbers.

A text that several workers read is in a table that all of them share, which Ray keeps once per machine. The others are
in a table of the one worker that reads them. Large arrays that several workers read are shared too. Documents of other
types are sent as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

Table = NDArray[np.uint8]
"""A column of texts as Arrow IPC; Ray maps arrays from shared memory and copies no bytes."""
Shared = tuple[Table | None, list[NDArray[Any]]]
"""What several workers read: texts, and large arrays."""
_EMPTY = pl.Series([], dtype=pl.String)
_LARGE = 1 << 16  # bytes of an array


@dataclass
class Rows:
    """Stands for a series of texts in a call: its rows in the worker's tables, set by :meth:`Texts.tables`."""

    numbers: NDArray[np.int32]


@dataclass
class Place:
    """Stands for a large array in a call: the array, or its number among the shared ones (:meth:`Texts.arrays`)."""

    array: NDArray[Any] | None
    number: int = -1


@dataclass(frozen=True)
class Packed:
    """A frozen value, such as a request, some of whose fields are packed."""

    value: Any  # with empty series in these fields
    fields: dict[str, Any]


class Texts:
    """Packs the arguments of one call to several workers."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, int], Rows] = {}  # by worker and identity of a series
        self._series: list[tuple[int, pl.Series, Rows]] = []
        self._places: dict[int, list[tuple[int, Place]]] = {}  # by identity of an array: worker, place

    def pack(self, worker: int, value: Any) -> Any:
        """Return an argument for a worker with every series of texts and every large array in it replaced."""
        if isinstance(value, pl.Series):
            return self._add(worker, value) if value.dtype == pl.String else value
        if isinstance(value, np.ndarray) and value.nbytes > _LARGE:
            place = Place(value)
            self._places.setdefault(id(value), []).append((worker, place))
            return place
        if isinstance(value, tuple | list):
            return type(value)(self.pack(worker, one) for one in value)
        if is_dataclass(value) and not isinstance(value, type):
            values = {field.name: getattr(value, field.name) for field in fields(value)}
            packed = {n: self.pack(worker, one) for n, one in values.items() if isinstance(one, pl.Series | np.ndarray)}
            if not packed:
                return value
            return Packed(replace(value, **{name: values[name][:0] for name in packed}), packed)
        return value

    def _add(self, worker: int, series: pl.Series) -> Rows:
        key = worker, id(series)  # the same series is often in the requests of many members
        if key not in self._rows:
            self._rows[key] = Rows(np.zeros(0, np.int32))
            self._series.append((worker, series, self._rows[key]))
        return self._rows[key]

    def arrays(self) -> list[NDArray[Any]]:
        """Number the large arrays that several workers read; return them."""
        shared: list[NDArray[Any]] = []
        for places in self._places.values():
            if len({worker for worker, _ in places}) > 1:
                array = places[0][1].array
                assert array is not None
                for _, place in places:
                    place.array, place.number = None, len(shared)
                shared.append(array)
        return shared

    def tables(self) -> tuple[pl.Series, dict[int, pl.Series]]:
        """Number the texts; return those that several workers read, and the others by worker."""
        if not self._series:
            return _EMPTY, {}
        lengths = [series.len() for _, series, _ in self._series]
        readers = np.repeat([worker for worker, _, _ in self._series], lengths)
        frame = pl.DataFrame({"text": pl.concat([series.alias("text") for _, series, _ in self._series])})
        frame = frame.with_columns(worker=pl.Series(readers, dtype=pl.Int32))
        text = frame.group_by("text", maintain_order=True).agg(
            pl.col("worker").first(), shared=pl.col("worker").n_unique() > 1
        )
        shared = text.filter("shared")["text"]
        own = {int(worker): part["text"] for (worker,), part in text.filter(~pl.col("shared")).group_by("worker")}
        numbered = [pl.DataFrame({"text": shared, "number": np.arange(shared.len(), dtype=np.int32)})]
        numbered += [
            pl.DataFrame({"text": texts, "number": np.arange(texts.len(), dtype=np.int32) + shared.len()})
            for texts in own.values()
        ]
        numbers = frame.join(pl.concat(numbered), on="text", how="left", maintain_order="left")["number"].to_numpy()
        for part, (_, _, rows) in zip(np.split(numbers, np.cumsum(lengths)[:-1]), self._series, strict=True):
            rows.numbers = part.astype(np.int32)
        return shared, own


def encoded(texts: pl.Series) -> Table:
    """Return a series as Arrow IPC."""
    buffer = BytesIO()
    pl.DataFrame([texts.alias("text")]).write_ipc(buffer, compression="uncompressed")
    return np.frombuffer(buffer.getbuffer(), np.uint8)


def decoded(table: Table | None) -> pl.Series:
    """Return the series of :func:`encoded`; none if there is no table."""
    return _EMPTY if table is None else pl.read_ipc(BytesIO(table.data))["text"]


def unpack(value: Any, texts: pl.Series, arrays: Sequence[NDArray[Any]] = ()) -> Any:
    """Replace what stands for series of ``texts``, the shared ones first, and for ``arrays`` in a packed argument."""
    if isinstance(value, Place):
        return arrays[value.number] if value.array is None else value.array
    if isinstance(value, Rows):
        return texts.gather(value.numbers)
    if isinstance(value, Packed):
        return replace(value.value, **{name: unpack(one, texts, arrays) for name, one in value.fields.items()})
    if isinstance(value, tuple | list):
        return type(value)(unpack(one, texts, arrays) for one in value)
    return value


def joined(shared: Table | None, own: Table | None) -> pl.Series:
    """Return the texts of a worker's two tables."""
    parts: Sequence[pl.Series] = [decoded(shared), decoded(own)]
    return pl.concat(parts)
