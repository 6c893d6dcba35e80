"""The ``linear`` family: ridgeless least squares on documents that are rows (x_1, …, x_d, y) of a regression.

The model of the theorems of Gerstgrasser et al. (2024): every generation labels the *same* design with the last model
and new noise. If the labels are replaced, each generation adds the same error. If all labels are kept, generation t
adds an error like 1/t² (``ols_error_replace`` and ``ols_error_accumulate`` in :mod:`ecosystem.theory.regression`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import FAMILIES, BuildContext, Cohort
from ecosystem.families.requests import Decoding
from ecosystem.families.single import SinglesCohort, coordinates, stored, unfitted
from ecosystem.families.statistical.cohort import FittedFamily, human_documents
from ecosystem.sources.base import Truth
from ecosystem.sources.regression import log_density
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream
from ecosystem.types import Floats, Modality


@FAMILIES.register("linear")
class LinearRegression(FittedFamily):
    """Least squares of the last number of a document on the others, without an intercept, and noise around it.

    It writes documents with a ``fixed`` design, the x of its first training documents, row by row in a cycle, or with a
    ``fresh`` one, x ~ N(0, I). Its labels are y = x·w + noise. The ``temperature`` of a trainer's decoding multiplies
    the variance of the noise.
    """

    modality: ClassVar[Modality] = "vector"
    supports_recovery: ClassVar[bool] = True

    design: Literal["fixed", "fresh"] = Field(
        "fixed", description="x of its documents: those of its first training documents, or new draws"
    )
    noise: Annotated[float, Field(ge=0)] = Field(1.0, description="variance of its labels around x·w")

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M regressions; raise DataError if there are no initial documents, or they have fewer than 2 numbers."""
        dimension = human_documents(name, context, "vector").shape[1] - 1
        if dimension == 0:
            raise DataError(
                f'model "{name}" predicts the last number of a document from those before it, but the documents here '
                "have only one; use a source of kind regression, or another with at least two numbers."
            )
        cohort = SinglesCohort(name, members, context.human.dtype, lambda: Line(self, dimension))
        if self.init == "foundation":
            cohort.begin_from(context.human, context.streams.at(f"models/{name}/foundation"))
        return cohort


class Line:
    """One regression: weights [d] and the design [rows, d] to label."""

    def __init__(self, family: LinearRegression, dimension: int) -> None:
        """``dimension``: number of coordinates before the label."""
        self._family = family
        self._dimension = dimension
        self._weights: Floats | None = None
        self._design: Floats = np.zeros((0, dimension))

    def fit(self, docs: pl.Series, *, weight: Floats, stream: Stream) -> dict[str, float]:
        """Minimise the weighted sum of squares; raise TrainingError if the design is singular."""
        x, y = np.split(docs.to_numpy(), [self._dimension], axis=1)
        root = np.sqrt(weight / weight.mean())
        weights, _, rank, _ = np.linalg.lstsq(x * root[:, None], y[:, 0] * root)
        if rank < self._dimension:
            rows = int(np.count_nonzero(weight))
            raise TrainingError(
                f"the design is singular: {rows} documents span {rank} directions, but there are {self._dimension} "
                "weights; let it scrape more, and different, documents."
            )
        self._weights = weights
        if not len(self._design):
            self._design = x
        return {"loss": -float(np.average(self.score(docs), weights=weight))}

    def generate(self, n: int, *, stream: Stream, decoding: Decoding) -> pl.Series:
        """Label n rows of the design."""
        from scipy.special import ndtri

        weights = self._fitted()
        normal = ndtri(coordinates(n, self._dimension + 1, stream))
        fixed = self._family.design == "fixed"
        x = self._design[np.arange(n) % len(self._design)] if fixed else normal[:, :-1]
        y = math.sqrt(self._family.noise * decoding.temperature) * normal[:, -1]
        for j in range(self._dimension):  # a matrix product rounds differently for different numbers of rows
            y = y + weights[j] * x[:, j]
        return as_documents(np.column_stack([x, y]))

    def score(self, docs: pl.Series) -> Floats:
        """Return the log density of (x, y) with x ~ N(0, I), also for a fixed design: it is a sample from that."""
        return log_density(docs.to_numpy(), self._fitted(), self._family.noise)

    def describe(self, truth: Truth) -> dict[str, float]:
        """Return the squared distance of the weights from the true ones; {} if the truth has none.

        With x ~ N(0, I) it is the expected squared error on new documents in excess of their noise.
        """
        if self._weights is None or truth.weights is None:
            return {}
        return {"test_error": float(((self._weights - truth.weights) ** 2).sum())}

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the weights [d] and the design [rows, d]."""
        return {} if self._weights is None else {"weights": self._weights, "design": self._design}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        weights = stored(state, "weights", self._dimension)
        self._design = stored(state, "design", -1, self._dimension)
        self._weights = weights

    def _fitted(self) -> Floats:
        if self._weights is None:
            raise unfitted()
        return self._weights
