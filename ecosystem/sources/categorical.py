"""The source ``categorical``: symbols from a distribution that is known exactly.

A document is one symbol, an integer from 0 to K - 1, in a Series of type ``Int32``. Most theorems about model collapse
apply to this setting: the vocabulary of one context, or the rare types of a Zipfian vocabulary.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.sources.base import SOURCES, EndlessReservoir, EndlessSource, Truth
from ecosystem.streams import Streams
from ecosystem.types import Modality


@SOURCES.register("categorical")
class Categorical(EndlessSource):
    """An endless source of symbols 0, 1, 2, … with known probabilities: equal, Zipfian, or listed."""

    modality: ClassVar[Modality] = "category"

    types: Annotated[int, Field(ge=1, le=10**7)] | None = Field(
        None, description="number of symbols; absent if probabilities are listed"
    )
    shape: Literal["uniform", "zipf"] | None = Field(
        None,
        description="uniform: equal probabilities; zipf: the r-th is proportional to r^-exponent; absent: uniform, "
        "unless probabilities are listed",
    )
    exponent: Annotated[float, Field(ge=0, le=10)] | None = Field(
        None, description="exponent of the Zipf distribution, for shape zipf; absent: 1"
    )
    probabilities: Annotated[list[float], Field(min_length=1)] | None = Field(
        None, description="probabilities of the symbols 0, 1, 2, …, instead of types and shape; they sum to one"
    )
    cut: Annotated[int, Field(ge=1)] | None = Field(
        None, description="number of the likeliest symbols, which alone occur, in the same proportions; absent: all"
    )

    @model_validator(mode="after")
    def _one_distribution(self) -> Categorical:
        if self.probabilities is None:
            if self.types is None:
                raise ValueError("give types, the number of symbols, or probabilities, a list of their probabilities")
            if self.exponent is not None and self.shape != "zipf":
                raise ValueError('exponent is allowed with shape = "zipf" only; set the shape or remove exponent')
            self._check_cut(self.types)
            return self
        conflicts = [field for field in ("types", "shape", "exponent") if getattr(self, field) is not None]
        if conflicts:
            raise ValueError(f"probabilities and {conflicts[0]} exclude each other; remove one of them")
        least, total = min(self.probabilities), math.fsum(self.probabilities)
        if least < 0:
            raise ValueError(f"probabilities must be 0 or more, but one is {least:g}")
        if abs(total - 1) > 1e-9:
            raise ValueError(
                f"probabilities must sum to one, but these {len(self.probabilities)} sum to {total:.10g}; "
                "divide each by their sum"
            )
        self._check_cut(len(self.probabilities))
        return self

    def _check_cut(self, types: int) -> None:
        if self.cut is not None and self.cut > types:
            raise ValueError(f"cut = {self.cut} must be at most the number of symbols ({types}); lower it or remove it")

    @property
    def width(self) -> int | None:
        """Number of symbols."""
        return self.types if self.probabilities is None else len(self.probabilities)

    def distribution(self) -> NDArray[np.float64]:
        """Compute the probabilities, [K]; they sum to 1, also if a list does so only up to rounding.

        A cut keeps the lowest of equally likely symbols.
        """
        if self.probabilities is not None:
            weight = np.array(self.probabilities, dtype=np.float64)
        else:
            assert self.types is not None  # checked when the fields were read
            exponent = (1.0 if self.exponent is None else self.exponent) if self.shape == "zipf" else 0.0
            weight = np.arange(1, self.types + 1, dtype=np.float64) ** -exponent
        if self.cut is not None:
            weight[np.argsort(-weight, kind="stable")[self.cut :]] = 0
        return np.asarray(weight / weight.sum(), dtype=np.float64)

    def open(self, name: str, streams: Streams, base: Path) -> CategoricalReservoir:
        """Prepare the distribution; never fails."""
        return CategoricalReservoir(self, name, streams)


class CategoricalReservoir(EndlessReservoir):
    """An opened distribution of symbols."""

    def __init__(self, spec: Categorical, name: str, streams: Streams) -> None:
        """``name`` is the name of the source in the scenario."""
        self._probabilities = spec.distribution()
        self._cumulative = np.cumsum(self._probabilities)
        # By rounding, the sum may be a little below 1; no number may exceed the last possible symbol.
        self._cumulative[np.flatnonzero(self._probabilities)[-1] :] = np.inf
        super().__init__(spec, name, streams, Truth(probabilities=self._probabilities))

    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Look up one uniform number per document in the cumulative distribution."""
        symbols = np.searchsorted(self._cumulative, self.noise(rows, what), side="right")
        return pl.Series("content", symbols.astype(np.int32))

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64]:
        """Compute the log probability of each symbol in nats; -inf for unknown symbols.

        Raises DataError if the documents are not integers.
        """
        if not docs.dtype.is_integer():
            raise DataError(
                f"sources.{self.name}: cannot compute the likelihood of documents of type {docs.dtype}; its documents "
                "are symbols (whole numbers)."
            )
        symbols = docs.cast(pl.Int64, strict=False).fill_null(-1).to_numpy()
        possible = (symbols >= 0) & (symbols < self._probabilities.size)
        with np.errstate(divide="ignore"):  # a listed probability may be 0
            log_p = np.log(self._probabilities)
        return np.where(possible, log_p[np.where(possible, symbols, 0)], -np.inf)
