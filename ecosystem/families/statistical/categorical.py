"""The ``categorical`` family: the distribution of one symbol, estimated by its frequencies in the documents.

The model of Seddik et al. (2024) for one context, and of every discrete recursion with a closed form
(:mod:`ecosystem.theory.extinction`): resampling n symbols from the last frequencies is the Wright-Fisher process.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.families.base import FAMILIES, BuildContext, Cohort
from ecosystem.families.requests import Decoding, Rewriting, Rewritten
from ecosystem.families.statistical.cohort import FittedFamily, Parameters, StackedCohort, human_documents
from ecosystem.families.training_spec import DEFAULT_GAMMA
from ecosystem.sources.base import Truth
from ecosystem.spec import ScenarioParts
from ecosystem.streams import Stream
from ecosystem.types import Floats, Modality


@FAMILIES.register("categorical")
class Categorical(FittedFamily):
    """Frequencies of symbols, with ``add_k`` added to every count (0: maximum likelihood).

    Frequencies minimise the cross-entropy. By truncated cross-entropy, a symbol is not learnt while its probability
    exceeds ``gamma``, so that gradient descent holds a more frequent one there, and the others keep their proportions.
    """

    modality: ClassVar[Modality] = "category"
    supports_rewriting: ClassVar[bool] = True

    types: Annotated[int, Field(gt=0, le=10**7)] | None = Field(
        None, description="number of symbols; absent: that of the initial human documents"
    )
    add_k: Annotated[float, Field(ge=0)] = Field(0.0, description="number added to the count of every symbol")
    objective: Literal["cross_entropy", "truncated"] | None = Field(
        None,
        description="what a fit minimises; absent: cross_entropy; truncated: without symbols more probable than gamma",
    )
    gamma: Annotated[float, Field(ge=0.5, le=1)] | None = Field(
        None, description="of truncated: the largest probability of a symbol (absent: 0.99)"
    )

    @model_validator(mode="after")
    def _gamma_fits(self) -> Categorical:
        if self.gamma is not None and self.objective != "truncated":
            raise ValueError("gamma has no meaning for cross_entropy; remove it, or set objective")
        return self

    def problems(self, path: str, scenario: ScenarioParts) -> list[str]:
        """Require at least as many types as any source has symbols."""
        widths = {name: s.width for name, s in scenario.sources.items() if s.modality == self.modality and s.width}
        source = next((name for name, width in widths.items() if self.types is not None and width > self.types), None)
        if source is None:
            return []
        return [
            f'{path}.types: {self.types} symbols are too few for the source "{source}", which has {widths[source]}; '
            f"give at least {widths[source]}"
        ]

    @property
    def averages_parameters(self) -> bool:
        """The mean of the probabilities is a distribution of the family."""
        return True

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M uniform distributions; raise DataError if there are no initial documents."""
        symbols = human_documents(name, context, "category")
        types = self.types or int(symbols.max()) + 1
        gamma = (self.gamma or DEFAULT_GAMMA["truncated"]) if self.objective == "truncated" else 1.0
        cohort = CategoricalCohort(name, members, types, self.add_k, gamma)
        if self.init == "foundation":
            cohort.begin_from(symbols)
        return cohort


