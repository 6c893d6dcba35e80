"""The source ``labelled``: documents (x_1, …, x_d, y) with x standard normal and a label y = 1 or -1.

A share of the labels is wrong. Since the right label of every document is known, a policy can act as a verifier.
"""

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

MEAN_ABSOLUTE = math.sqrt(2 / math.pi)
"""Mean absolute value of a standard normal number: the length of E[y x] if every label is right."""


@SOURCES.register("labelled")
class Labelled(EndlessSource):
    """Rows of a classification: ``dim`` independent standard normal numbers, and a label for their side of a plane.

    The right label of x is the sign (1 or -1) of x·w; ``label_noise`` is the probability of the other label.
    """

    modality: ClassVar[Modality] = "vector"
    labelled: ClassVar[bool] = True

    dim: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        None, description="number of features in a document; absent: the number of weights, or 2"
    )
    weights: Annotated[list[float], Field(min_length=1, max_length=4096)] | None = Field(
        None, description="normal w of the plane, one number per feature; only its direction counts; absent: all equal"
    )
    label_noise: Annotated[float, Field(ge=0, le=1)] = Field(0.0, description="probability that a label is wrong")

    @model_validator(mode="after")
    def _shapes(self) -> Labelled:
        if self.weights is None:
            return self
        if self.dim is not None and len(self.weights) != self.dim:
            raise ValueError(
                f"weights has {len(self.weights)} numbers, but dim = {self.dim}; "
                "give one for each number before the label, or remove dim"
            )
        if not any(self.weights):
            raise ValueError("weights are all 0 and define no plane; let one of them differ from 0")
        return self

    def direction(self) -> Floats:
        """Return w scaled to length 1, [d]."""
        weights = np.ones(self.dim or 2) if self.weights is None else np.array(self.weights, np.float64)
        weights = weights / np.abs(weights).max()  # so that squares neither overflow nor underflow
        return np.asarray(weights / np.sqrt((weights**2).sum()), dtype=np.float64)

    def open(self, name: str, streams: Streams, base: Path) -> LabelledReservoir:
        """Prepare the distribution; never fails."""
        return LabelledReservoir(self, name, streams)


class LabelledReservoir(EndlessReservoir):
    """An opened classification; (x, y) is not normal, but has a known mean and covariance."""

    def __init__(self, spec: Labelled, name: str, streams: Streams) -> None:
        """``name`` is the name of the source in the scenario."""
        self._direction = spec.direction()
        self._noise = spec.label_noise
        dim = self._direction.size
        slope = (1 - 2 * self._noise) * MEAN_ABSOLUTE * self._direction  # E[y x], the least-squares weights of y on x
        covariance = np.eye(dim + 1)
        covariance[dim, :dim] = covariance[:dim, dim] = slope
        truth = Truth(mean=np.zeros(dim + 1), covariance=covariance, weights=slope, plane=self._direction)
        super().__init__(spec, name, streams, truth)

    def draw(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Draw every number of a document, and whether its label is wrong, with separate noise."""
        from scipy.special import ndtri  # not at the top, since reading a scenario would take longer

        dim = self._direction.size
        values = np.empty((dim + 1, rows.size))
        for j in range(dim):
            values[j] = ndtri(self.noise(rows, what, j))
        wrong = self.noise(rows, what, dim) < self._noise
        values[dim] = np.where(wrong, -1, 1) * side(values[:dim].T, self._direction)
        return as_documents(values.T)

    def log_likelihood(self, docs: pl.Series) -> Floats:
        """Compute the log density of each document in nats; -inf if x is not finite or y is not a label.

        Raises DataError if the documents are not vectors of this length.
        """
        x = as_matrix(docs, self._direction.size + 1, self.name)
        return label_log_density(x, self._direction, self._noise)


def side(x: Floats, weights: Floats) -> Floats:
    """Return the sign of x·w, 1 or -1 (1 for zero), for x [..., n, d] and weights [..., d]; shape [..., n].

    Products are summed one by one, since a matrix product rounds differently for different numbers of rows.
    """
    product = np.zeros(x.shape[:-1])
    for j in range(x.shape[-1]):
        product += weights[..., j, None] * x[..., j]
    return np.where(product >= 0, 1.0, -1.0)


def matches_plane(docs: pl.Series, plane: Floats) -> NDArray[np.bool_]:
    """Return whether the label of each document (x, y) is right; ``plane`` [d] is the normal of the plane."""
    values = docs.to_numpy().reshape(-1, plane.size + 1)
    return np.asarray(side(values[:, :-1], plane) == values[:, -1])


def label_log_density(documents: Floats, weights: Floats, noise: float) -> Floats:
    """Compute the log density in nats of documents [n, d + 1]: x ~ N(0, I), y the label of x with label noise."""
    x, y = documents[:, :-1], documents[:, -1]
    possible = np.isfinite(x).all(axis=1) & (np.abs(y) == 1)
    x = np.where(possible[:, None], x, 0.0)
    with np.errstate(over="ignore", divide="ignore"):  # too far away, or an impossible label: the density is 0
        label = np.where(side(x, weights) == y, np.log1p(-noise), np.log(noise))
        density = -0.5 * ((x**2).sum(axis=1) + x.shape[1] * math.log(2 * math.pi)) + label
    return np.where(possible, density, -np.inf)
