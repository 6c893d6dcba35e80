"""Sources: where the documents that people write come from.

A source is a frozen value; opened, it is a :class:`Reservoir` that hands out its documents in one random order
that never changes within a run, so that how far it has been drawn is one number.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import Annotated, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.registry import Registry
from ecosystem.spec import Spec
from ecosystem.streams import Streams


class Reservoir(Protocol):
    """An opened source: held-out documents, and the others in the order in which they may be drawn."""

    size: int | None  # documents that can be drawn (held-out ones are not among them); None: endless
    digest: str  # hash of everything in it, recorded with a run
    held_out: pl.Series  # never published: the reference of every measurement

    def rows(self, rows: NDArray[np.int64]) -> pl.Series:
        """Return documents by their place in the drawing order; raise DataError past the end."""

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64] | None:
        """Return the exact log-likelihood of each document in nats where the truth is known, else None."""


class Source(Spec):
    """Where documents come from; ``held_out`` is the share (below 1) or number of documents never published."""

    held_out: Annotated[float, Field(ge=0)] = 0.1

    @abstractmethod
    def open(self, name: str, streams: Streams) -> Reservoir:
        """Read (or prepare to make) the documents; raise DataError if there are none."""


SOURCES: Registry[type[Source]] = Registry("source", "ecosystem.corpus.readers", "ecosystem.corpus.process")
