"""The ``gmm`` family: a mixture of normals, fitted by expectation maximisation.

The model of the two-component toy example of Shumailov et al. (2024). Their measure of collapse is the squared L2
distance between densities, which has a closed form for mixtures of normals.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.errors import TrainingError
from ecosystem.families.base import FAMILIES, BuildContext, Cohort, Progress, of_member, silent
from ecosystem.families.requests import Decoding, FitRecord, FitRequest
from ecosystem.families.single import SinglesCohort, check_finite, choose, coordinates, stored, unfitted
from ecosystem.families.statistical.cohort import FittedFamily, human_documents
from ecosystem.families.statistical.maximisation import maximise
from ecosystem.families.statistical.mixture import Mixture
from ecosystem.families.statistical.normal import moments_of_one, square_root
from ecosystem.sources.base import Truth
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream
from ecosystem.types import Floats, Modality

DEAD_COMPONENT = (
    "a component of the mixture has died: its documents do not vary in every direction (its covariance is singular). "
    "Give the mixture fewer components, more documents, or a regularization above 0."
)


@FAMILIES.register("gmm")
class GaussianMixture(FittedFamily):
    """A mixture of normals with full covariances, fitted by expectation maximisation.

    If the weights of documents differ, the documents are resampled in proportion to their weights (systematic
    resampling). A component with too few different documents for a covariance is an error, unless ``regularization``
    keeps it alive. Documents that are all equal are not an error: the model has collapsed to them. The ``temperature``
    of a trainer's decoding multiplies the covariance of every component.
    """

    modality: ClassVar[Modality] = "vector"

    components: Annotated[int, Field(ge=1, le=10_000)] = Field(2, description="number of normals in the mixture")
    algorithm: Literal["batched", "scikit_learn"] = Field(
        "batched",
        description="batched: all members with equally many documents in one stack of arrays; scikit_learn: one member "
        "at a time by its GaussianMixture, which starts from random numbers of its own",
    )
    tol: Annotated[float, Field(gt=0)] = Field(
        1e-3, description="gain of a step below which the fit ends, in nats per document"
    )
    max_iter: Annotated[int, Field(ge=1, le=10**6)] = Field(100, description="most steps of a fit")
    regularization: Annotated[float, Field(ge=0)] = Field(
        0.0, description="variance added to every coordinate of every component (scikit-learn's reg_covar: 1e-6 there)"
    )

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M mixtures; raise DataError if there are no initial documents."""
        dimension = human_documents(name, context, "vector").shape[1]
        kind = MixtureCohort if self.algorithm == "batched" else SinglesCohort
        cohort = kind(name, members, context.human.dtype, lambda: FittedMixture(self, dimension))
        if self.init == "foundation":
            cohort.begin_from(context.human, context.streams.at(f"models/{name}/foundation"))
        return cohort


