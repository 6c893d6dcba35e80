"""Sources of human documents.

A source is a frozen value. Opened, it is a :class:`Reservoir`, which returns its documents in one random order that
never changes within a run. A single number therefore records how many documents have been drawn.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Protocol

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, field_validator

from ecosystem.corpus.storage.documents import Documents
from ecosystem.errors import DataError
from ecosystem.registry import Registry
from ecosystem.spec import Spec
from ecosystem.streams import Stream, Streams
from ecosystem.types import Modality

MAX_ROWS = 1 << 24  # rows that a policy may take from an endless source at a time: 16.8 million
STATED = ("licence", "description")  # what a source says about itself, on which no number depends
_PLENTY = 5_000  # documents; no built-in source of a fixed size has many more
_BLOCKS = 1 << 36  # blocks of that many rows, of which a policy draws one


@dataclass(frozen=True, eq=False)
class Truth:
    """Exact properties of the distribution of documents; None: unknown, or not defined for such documents.

    ``mean`` [d] and ``covariance`` [d, d] of vectors, and whether their distribution is ``normal``. ``probabilities``
    [K] of the symbols 0, 1, …, K - 1. ``weights`` [d] of a regression of the last number on the others. ``plane`` [d],
    of length 1, if the last number is a label: it is right if it is the sign of the product of the others with the
    plane.
    """

    mean: NDArray[np.float64] | None = None
    covariance: NDArray[np.float64] | None = None
    probabilities: NDArray[np.float64] | None = None
    weights: NDArray[np.float64] | None = None
    plane: NDArray[np.float64] | None = None
    normal: bool = False


class Reservoir(Protocol):
    """An opened source: held-out documents, and all other documents in drawing order."""

    size: int | None  # number of documents that can be drawn, held-out ones excluded; None: endless
    digest: str  # hash of the contents, recorded with a run
    held_out: pl.Series  # never published: the reference of every measurement
    topics: pl.Series | None  # topic of each held-out document: the part of the source that contains it; None: unknown
    truth: Truth | None  # exact properties of the distribution; None: unknown

    def rows(self, rows: NDArray[np.int64]) -> pl.Series:
        """Return documents by position in the drawing order; raise DataError past the end."""

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64] | None:
        """Return the exact log-likelihood of each document in nats, or None if the truth is unknown."""


class Source(Spec):
    """A source of human documents; ``held_out`` is the share (below 1) or number of documents to hold out."""

    modality: ClassVar[Modality] = "text"
    labelled: ClassVar[bool] = False  # True: documents carry labels, which are right or wrong
    has_density: ClassVar[bool] = False  # True: vectors whose exact density is known
    has_topics: ClassVar[bool] = False  # True: each document has a topic, the part of the source that contains it
    shipped: ClassVar[str] = ""  # licence of documents that come with a package; "": those of the user's own
    language: ClassVar[str] = ""  # language of such documents (ISO 639-1)

    held_out: Annotated[float, Field(ge=0)] = Field(
        0.1, description="documents kept for measurement, never published: a share (below 1) or a number (1 or more)"
    )

    licence: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="licence of the documents, such as CC-BY-4.0, for the data statement of reports"
    )
    description: Annotated[str, Field(min_length=1)] | None = Field(
        None, description="what the documents are and where they come from, for the data statement of reports"
    )

    @field_validator("held_out")
    @classmethod
    def _share_or_number(cls, value: float) -> float:
        if value > 1 and not float(value).is_integer():
            raise ValueError(f"must be a share below 1 or a whole number of documents, not {value!r}")
        return value

    def defining(self) -> dict[str, Any]:
        """Return the settings on which the documents depend, as plain data: all but what it states."""
        return {key: value for key, value in self.plain().items() if key not in STATED}

    def origin(self) -> str:
        """Return where the documents come from, as written in the scenario; "" if they are made or shipped."""
        return ""

    @property
    def width(self) -> int | None:
        """Numbers in a vector document, or number of symbols; None if unknown until the source is opened."""
        return None

    def image_shape(self, length: int) -> tuple[int, int] | None:
        """Return (height, width) if documents of ``length`` numbers are images of this source, else None."""
        return None

    def check_files(self, name: str, base: Path) -> None:
        """Raise DataError if files that the source names are missing or cannot be opened, without reading them."""

    def quick_to_count(self, name: str, base: Path, asked: int) -> bool:
        """Return whether ``check`` opens the source to see if it has as many documents as are ``asked`` of it.

        Opening takes longer than all other checks, so it is worth while only if few documents may be missing.
        """
        return asked > _PLENTY

    def downloads(self, base: Path) -> dict[str, str]:
        """Return what the source takes from the Hugging Face Hub: the id by the name of the field."""
        return {}

    @abstractmethod
    def open(self, name: str, streams: Streams, base: Path) -> Reservoir:
        """Open the source: read its documents, or prepare to make them; raise DataError if there are none.

        ``name`` is the name of the source in the scenario. ``base`` is the folder of the scenario file; paths are
        relative to the current folder or, if nothing is found there, to ``base``.
        """


class FiniteReservoir:
    """A reservoir of a fixed set of documents, in random order.

    Each document draws one number from the stream ``source/<name>``, keyed by its position in the data; ascending
    numbers give the drawing order. Held-out documents are the last in that order, so rows 0, 1, … do not depend on the
    number of held-out documents.
    """

    truth: Truth | None = None
    omissions: str = ""  # how many stored documents are left out, and why; "" if none are

    def __init__(
        self,
        name: str,
        docs: pl.Series | Documents,
        held_out: float,
        streams: Streams,
        topics: pl.Series | None = None,
    ) -> None:
        """Make a reservoir of ``docs`` and ``topics``, one row per document; for ``held_out``, see :class:`Source`.

        ``docs`` may be a table with a column ``content``, which is read by row.
        """
        count = len(docs)
        if count == 0:
            raise DataError(f"sources.{name}: the source contains no documents; give one that does.")
        held_out_count = int(held_out) if held_out >= 1 else math.ceil(round(held_out * count, 9))
        if held_out_count >= count:
            raise DataError(
                f"sources.{name}.held_out: {held_out:g} holds out {held_out_count:,} of {count:,} documents "
                "and leaves none to publish; lower it or give more documents."
            )
        order = np.argsort(streams.at(f"source/{name}").uniform(np.arange(count)), kind="stable")
        drawn, held = order[: count - held_out_count], order[count - held_out_count :]
        self.name = name
        self.size: int | None = drawn.size
        self.digest = digest(docs if isinstance(docs, pl.Series) else docs.parts("content"))
        self.topics = None if topics is None else topics.gather(held)
        self._docs, self._order = docs, drawn
        self.held_out = self._gather(held)

    def rows(self, rows: ArrayLike) -> pl.Series:
        """Return documents by position in the drawing order, [rows]; raise DataError past the end."""
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if index.size and not 0 <= index.min() <= index.max() < self._order.size:
            raise DataError(
                f"sources.{self.name}: cannot draw rows {index.min():,} to {index.max():,}; the {self._order.size:,} "
                f"documents that may be published are rows 0 to {self._order.size - 1:,}."
            )
        return self._gather(self._order[index])

    def _gather(self, numbers: NDArray[np.int64]) -> pl.Series:
        docs = self._docs
        if isinstance(docs, pl.Series):
            return docs.gather(numbers).alias("content")
        return docs.rows(numbers, ["content"])["content"]

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64] | None:
        """Return None, since the true distribution of collected documents is unknown."""
        return None


class EndlessSource(Source):
    """An endless source; ``held_out`` is a number of documents, since a share would be undefined."""

    held_out: Annotated[float, Field(ge=0)] = Field(
        500, description="number of documents kept for measurement, never published"
    )

    def quick_to_count(self, name: str, base: Path, asked: int) -> bool:
        """Return false, since there are always enough documents."""
        return False

    @field_validator("held_out")
    @classmethod
    def _number(cls, value: float) -> float:
        if 0 < value < 1:
            raise ValueError(
                f"must be a number of documents such as 500, not the share {value!r}: the source is endless"
            )
        return value


class EndlessReservoir(ABC):
    """A reservoir that makes documents on demand, each a function of (seed, source name, row) alone.

    Held-out documents come from separate streams, so they differ from all rows, and their number changes no row.
    """

    size: int | None = None
    topics: pl.Series | None = None

    def __init__(self, spec: EndlessSource, name: str, streams: Streams, truth: Truth) -> None:
        """``name`` is the name of the source in the scenario. A subclass first sets everything :meth:`draw` needs."""
        self.name = name
        self.truth: Truth | None = truth
        self._streams = streams
        self.digest = hashlib.sha256(repr((sorted(spec.defining().items()), streams.seed, name)).encode()).hexdigest()
        self.held_out = self.draw(np.arange(int(spec.held_out)), "held_out")

    def rows(self, rows: ArrayLike) -> pl.Series:
        """Return documents by row number, [rows]; raise DataError for negative numbers."""
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if index.size and index.min() < 0:
            raise DataError(f"sources.{self.name}: cannot draw row {index.min()}; rows are counted from 0.")
        return self.draw(index, "rows")

    def noise(self, rows: NDArray[np.int64], what: str, choice: int = 0) -> NDArray[np.float64]:
        """Return one uniform number in (0, 1) per row, separately for each ``choice`` that makes up a document."""
        return self._streams.at(f"source/{self.name}/{what}", choice).uniform(rows)

    @abstractmethod
    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Make documents by row number from the noise of ``what``, which is "rows" or "held_out"."""

    @abstractmethod
    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64]:
        """Compute the exact log-likelihood of each document in nats; -inf for impossible documents."""


def random_rows(n: int, first: int, size: int | None, stream: Stream) -> NDArray[np.int64]:
    """Draw ``n`` rows of a source, in ascending order; fewer if the source has fewer.

    Rows of a finite source are drawn from ``first`` to ``size`` - 1. Rows of an endless source (``size`` None) are
    consecutive, in a random block far beyond the rows that people draw.
    """
    if size is None:
        block = (1 + stream.integer() % _BLOCKS) * MAX_ROWS
        return np.arange(block, block + min(n, MAX_ROWS), dtype=np.int64)
    rows = np.arange(first, max(first, size), dtype=np.int64)
    return np.sort(rows[np.argsort(stream.uniform(rows), kind="stable")[:n]])


def digest(documents: pl.Series | Iterable[pl.Series]) -> str:
    """Compute the SHA-256 of documents in order, in hexadecimal, independent of parts, chunks and platform.

    Parts are Series; documents that are not text must be in a single one.
    """
    total = hashlib.sha256()
    for docs in [documents] if isinstance(documents, pl.Series) else documents:
        if docs.dtype == pl.String:
            for text in docs:
                data = text.encode()
                total.update(len(data).to_bytes(8, "little"))
                total.update(data)
            continue
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
