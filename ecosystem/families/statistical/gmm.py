"""The ``gmm`` family: a mixture of normals, by expectation maximisation.

The model of the two-component toy of Shumailov et al. (2024), whose measure of collapse is the squared L2 distance
between densities: between mixtures of normals it is a closed form.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.errors import TrainingError
from ecosystem.families.base import (
    FAMILIES,
    Cohort,
    Decoding,
    FitRecord,
    FitRequest,
    Progress,
    Surroundings,
    silent,
)
from ecosystem.families.single import (
    SinglesCohort,
    check_finite,
    choose,
    coordinates,
    moments,
    of_member,
    stored,
    unfitted,
)
from ecosystem.families.statistical.cohort import FittedFamily, human_documents
from ecosystem.families.statistical.gaussian import square_root
from ecosystem.families.statistical.maximisation import maximise
from ecosystem.sources.base import Truth
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream

Floats = NDArray[np.float64]

DEAD = (
    "a component of the mixture has died: the documents left to it do not vary in every direction (its covariance is "
    "singular). Give it fewer components or more documents, or a regularization above 0."
)


@FAMILIES.register("gmm")
class GaussianMixture(FittedFamily):
    """A mixture of normals, each with a full covariance of its own, fitted by expectation maximisation.

    Where the weights of documents differ, as many documents are drawn from them, each as often as its weight says
    (systematic resampling: rounded up or down by chance). A component that is left with too
    few different documents for a covariance stops the run with a sentence, unless ``regularization`` keeps it alive; if
    all documents are equal, that is a result: the model has collapsed to them. ``temperature`` of a trainer's decoding
    multiplies the covariance of every component.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "vector"

    components: Annotated[int, Field(ge=1, le=10_000)] = Field(2, description="normals in the mixture")
    algorithm: Literal["batched", "scikit_learn"] = Field(
        "batched",
        description="batched: the mixtures of all members with equally many documents in one stack of arrays; "
        "scikit_learn: one after the other by its GaussianMixture, which starts by chance of its own",
    )
    tol: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="the fit ends when a step gains less than this, in nats per document"
    )
    max_iter: Annotated[int, Field(ge=1, le=10**6)] = Field(100, description="steps of the fit, at most")
    regularization: Annotated[float, Field(ge=0)] = Field(
        0.0, description="variance added to every coordinate of every component (scikit-learn's reg_covar: 1e-6 there)"
    )

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M mixtures; raise DataError without initial documents."""
        dimension = human_documents(name, around, "vector").shape[1]
        kind = MixtureCohort if self.algorithm == "batched" else SinglesCohort
        cohort = kind(name, members, around.human.dtype, lambda: FittedMixture(self, dimension))
        if self.init == "foundation":
            cohort.begin_from(around.human, around.streams.at(f"models/{name}/foundation"))
        return cohort


@dataclass(frozen=True, eq=False)
class Mixture:
    """A mixture of k normals: weights [k], means [k, d] and covariances [k, d, d]."""

    weight: Floats
    mean: Floats
    covariance: Floats

    @property
    def collapsed(self) -> bool:
        """Whether it is a single point."""
        return bool((self.covariance == 0).all() and (self.mean == self.mean[0]).all())

    def whole(self) -> tuple[Floats, Floats]:
        """Return the mean [d] and covariance [d, d] of the mixture as a whole."""
        first = self.mean[0]  # taken off before averaging, so that equal means differ from their mean by exactly zero
        mean = first + self.weight @ (self.mean - first)
        apart = self.mean - mean
        return mean, np.einsum("k,kde->de", self.weight, self.covariance + apart[:, :, None] * apart[:, None])

    def log_density(self, x: Floats) -> Floats:
        """Return the log density of x [n, d]; a collapsed mixture's is infinite on its point, minus infinite off it."""
        from scipy.special import logsumexp

        if self.collapsed:
            return np.where((x == self.mean[0]).all(axis=1), np.inf, -np.inf)
        with np.errstate(divide="ignore"):  # a component may have no weight
            share = np.log(self.weight)
        return np.asarray(logsumexp(share + self._log_normal(x[:, None] - self.mean, self.covariance), axis=1))

    def overlap(self, other: Mixture) -> float:
        """Return the integral of the product of two densities, a sum of normal densities at the means' differences."""
        apart = self.mean[:, None] - other.mean
        spread = self.covariance[:, None] + other.covariance
        return float(self.weight @ np.exp(self._log_normal(apart, spread)) @ other.weight)

    def distance(self, other: Mixture) -> float:
        """Return the integral of the squared difference of two densities, neither of them collapsed."""
        return max(self.overlap(self) + other.overlap(other) - 2 * self.overlap(other), 0.0)

    @staticmethod
    def _log_normal(x: Floats, covariance: Floats) -> Floats:
        """Return the log density of normals of mean 0 at x [..., d]."""
        root = np.linalg.cholesky(covariance)
        white = np.linalg.solve(root, x[..., None])[..., 0]
        scale = np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1)
        return np.asarray(-0.5 * (white**2).sum(axis=-1) - scale - 0.5 * x.shape[-1] * np.log(2 * np.pi))


