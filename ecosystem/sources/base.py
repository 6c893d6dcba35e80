"""Sources: where the documents that people write come from.

A source is a frozen value; opened, it is a :class:`Reservoir` that hands out its documents in one random order
that never changes within a run, so that how far it has been drawn is one number.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Protocol

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator

from ecosystem.errors import DataError
from ecosystem.registry import Registry
from ecosystem.spec import Spec
from ecosystem.streams import Stream, Streams

MOST_ROWS = 1 << 24  # of an endless source that one policy may take at a time: 16.8 million
_BLOCKS = 1 << 36  # of so many rows that there are to draw from


@dataclass(frozen=True, eq=False)
class Truth:
    """What is exactly known of the distribution that documents come from; None: not known, or there is no such thing.

    ``mean`` [d] and ``covariance`` [d, d] of vectors, and whether they are those of a ``normal`` distribution;
    ``probabilities`` [K] of the symbols 0, 1, …, K - 1; ``weights`` [d] of a regression of the last number on others;
    ``plane`` [d], of length 1: the last number is a label, right if it is the sign of the others' product with it.
    """

    mean: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    plane: NDArray[np.float64] | None = None
    normal: bool = False


class Reservoir(Protocol):
    """An opened source: held-out documents, and the others in the order in which they may be drawn."""

    size: int | None  # documents that can be drawn (held-out ones are not among them); None: endless
    digest: str  # hash of everything in it, recorded with a run
    held_out: pl.Series  # never published: the reference of every measurement
    topics: pl.Series | None  # of the held-out documents: which part of the source each is from; None: nobody knows
    truth: Truth | None  # what is known exactly of where they come from; None: nothing

    def rows(self, rows: NDArray[np.int64]) -> pl.Series:
        """Return documents by their place in the drawing order; raise DataError past the end."""

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64] | None:
        """Return the exact log-likelihood of each document in nats where the truth is known, else None."""


class Source(Spec):
    """Where documents come from; ``held_out`` is the share (below 1) or number of documents never published."""

    modality: ClassVar[Literal["text", "vector", "category"]] = "text"
    labelled: ClassVar[bool] = False  # True: its documents carry labels that are right or wrong
    has_topics: ClassVar[bool] = False  # whether it knows which part of it a document is from

    held_out: Annotated[float, Field(ge=0)] = Field(
        0.1, description="documents never published, for measuring: a share (below 1) or a number (1 or more)"
    )

    @field_validator("held_out")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value > 1 and not float(value).is_integer():
            raise ValueError(f"must be a share below 1 or a whole number of documents, not {value!r}")
        return value

    @property
    def width(self) -> int | None:
        """Numbers in a vector document, or different symbols; None where only the documents themselves tell."""
        return None

    @abstractmethod
    def open(self, name: str, streams: Streams, base: Path) -> Reservoir:
        """Read (or prepare to make) the documents; raise DataError if there are none.

        ``name`` is the source's name in the scenario, ``base`` the folder of the scenario file: a path that is
        not found from the current folder is sought there.
        """


class FiniteReservoir:
    """A reservoir of documents that are all there from the beginning, in a random order of their own.

    Each document draws one number from the stream ``source/<name>``, keyed by its place in the data; they are
    handed out in the order of these numbers. Held-out documents are the last in that order, so that a larger
    or smaller held-out part leaves row 0, row 1, … what they were.
    """

    truth: Truth | None = None

    def __init__(
        self, name: str, docs: pl.Series, held_out: float, streams: Streams, topics: pl.Series | None = None
    ) -> None:
        """``docs`` and their ``topics``: one row per document; ``held_out`` as in :class:`Source`."""
        count = docs.len()
        if count == 0:
            raise DataError(f"sources.{name}: there are no documents in it.")
        kept_back = int(held_out) if held_out >= 1 else math.ceil(round(held_out * count, 9))
        if kept_back >= count:
            raise DataError(
                f"sources.{name}: held_out = {held_out:g} keeps back {kept_back:,} of {count:,} documents and leaves "
                f"none to publish; lower sources.{name}.held_out or give more documents."
            )
        order = np.argsort(streams.at(f"source/{name}").uniform(np.arange(count)), kind="stable")
        self.name = name
        self.size: int | None = count - kept_back
        self.digest = digest(docs)
        self.held_out = docs.gather(order[count - kept_back :]).alias("content")
        self.topics = None if topics is None else topics.gather(order[count - kept_back :])
        self._drawn = docs.gather(order[: count - kept_back]).alias("content")

    def rows(self, rows: ArrayLike) -> pl.Series:
        """Return documents by their place in the drawing order, shape [rows]; raise DataError past the end."""
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if index.size and not 0 <= index.min() <= index.max() < self._drawn.len():
            raise DataError(
                f"sources.{self.name}: rows {index.min():,} to {index.max():,} were asked of a source whose "
                f"{self._drawn.len():,} documents that may be published are rows 0 to {self._drawn.len() - 1:,}."
            )
        return self._drawn.gather(index)

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64] | None:
        """Return None: nobody knows the true distribution of collected documents."""
        return None


class EndlessSource(Source):
    """A source that never runs dry; ``held_out`` is a number of documents, for there is no whole to take a share of."""

    held_out: Annotated[float, Field(ge=0)] = Field(500, description="number of documents kept for measuring")

    @field_validator("held_out")
    @classmethod
    def _number(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError(
                f"an endless source has no share to keep back; give a number of documents such as 500, not {value!r}"
            )
        return value


class EndlessReservoir(ABC):
    """Documents made when they are asked for, each a function of (seed, source name, row) alone.

    Held-out documents come from streams of their own, so that no row is one of them and their number changes none.
    """

    size: int | None = None
    topics: pl.Series | None = None

    def __init__(self, spec: EndlessSource, name: str, streams: Streams, truth: Truth) -> None:
        """``name`` is the source's name in the scenario; whatever :meth:`draw` needs must be there already."""
        self.name = name
        self.truth: Truth | None = truth
        self._streams = streams
        self.digest = hashlib.sha256(repr((sorted(spec.plain().items()), streams.seed, name)).encode()).hexdigest()
        self.held_out = self.draw(np.arange(int(spec.held_out)), "held_out")

    def rows(self, rows: ArrayLike) -> pl.Series:
        """Return documents by number (any number from 0), shape [rows]; raise DataError below 0."""
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if index.size and index.min() < 0:
            raise DataError(f"sources.{self.name}: row {index.min()} was asked for; rows are counted from 0.")
        return self.draw(index, "rows")

    def noise(self, rows: NDArray[np.int64], what: str, choice: int = 0) -> NDArray[np.float64]:
        """Return one uniform number per row for one of the choices that make up a document."""
        return self._streams.at(f"source/{self.name}/{what}", choice).uniform(rows)

    @abstractmethod
    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Make documents by number from the luck of ``what``: "rows" or "held_out"."""

    @abstractmethod
    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64]:
        """Return the exact log-likelihood of each document in nats, -inf where it is impossible."""


def some_rows(n: int, first: int, size: int | None, stream: Stream) -> NDArray[np.int64]:
    """Return ``n`` rows of a source at random, ascending: of the rows from ``first`` to before ``size``, if finite.

    Of an endless source (``size`` None) they are consecutive rows of a block far behind those that people draw.
    """
    if size is None:
        block = (1 + stream.integer() % _BLOCKS) * MOST_ROWS
        return np.arange(block, block + min(n, MOST_ROWS), dtype=np.int64)
    rows = np.arange(first, max(first, size), dtype=np.int64)
    return np.sort(rows[np.argsort(stream.uniform(rows), kind="stable")[:n]])


def digest(docs: pl.Series) -> str:
    """Return the SHA-256, in hexadecimal, of documents in their order; independent of chunks and platform."""
    total = hashlib.sha256()
    if docs.dtype == pl.String:
        for text in docs:
            data = text.encode()
            total.update(len(data).to_bytes(8, "little"))
            total.update(data)
    else:
        values = docs.to_numpy()
        total.update(f"{values.dtype.str} {values.shape}".encode())
        total.update(np.ascontiguousarray(values).tobytes())
    return total.hexdigest()


SOURCES: Registry[type[Source]] = Registry(
    "source",
    "ecosystem.sources.python_docs",
    "ecosystem.sources.files",
    "ecosystem.sources.formal_language",
    "ecosystem.sources.vectors",
    "ecosystem.sources.images",
    "ecosystem.sources.categorical",
    "ecosystem.sources.regression",
    "ecosystem.sources.labelled",
)
