"""The ``gaussian`` family: a normal distribution of any dimension, fitted by its sample mean and covariance.

The model of Shumailov et al. (2024, section on single-dimensional Gaussians), Alemohammad et al. (2023) and Kazdan et
al. (2025). Repeated retraining has closed forms (:mod:`ecosystem.theory.gaussian`).
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.families.base import FAMILIES, BuildContext, Cohort
from ecosystem.families.requests import Decoding
from ecosystem.families.statistical.cohort import FittedFamily, Parameters, StackedCohort, human_documents
from ecosystem.families.statistical.normal import moments, square_root
from ecosystem.sources.base import Truth
from ecosystem.types import Floats, Modality


@FAMILIES.register("gaussian")
class Gaussian(FittedFamily):
    """A normal distribution fitted to vector documents.

    The ``temperature`` of a trainer's decoding multiplies the covariance of its samples: the sampling bias lambda of
    Alemohammad et al. (2023), since a normal density to the power 1/T is that of a normal with T times the covariance.
    ``truncate`` draws from the middle of the distribution only (cf. Peterson 2024).
    """

    modality: ClassVar[Modality] = "vector"
    supports_truncation: ClassVar[bool] = True

    covariance: Literal["unbiased", "maximum_likelihood", "unit"] = Field(
        "unbiased",
        description="divisor of the covariance: the sample size minus one, or the sample size; unit: the covariance is "
        "known to be the identity, and only the mean is fitted",
    )

    @property
    def averages_parameters(self) -> bool:
        """The mean of the means, and of the covariances is a distribution of the family."""
        return True

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M standard normals; raise DataError if there are no initial documents."""
        x = human_documents(name, context, "vector")
        cohort = GaussianCohort(name, members, x.shape[1], self.covariance)
        if self.init == "foundation":
            cohort.begin_from(x)
        return cohort


class GaussianCohort(StackedCohort):
    """M normals: ``mean`` [M, d] and ``covariance`` [M, d, d]."""

    def __init__(self, name: str, members: int, dimension: int, estimator: str = "unbiased") -> None:
        """``estimator``: that of the covariance (``Gaussian.covariance``); the unbiased one needs two documents."""
        super().__init__(
            name,
            members,
            pl.Array(pl.Float64, dimension),
            {"mean": np.zeros(dimension), "covariance": np.eye(dimension)},
        )
        self.estimator = estimator
        self.min_documents = 2 if estimator == "unbiased" else 1

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number per coordinate."""
        return (self._initial["mean"].size,)

    def estimate(self, x: NDArray[Any], weight: Floats) -> Parameters:
        """Return the weighted mean and covariance of x [M, n, d]; (Σw)²/Σw² is the sample size in the unbiased one."""
        share = weight / weight.sum(axis=1, keepdims=True)
        first = x[:, :1]  # subtracted before averaging, so that equal documents have a variance of exactly zero
        mean = first[:, 0] + np.einsum("mn,mnd->md", share, x - first)
        if self.estimator == "unit":
            return {"mean": mean, "covariance": np.broadcast_to(np.eye(x.shape[2]), (len(x), *2 * x.shape[2:])).copy()}
        centred = x - mean[:, None]
        covariance = np.einsum("mn,mnd,mne->mde", share, centred, centred, optimize=True)
        if self.estimator == "unbiased":
            effective = 1 / (share**2).sum(axis=1)
            covariance *= (effective / (effective - 1))[:, None, None]
        return {"mean": mean, "covariance": covariance}

    def draw(self, parameters: Parameters, decoding: Decoding, noise: Floats) -> NDArray[Any]:
        """Multiply standard normal numbers by the square root of the covariance, which may be singular."""
        from scipy.special import ndtr, ndtri

        root = square_root(parameters["covariance"] * decoding.temperature)
        if decoding.truncate is not None:
            with np.errstate(divide="ignore"):  # without any variance, there are no tails
                tail = ndtr(-decoding.truncate / root)
            noise = tail + noise * (1 - 2 * tail)
        return np.asarray(parameters["mean"][:, None] + np.einsum("mnd,mde->mne", ndtri(noise), root))

    def log_density(self, parameters: Parameters, x: NDArray[Any]) -> Floats:
        """Return the log density of x [n, d].

        If the covariance is singular, it is infinite for documents in its support, and minus infinite elsewhere.
        """
        values, vectors = np.linalg.eigh(parameters["covariance"])
        values = np.maximum(values, 0.0)
        along = (x - parameters["mean"]) @ vectors
        with np.errstate(divide="ignore", over="ignore", invalid="ignore"):
            squares = np.where(along == 0, 0.0, along**2 / values)
            return np.asarray(-0.5 * (squares + np.log(2 * np.pi * values)).sum(axis=1))

    def describe(self, truth: Truth) -> dict[str, Floats]:
        """Compare the moments with the truth, and report whether any variance is left.

        The log variance of a collapsed member is NaN.
        """
        compared = moments(self._parameters["mean"], self._parameters["covariance"], truth)
        share = compared["variance"]
        with np.errstate(divide="ignore"):
            logarithm = np.log(share)
        return {
            **compared,
            "log_variance": np.where(np.isfinite(logarithm), logarithm, np.nan),
            "standard_deviation": np.sqrt(share),
            "collapsed": (share == 0).astype(np.float64),
        }