class FittedMixture:
    """One mixture, and the first that was fitted here, from which it is measured how far it has gone."""

    def __init__(self, family: GaussianMixture, dimension: int) -> None:
        """``dimension``: numbers in a document."""
        self.family = family
        self._dimension = dimension
        self._now: Mixture | None = None
        self._first: Mixture | None = None

    def fit(self, docs: pl.Series, *, weight: Floats, stream: Stream) -> dict[str, float]:
        """Run expectation maximisation from a k-means start; raise TrainingError if a component dies."""
        x = self.sample(docs, weight, stream)
        if x is None:
            return {"loss": -np.inf}
        if self.family.algorithm == "batched":
            [(found, loss)] = together(self.family, [x], [stream])
        else:
            found, loss = self._maximised(x, stream)
        if found is None:
            raise TrainingError(DEAD)
        self.learn(found)
        return {"loss": loss}

    def sample(self, docs: pl.Series, weight: Floats, stream: Stream) -> Floats | None:
        """Return the documents to fit, [n, d]; None if they are all equal: then the model has collapsed to them."""
        x = docs.to_numpy()[resampled(weight, stream)]
        components = self.family.components
        if len(x) < components:
            raise TrainingError(
                f"a mixture of {components} components needs at least as many documents, but there are {len(x)}; let "
                "it scrape more, or give it fewer components."
            )
        if (x == x[0]).all():
            self.learn(
                Mixture(
                    np.full(components, 1 / components),
                    np.repeat(x[:1], components, axis=0),
                    np.zeros((components, self._dimension, self._dimension)),
                )
            )
            return None
        return x

    def _maximised(self, x: Floats, stream: Stream) -> tuple[Mixture, float]:
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.mixture import GaussianMixture as Maximiser

        how = self.family
        maximiser = Maximiser(
            how.components,
            tol=how.tol,
            max_iter=how.max_iter,
            reg_covar=how.regularization,
            random_state=stream.integer() % 2**32,  # scikit-learn takes seeds of 32 bits
        )
        # Threads of k-means add up in the order in which they finish: with one, the same documents give the same fit,
        # and sooner, for several would spend their time waiting for one another.
        with warnings.catch_warnings(), _threads().limit(limits=1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter and tol are the scenario's choice
            try:
                maximiser.fit(x)
            except ValueError as error:
                raise TrainingError(DEAD) from error
        found = Mixture(maximiser.weights_, maximiser.means_, maximiser.covariances_)
        # Rounding may leave a singular covariance a variance that is too small to be one.
        rounding = self._dimension * np.finfo(np.float64).eps * float(x.var(axis=0).sum())
        if np.linalg.eigvalsh(found.covariance).min() <= rounding:
            raise TrainingError(DEAD)
        return found, -float(maximiser.lower_bound_)

    def learn(self, mixture: Mixture) -> None:
        """Take over a mixture; the first one is remembered."""
        self._now = mixture
        self._first = self._first or mixture

    def generate(self, n: int, *, stream: Stream, decoding: Decoding) -> pl.Series:
        """Pick a component by its weight and draw from its normal.

        The sums run over coordinates one by one: a matrix product rounds differently for different numbers of rows.
        """
        from scipy.special import ndtri

        now = self._known()
        luck = coordinates(n, 1 + self._dimension, stream)
        chosen = choose(now.weight, luck[:, 0])
        root = square_root(now.covariance * decoding.temperature)[chosen]
        values = now.mean[chosen]
        for j in range(self._dimension):
            values = values + root[:, :, j] * ndtri(luck[:, 1 + j, None])
        return as_documents(values)

    def score(self, docs: pl.Series) -> Floats:
        """Return the log density of the documents."""
        return self._known().log_density(docs.to_numpy())

    def describe(self, truth: Truth) -> dict[str, float]:
        """Return moments against the truth's, and distances of the density from the true one and from the first fit's.

        The true density is known if it is normal; a collapsed mixture has no density, and so no distance.
        """
        if self._now is None or self._first is None:
            return {}
        said = {**moments(*self._now.whole(), truth), "collapsed": float(self._now.collapsed)}
        if not self._now.collapsed:
            if truth.normal and truth.mean is not None and truth.covariance is not None:
                normal = Mixture(np.ones(1), truth.mean[None], truth.covariance[None])
                said["density_distance"] = self._now.distance(normal)
            if not self._first.collapsed:
                said["density_change"] = self._now.distance(self._first)
        return said

    def state(self) -> dict[str, NDArray[Any]]:
        """Return weights [k], means [k, d] and covariances [k, d, d], and those of the first fit."""
        if self._now is None or self._first is None:
            return {}
        return {**vars(self._now), **{f"first_{name}": array for name, array in vars(self._first).items()}}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        k, d = self.family.components, self._dimension
        now, first = (
            Mixture(
                stored(state, f"{when}weight", k),
                stored(state, f"{when}mean", k, d),
                stored(state, f"{when}covariance", k, d, d),
            )
            for when in ("", "first_")
        )
        self._now, self._first = now, first

    def _known(self) -> Mixture:
        if self._now is None:
            raise unfitted()
        return self._now


class MixtureCohort(SinglesCohort):
    """Mixtures that are fitted together, in one stack for all that have equally many documents."""

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Fit members to their own documents; the same comes out, and is raised, as one by one, but nothing is learnt
        before all have been fitted.
        """
        started = time.perf_counter()
        losses = np.full(len(requests), -np.inf)
        stacks: dict[int, list[tuple[int, Floats]]] = {}
        for place, request in enumerate(requests):
            with of_member(request.member):
                check_finite(request.docs)
                x = self.model(request.member).sample(request.docs, request.weight, request.stream)
            if x is not None:
                stacks.setdefault(len(x), []).append((place, x))
        learnt: list[tuple[FittedMixture, Mixture]] = []
        for stack in stacks.values():
            streams = [requests[place].stream for place, _ in stack]
            found = together(self.model(0).family, [x for _, x in stack], streams)
            for (place, _), (mixture, loss) in zip(stack, found, strict=True):
                with of_member(requests[place].member):
                    if mixture is None:
                        raise TrainingError(DEAD)
                    learnt.append((self.model(requests[place].member), mixture))
                losses[place] = loss
        for model, mixture in learnt:
            model.learn(mixture)
        progress("fit", len(requests), len(requests))
        seconds = (time.perf_counter() - started) / max(1, len(requests))
        return [FitRecord(r.docs.len(), float(loss), seconds) for r, loss in zip(requests, losses, strict=True)]


def together(
    how: GaussianMixture, documents: Sequence[Floats], streams: Sequence[Stream]
) -> list[tuple[Mixture | None, float]]:
    """Fit a mixture to each of several sets of documents [n, d]; None where a component has died; and the losses."""
    luck = np.stack([stream.child("start").uniform(np.arange(how.components)) for stream in streams])
    found = maximise(np.stack(documents), luck, tol=how.tol, max_iter=how.max_iter, regularization=how.regularization)
    rows = zip(found.weight, found.mean, found.covariance, found.loss.tolist(), found.dead, strict=True)
    return [(None if dead else Mixture(w, m, c), loss) for w, m, c, loss, dead in rows]


@cache
def _threads() -> Any:
    """Return what limits the threads of the libraries below scikit-learn; finding them takes milliseconds."""
    import sklearn.mixture  # noqa: F401  # only libraries that are loaded are found
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def resampled(weight: Floats, stream: Stream) -> NDArray[np.int64]:
    """Return as many places in ``weight`` as it has, each about as often as its share; all once if they are alike."""
    n = weight.size
    if (weight == weight[0]).all():
        return np.arange(n)
    # Evenly spaced marks behind one random number: the least luck that gives every document its share on average.
    marks = (np.arange(n) + stream.child("resample").uniform(0)) / n
    return choose(weight, marks)
