"""The source ``regression``: endless documents (x_1, …, x_d, y) with x standard normal and y = x·w + noise."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.sources.base import SOURCES, EndlessReservoir, EndlessSource, Truth
from ecosystem.sources.vectors import as_documents, as_matrix
from ecosystem.streams import Streams
from ecosystem.types import Floats, Modality


@SOURCES.register("regression")
class Regression(EndlessSource):
    """Rows of a linear regression: ``dim`` independent standard normal numbers and their weighted sum plus noise."""

    modality: ClassVar[Modality] = "vector"

    dim: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="number of regressors in a document; absent: the number of weights, or 1"
    )
    weights: Annotated[list[float], Field(min_length=1, max_length=4096)] | None = Field(
        None, description="weights of the regressors, one for each; absent: all 0"
    )
    noise: Annotated[float, Field(gt=0)] = Field(1.0, description="variance of the last number around the weighted sum")

    @model_validator(mode="after")
    def _shapes(self) -> Regression:
        if self.weights is not None and self.dim is not None and len(self.weights) != self.dim:
            raise ValueError(
                f"weights has {len(self.weights)} numbers, but dim = {self.dim}; "
                "give one for each number before the last, or remove dim"
            )
        return self

    @property
    def width(self) -> int:
        """Numbers in a document, the last one included."""
        return 1 + (len(self.weights) if self.weights is not None else self.dim or 1)

    def open(self, name: str, streams: Streams, base: Path) -> RegressionReservoir:
        """Prepare the distribution; never fails."""
        return RegressionReservoir(self, name, streams)


class RegressionReservoir(EndlessReservoir):
    """An opened regression; (x, y) together are normal with known mean and covariance."""

    def __init__(self, spec: Regression, name: str, streams: Streams) -> None:
        """``name`` is the name of the source in the scenario."""
        self._weights: Floats = np.zeros(spec.dim or 1) if spec.weights is None else np.array(spec.weights, np.float64)
        self._noise = spec.noise
        dim = self._weights.size
        covariance = np.eye(dim + 1)
        covariance[dim, :dim] = covariance[:dim, dim] = self._weights
        covariance[dim, dim] = self._weights @ self._weights + spec.noise
        truth = Truth(mean=np.zeros(dim + 1), covariance=covariance, normal=True, weights=self._weights)
        super().__init__(spec, name, streams, truth)

    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Draw every number of a document with its own noise; regressors are summed one by one, as in ``gaussian``."""
        from scipy.special import ndtri  # not at the top, since reading a scenario would take longer

        dim = self._weights.size
        values = np.empty((dim + 1, rows.size))
        values[dim] = math.sqrt(self._noise) * ndtri(self.noise(rows, what, dim))
        for j in range(dim):
            values[j] = ndtri(self.noise(rows, what, j))
            values[dim] += self._weights[j] * values[j]
        return as_documents(values.T)

    def log_likelihood(self, docs: pl.Series) -> Floats:
        """Compute the log density of each document in nats; -inf for documents that are not finite.

        Raises DataError if the documents are not vectors of this length.
        """
        x = as_matrix(docs, self._weights.size + 1, self.name)
        return log_density(x, self._weights, self._noise)


def log_density(documents: Floats, weights: Floats, noise: float) -> Floats:
    """Compute the log density in nats of documents [n, d + 1]: x ~ N(0, I), y ~ N(x·w, noise); -inf if not finite.

    Without noise, it is inf if y is the weighted sum, and -inf otherwise.
    """
    possible = np.asarray(np.isfinite(documents).all(axis=1))
    finite = np.where(possible[:, None], documents, 0.0)
    x, y = finite[:, :-1], finite[:, -1]
    gap = y - x @ weights
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # too far away: the density is 0
        squares = (x**2).sum(axis=1) + np.where(gap == 0, 0.0, gap**2 / noise)
        density = -0.5 * (squares + weights.size * math.log(2 * math.pi) + np.log(2 * np.pi * noise))
    return np.where(possible, density, -np.inf)