class CategoricalCohort(StackedCohort):
    """M distributions over K symbols: ``probability`` [M, K]."""

    def __init__(self, name: str, members: int, types: int, add_k: float = 0.0, gamma: float = 1.0) -> None:
        """``gamma`` is the largest probability of a symbol; 1: no limit."""
        super().__init__(name, members, pl.Int32(), {"probability": np.full(types, 1 / types)})
        self.types = types
        self.add_k = add_k
        self.gamma = gamma

    def fit_problem(self, x: NDArray[Any]) -> str:
        """Also refuse symbols beyond the number of types."""
        if len(x) and int(x.max()) >= self.types:
            return f"the symbol {int(x.max())} is not one of its {self.types} types; raise types"
        return super().fit_problem(x)

    def estimate(self, x: NDArray[Any], weight: Floats) -> Parameters:
        """Return the weighted frequencies of the symbols x [M, n], with ``add_k`` added to every count."""
        members = len(x)
        cells = x.astype(np.int64) + self.types * np.arange(members)[:, None]
        sums = np.bincount(cells.ravel(), weights=weight.ravel(), minlength=members * self.types)
        counts = sums.reshape(members, self.types) + self.add_k
        frequency = counts / counts.sum(axis=1, keepdims=True)
        return {"probability": frequency if self.gamma == 1 else truncated(frequency, self.gamma)}

    def rewrite(self, docs: pl.Series, how: Rewriting, stream: Stream) -> Rewritten:
        """Draw symbols of at least the probability of the threshold again, with the initial probabilities."""
        symbols, p = docs.to_numpy(), self._initial["probability"]
        choice, token = (stream.child(name).uniform(np.arange(len(symbols))) for name in ("choice", "token"))
        cumulative = decoded(p[None], Decoding(temperature=how.temperature))[0].cumsum()
        drawn = np.searchsorted(cumulative, token * cumulative[-1], side="right")
        new = np.where((p[symbols] >= how.threshold) & (choice < how.rate), drawn, symbols)
        return Rewritten(
            pl.Series(docs.name, new, dtype=pl.Int32), (new != symbols).astype(np.int64), np.ones(len(new), np.int64)
        )

    def draw(self, parameters: Parameters, decoding: Decoding, noise: Floats) -> NDArray[Any]:
        """Look up uniform numbers [M, n] in each member's cumulative distribution after decoding."""
        cumulative = decoded(parameters["probability"], decoding).cumsum(axis=1)
        drawn = [np.searchsorted(c, u * c[-1], side="right") for c, u in zip(cumulative, noise, strict=True)]
        return np.stack(drawn).astype(np.int32)

    def log_density(self, parameters: Parameters, x: NDArray[Any]) -> Floats:
        """Return the log probability of the symbols x [n]."""
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(parameters["probability"])[x])

    def describe(self, truth: Truth) -> dict[str, Floats]:
        """Return diversity, support, tails and distances to the truth.

        The tail is all symbols except the tenth with the highest true probabilities.
        """
        assert truth.probabilities is not None
        p = self._parameters["probability"]
        true = np.zeros(self.types)
        true[: truth.probabilities.size] = truth.probabilities[: self.types]
        ranked = np.argsort(-true, kind="stable")
        tail = ranked[max(1, self.types // 10) :]
        squares = (p**2).sum(axis=1)
        with np.errstate(divide="ignore", invalid="ignore"):
            entropy = -np.where(p > 0, p * np.log(p), 0.0).sum(axis=1)
            initial = -np.where(true > 0, true * np.log(true), 0.0).sum()
        return {
            "simpson": squares,
            "gini_simpson": 1 - squares,
            "entropy": entropy,
            "entropy_share": entropy / initial if initial > 0 else np.ones_like(entropy),
            "support": (p > 0).sum(axis=1).astype(np.float64),
            "max_probability": p.max(axis=1),
            "mode": p.argmax(axis=1).astype(np.float64),
            "first_type": p[:, ranked[0]],
            "tail_mass": p[:, tail].sum(axis=1),
            "tail_types": (p[:, tail] > 0).sum(axis=1).astype(np.float64),
            "unseen_mass": (p == 0) @ true + truth.probabilities[self.types :].sum(),
            "l1": np.abs(p - true).sum(axis=1),
            "l2": ((p - true) ** 2).sum(axis=1),
            "collapsed": (p.max(axis=1) == 1).astype(np.float64),
        }


def decoded(p: Floats, decoding: Decoding) -> Floats:
    """Apply temperature, top-k and top-p to distributions [M, K]; the rows of the result need not sum to one.

    Top-k keeps ties with the k-th symbol; top-p keeps the smallest set of the likeliest symbols with that mass.
    """
    if decoding.temperature != 1.0:
        p = (p / p.max(axis=1, keepdims=True)) ** (1 / decoding.temperature)
    if decoding.top_k is not None and decoding.top_k < p.shape[1]:
        threshold = np.partition(p, p.shape[1] - decoding.top_k, axis=1)[:, p.shape[1] - decoding.top_k, None]
        p = np.where(p < threshold, 0.0, p)
    if decoding.top_p is not None and decoding.top_p < 1:
        p = p / p.sum(axis=1, keepdims=True)
        order = np.argsort(-p, axis=1, kind="stable")
        descending = np.take_along_axis(p, order, axis=1)
        mass_before = descending.cumsum(axis=1) - descending
        np.put_along_axis(p, order, np.where(mass_before >= decoding.top_p, 0.0, descending), axis=1)
    return p


def truncated(frequency: Floats, gamma: float) -> Floats:
    """Return where gradient descent on truncated cross-entropy comes to rest, from frequencies [M, K].

    Below ``gamma`` (at least 1/2) a symbol is drawn to its frequency, above it pushed down by the others. If there are
    no others, uniform starting weights leave them equal. Derived for this project.
    """
    capped = frequency.max(axis=1, keepdims=True) > gamma
    largest = (np.arange(frequency.shape[1]) == frequency.argmax(axis=1)[:, None]) & capped
    others = np.where(largest, 0.0, frequency)
    rest = others.sum(axis=1, keepdims=True)
    alone = np.where(largest, 0.0, 1 / max(1, frequency.shape[1] - 1))
    others = np.where(rest > 0, others / np.where(rest > 0, rest, 1), alone)
    return np.where(capped, np.where(largest, gamma, (1 - gamma) * others), frequency)
