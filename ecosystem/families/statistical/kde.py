"""The ``kde`` family: a Gaussian kernel around every training document.

The nonparametric model of Kazdan et al. (2025). Its first two moments have closed forms: a fit to n documents of
variance v has the variance (1 - 1/n) v + h² per coordinate on average, so that kernels of width h add h² at every
generation what sampling takes away in proportion.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from ecosystem.families.base import FAMILIES, Cohort, Decoding, Surroundings
from ecosystem.families.single import SinglesCohort, choose, coordinates, moments, stored, unfitted
from ecosystem.families.statistical.cohort import FittedFamily, human_documents
from ecosystem.sources.base import Truth
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream

Floats = NDArray[np.float64]
_CELLS = 2_000_000  # distances that are held at once while scoring


def _number_or_rule(value: Any) -> Any:
    """Refuse anything else here, in one sentence; a union would answer with one for each of its types."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not number and value not in ("scott", "silverman"):
        raise ValueError(f'must be a number above 0, "scott" or "silverman", not {value!r}')
    return value


@FAMILIES.register("kde")
class KernelDensity(FittedFamily):
    """A Gaussian kernel density estimate: one normal of standard deviation ``bandwidth`` around every document.

    "scott" and "silverman" depend on the number n of documents and the dimension d alone, as in scikit-learn, and so
    suit data of a standard deviation near 1: n^(-1/(d+4)) and (n (d+2)/4)^(-1/(d+4)); with unequal weights n is their
    effective number, (Σw)²/Σw². ``temperature`` of a trainer's decoding multiplies the variance of the kernels.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "vector"

    bandwidth: Annotated[float | Literal["scott", "silverman"], BeforeValidator(_number_or_rule)] = Field(
        "scott", description="standard deviation of the kernel in every direction, or the rule that chooses it"
    )

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M estimates; raise DataError without initial documents."""
        dimension = human_documents(name, around, "vector").shape[1]
        cohort = SinglesCohort(name, members, around.human.dtype, lambda: Kernels(self.bandwidth, dimension))
        if self.init == "foundation":
            cohort.begin_from(around.human, around.streams.at(f"models/{name}/foundation"))
        return cohort


class Kernels:
    """One kernel density estimate: the documents it was fitted to, and the width of the kernels."""

    def __init__(self, bandwidth: float | str, dimension: int) -> None:
        """``bandwidth``: a number or the name of a rule; ``dimension``: numbers in a document."""
        self._rule = bandwidth
        self._dimension = dimension
        self._documents: Floats = np.zeros((0, dimension))
        self._weight: Floats = np.zeros(0)  # adds up to one
        self._width = math.nan

    def fit(self, docs: pl.Series, *, weight: Floats, stream: Stream) -> dict[str, float]:
        """Keep the documents whose weight is not zero."""
        heavy = weight > 0
        self._documents = docs.to_numpy()[heavy].astype(np.float64)
        self._weight = weight[heavy] / weight.sum()
        effective = 1 / float((self._weight**2).sum())
        if isinstance(self._rule, str):
            base = effective if self._rule == "scott" else effective * (self._dimension + 2) / 4
            self._width = base ** (-1 / (self._dimension + 4))
        else:
            self._width = float(self._rule)
        return {}  # the loss would take n² distances, which nobody asked for

    def generate(self, n: int, *, stream: Stream, decoding: Decoding) -> pl.Series:
        """Pick a training document by its weight and add the noise of the kernel."""
        from scipy.special import ndtri

        luck = coordinates(n, 1 + self._dimension, stream)
        chosen = self._known()[choose(self._weight, luck[:, 0])]
        return as_documents(chosen + self._width * math.sqrt(decoding.temperature) * ndtri(luck[:, 1:]))

    def score(self, docs: pl.Series) -> Floats:
        """Return the log density of the documents, some at a time: every one is compared with every kernel."""
        from scipy.spatial.distance import cdist
        from scipy.special import logsumexp

        x, kernels = docs.to_numpy(), self._known()
        peak = np.log(self._weight) - 0.5 * self._dimension * math.log(2 * math.pi * self._width**2)
        step = max(1, _CELLS // len(kernels))
        parts = [
            logsumexp(peak - cdist(x[at : at + step], kernels, "sqeuclidean") / (2 * self._width**2), axis=1)
            for at in range(0, len(x), step)
        ]
        return np.concatenate(parts)

    def describe(self, truth: Truth) -> dict[str, float]:
        """Return the moments of the estimate against the truth's; its covariance is the documents' plus h²."""
        if not self._weight.size:
            return {}
        first = self._documents[0]  # taken off before averaging, so that equal documents have no variance of their own
        mean = first + self._weight @ (self._documents - first)
        centred = self._documents - mean
        covariance = (self._weight[:, None] * centred).T @ centred + self._width**2 * np.eye(self._dimension)
        return moments(mean, covariance, truth)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return documents [n, d], their weights [n] and the width of the kernels [1]."""
        if not self._weight.size:
            return {}
        return {"documents": self._documents, "weight": self._weight, "width": np.array([self._width])}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        documents = stored(state, "documents", -1, self._dimension)
        weight, width = stored(state, "weight", len(documents)), stored(state, "width", 1)
        self._documents, self._weight, self._width = documents, weight, float(width[0])

    def _known(self) -> Floats:
        if not self._weight.size:
            raise unfitted()
        return self._documents
