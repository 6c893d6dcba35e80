"""The ``kde`` family: a Gaussian kernel around every training document.

The nonparametric model of Kazdan et al. (2025). Its first two moments have closed forms: a fit to n documents of
variance v has an expected variance of (1 - 1/n) v + h² per coordinate. In every generation, sampling removes a share of
1/n, and kernels of width h add h².
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field

from ecosystem.families.base import FAMILIES, BuildContext, Cohort
from ecosystem.families.requests import Decoding
from ecosystem.families.single import SinglesCohort, choose, coordinates, stored, unfitted
from ecosystem.families.statistical.cohort import FittedFamily, human_documents
from ecosystem.families.statistical.normal import moments_of_one
from ecosystem.sources.base import Truth
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream
from ecosystem.types import Floats, Modality

_CELLS = 2_000_000  # distances in memory at once while scoring


def _number_or_rule(value: Any) -> Any:
    """Refuse all other values with one message; pydantic reports one for each type of a union."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < math.inf
    if not number and value not in ("scott", "scott_scaled", "silverman"):
        raise ValueError(f'must be a number above 0, "scott", "scott_scaled" or "silverman", not {value!r}')
    return value


@FAMILIES.register("kde")
class KernelDensity(FittedFamily):
    """A Gaussian kernel density estimate: one normal of standard deviation ``bandwidth`` around every document.

    The rules "scott" and "silverman" are those of scikit-learn, n^(-1/(d+4)) and (n (d+2)/4)^(-1/(d+4)). They depend on
    the number n of documents and the dimension d alone, and so suit data with a standard deviation near 1. With unequal
    weights, n is the effective number (Σw)²/Σw². "scott_scaled" is Scott's rule times the standard deviation of the
    documents, the root mean square over coordinates; with one coordinate, it is the rule of SciPy. The ``temperature``
    of a trainer's decoding multiplies the variance of the kernels.
    """

    modality: ClassVar[Modality] = "vector"

    bandwidth: Annotated[float | Literal["scott", "scott_scaled", "silverman"], BeforeValidator(_number_or_rule)] = (
        Field("scott", description="standard deviation of the kernel in every direction, or the rule that computes it")
    )

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M estimates; raise DataError if there are no initial documents."""
        dimension = human_documents(name, context, "vector").shape[1]
        cohort = SinglesCohort(name, members, context.human.dtype, lambda: Kernels(self.bandwidth, dimension))
        if self.init == "foundation":
            cohort.begin_from(context.human, context.streams.at(f"models/{name}/foundation"))
        return cohort


class Kernels:
    """One kernel density estimate: its training documents and the width of the kernels."""

    def __init__(self, bandwidth: float | str, dimension: int) -> None:
        """``bandwidth``: a number or the name of a rule; ``dimension``: length of a document."""
        self._rule = bandwidth
        self._dimension = dimension
        self._documents: Floats = np.zeros((0, dimension))
        self._weight: Floats = np.zeros(0)  # sums to one
        self._width = math.nan

    def fit(self, docs: pl.Series, *, weight: Floats, stream: Stream) -> dict[str, float]:
        """Store the documents whose weight is not zero."""
        positive = weight > 0
        self._documents = docs.to_numpy()[positive].astype(np.float64)
        self._weight = weight[positive] / weight.sum()
        effective = 1 / float((self._weight**2).sum())
        if isinstance(self._rule, str):
            base = effective * (self._dimension + 2) / 4 if self._rule == "silverman" else effective
            self._width = base ** (-1 / (self._dimension + 4))
            if self._rule == "scott_scaled":
                centred = self._documents - self._weight @ self._documents
                # The sample size in an unbiased variance is the effective one.
                variance = float((self._weight @ centred**2).mean()) * effective / max(effective - 1, 1.0)
                self._width *= math.sqrt(variance) if variance > 0 else 1.0
        else:
            self._width = float(self._rule)
        return {}  # no loss: it would need n² distances

    def generate(self, n: int, *, stream: Stream, decoding: Decoding) -> pl.Series:
        """Pick training documents by weight and add the noise of the kernel."""
        from scipy.special import ndtri

        noise = coordinates(n, 1 + self._dimension, stream)
        chosen = self._fitted()[choose(self._weight, noise[:, 0])]
        return as_documents(chosen + self._width * math.sqrt(decoding.temperature) * ndtri(noise[:, 1:]))

    def score(self, docs: pl.Series) -> Floats:
        """Return the log density of the documents, in parts, since each is compared with every kernel."""
        from scipy.spatial.distance import cdist
        from scipy.special import logsumexp

        x, kernels = docs.to_numpy(), self._fitted()
        peak = np.log(self._weight) - 0.5 * self._dimension * math.log(2 * math.pi * self._width**2)
        step = max(1, _CELLS // len(kernels))
        parts = [
            logsumexp(peak - cdist(x[at : at + step], kernels, "sqeuclidean") / (2 * self._width**2), axis=1)
            for at in range(0, len(x), step)
        ]
        return np.concatenate(parts)

    def describe(self, truth: Truth) -> dict[str, float]:
        """Compare the moments of the estimate with the truth; its covariance is that of its documents plus h² I."""
        if not self._weight.size:
            return {}
        first = self._documents[0]  # subtracted before averaging, so that equal documents have zero covariance
        mean = first + self._weight @ (self._documents - first)
        centred = self._documents - mean
        covariance = (self._weight[:, None] * centred).T @ centred + self._width**2 * np.eye(self._dimension)
        return moments_of_one(mean, covariance, truth)

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

    def _fitted(self) -> Floats:
        if not self._weight.size:
            raise unfitted()
        return self._documents