class FittedMixture:
    """The current mixture of a member, and its first one, with which later ones are compared."""

    def __init__(self, family: GaussianMixture, dimension: int) -> None:
        """``dimension``: length of a document."""
        self.family = family
        self._dimension = dimension
        self._current: Mixture | None = None
        self._first: Mixture | None = None

    def fit(self, docs: pl.Series, *, weight: Floats, stream: Stream) -> dict[str, float]:
        """Run expectation maximisation, initialised by k-means; raise TrainingError if a component dies."""
        x = self.sample(docs, weight, stream)
        if x is None:
            return {"loss": -np.inf}
        if self.family.algorithm == "batched":
            [(mixture, loss)] = fit_stack(self.family, [x], [stream])
        else:
            mixture, loss = self._fit_with_scikit_learn(x, stream)
        if mixture is None:
            raise TrainingError(DEAD_COMPONENT)
        self.learn(mixture)
        return {"loss": loss}

    def sample(self, docs: pl.Series, weight: Floats, stream: Stream) -> Floats | None:
        """Return the documents to fit, [n, d]; if all are equal, collapse to them and return None."""
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

    def _fit_with_scikit_learn(self, x: Floats, stream: Stream) -> tuple[Mixture, float]:
        import sklearn.mixture
        from sklearn.exceptions import ConvergenceWarning

        estimator = sklearn.mixture.GaussianMixture(
            self.family.components,
            tol=self.family.tol,
            max_iter=self.family.max_iter,
            reg_covar=self.family.regularization,
            random_state=stream.integer() % 2**32,  # scikit-learn takes seeds of 32 bits
        )
        # K-means sums the results of its threads in the order in which they finish. With one thread, the same documents
        # give the same fit; it is also faster, since several threads would wait for one another.
        with warnings.catch_warnings(), _thread_controller().limit(limits=1):
            warnings.simplefilter("ignore", ConvergenceWarning)  # max_iter and tol are the scenario's choice
            try:
                estimator.fit(x)
            except ValueError as error:
                raise TrainingError(DEAD_COMPONENT) from error
        mixture = Mixture(estimator.weights_, estimator.means_, estimator.covariances_)
        # By rounding, a singular covariance may keep a tiny variance.
        rounding = self._dimension * np.finfo(np.float64).eps * float(x.var(axis=0).sum())
        if np.linalg.eigvalsh(mixture.covariance).min() <= rounding:
            raise TrainingError(DEAD_COMPONENT)
        return mixture, -float(estimator.lower_bound_)

    def learn(self, mixture: Mixture) -> None:
        """Set the current mixture, and the first one if there is none yet."""
        self._current = mixture
        self._first = self._first or mixture

    def generate(self, n: int, *, stream: Stream, decoding: Decoding) -> pl.Series:
        """Pick components by weight and draw from their normals.

        Coordinates are summed one by one, since a matrix product rounds differently for different numbers of rows.
        """
        from scipy.special import ndtri

        mixture = self._fitted()
        noise = coordinates(n, 1 + self._dimension, stream)
        chosen = choose(mixture.weight, noise[:, 0])
        root = square_root(mixture.covariance * decoding.temperature)[chosen]
        values = mixture.mean[chosen]
        for j in range(self._dimension):
            values = values + root[:, :, j] * ndtri(noise[:, 1 + j, None])
        return as_documents(values)

    def score(self, docs: pl.Series) -> Floats:
        """Return the log density of the documents."""
        return self._fitted().log_density(docs.to_numpy())

    def describe(self, truth: Truth) -> dict[str, float]:
        """Compare moments with the truth, and the density with the true one and with that of the first fit.

        Distances are left out if the true distribution is not normal, or a mixture has collapsed and so has no density.
        """
        if self._current is None or self._first is None:
            return {}
        values = {**moments_of_one(*self._current.moments(), truth), "collapsed": float(self._current.collapsed)}
        if not self._current.collapsed:
            if truth.normal and truth.mean is not None and truth.covariance is not None:
                normal = Mixture(np.ones(1), truth.mean[None], truth.covariance[None])
                values["density_distance"] = self._current.distance(normal)
            if not self._first.collapsed:
                values["density_change"] = self._current.distance(self._first)
        return values

    def state(self) -> dict[str, NDArray[Any]]:
        """Return weights [k], means [k, d] and covariances [k, d, d], and those of the first fit."""
        if self._current is None or self._first is None:
            return {}
        return {**vars(self._current), **{f"first_{name}": array for name, array in vars(self._first).items()}}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned."""
        k, d = self.family.components, self._dimension
        current, first = (
            Mixture(
                stored(state, f"{prefix}weight", k),
                stored(state, f"{prefix}mean", k, d),
                stored(state, f"{prefix}covariance", k, d, d),
            )
            for prefix in ("", "first_")
        )
        self._current, self._first = current, first

    def _fitted(self) -> Mixture:
        if self._current is None:
            raise unfitted()
        return self._current


class MixtureCohort(SinglesCohort):
    """Mixtures that are fitted together: members with equally many documents share a stack."""

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Fit members, each to its own documents; results and errors equal those of separate fits.

        No mixture is set before all fits have succeeded, except that of documents that are all equal.
        """
        started = time.perf_counter()
        losses = np.full(len(requests), -np.inf)
        stacks: dict[int, list[tuple[int, Floats]]] = {}
        for i, request in enumerate(requests):
            with of_member(request.member):
                check_finite(request.docs)
                x = self.model(request.member).sample(request.docs, request.weight, request.stream)
            if x is not None:
                stacks.setdefault(len(x), []).append((i, x))
        fitted: list[tuple[FittedMixture, Mixture]] = []
        for stack in stacks.values():
            streams = [requests[i].stream for i, _ in stack]
            results = fit_stack(self.model(0).family, [x for _, x in stack], streams)
            for (i, _), (mixture, loss) in zip(stack, results, strict=True):
                with of_member(requests[i].member):
                    if mixture is None:
                        raise TrainingError(DEAD_COMPONENT)
                    fitted.append((self.model(requests[i].member), mixture))
                losses[i] = loss
        for model, mixture in fitted:
            model.learn(mixture)
        progress("fit", len(requests), len(requests))
        seconds = (time.perf_counter() - started) / max(1, len(requests))
        return [FitRecord(r.docs.len(), float(loss), seconds) for r, loss in zip(requests, losses, strict=True)]


def fit_stack(
    family: GaussianMixture, documents: Sequence[Floats], streams: Sequence[Stream]
) -> list[tuple[Mixture | None, float]]:
    """Fit a mixture to each set of documents [n, d]; return (mixture, or None if a component died; loss) pairs."""
    noise = np.stack([stream.child("start").uniform(np.arange(family.components)) for stream in streams])
    fits = maximise(
        np.stack(documents),
        noise,
        tol=family.tol,
        max_iter=family.max_iter,
        regularization=family.regularization,
    )
    rows = zip(fits.weight, fits.mean, fits.covariance, fits.loss.tolist(), fits.dead, strict=True)
    return [(None if dead else Mixture(w, m, c), loss) for w, m, c, loss, dead in rows]


@cache
def _thread_controller() -> Any:
    """Return the controller of scikit-learn's native thread pools; making it takes milliseconds."""
    import sklearn.mixture  # noqa: F401  # the controller finds only libraries that are loaded
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]

    return ThreadpoolController()


def resampled(weight: Floats, stream: Stream) -> NDArray[np.int64]:
    """Draw n indices of ``weight`` [n] in proportion to the weights; equal weights give each index once."""
    n = weight.size
    if (weight == weight[0]).all():
        return np.arange(n)
    # Systematic resampling: one random number shifts evenly spaced points, for the least variance.
    points = (np.arange(n) + stream.child("resample").uniform(0)) / n
    return choose(weight, points)
