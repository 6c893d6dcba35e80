"""Mixtures of normals: densities, moments, and the distance between two mixtures in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ecosystem.types import Floats


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

    def moments(self) -> tuple[Floats, Floats]:
        """Return the mean [d] and covariance [d, d] of the mixture."""
        first = self.mean[0]  # subtracted before averaging, so that equal means differ from their mean by exactly zero
        mean = first + self.weight @ (self.mean - first)
        offset = self.mean - mean
        return mean, np.einsum("k,kde->de", self.weight, self.covariance + offset[:, :, None] * offset[:, None])

    def log_density(self, x: Floats) -> Floats:
        """Return the log density of x [n, d]; for a collapsed mixture, inf at its point and -inf elsewhere."""
        from scipy.special import logsumexp

        if self.collapsed:
            return np.where((x == self.mean[0]).all(axis=1), np.inf, -np.inf)
        with np.errstate(divide="ignore"):  # a component may have no weight
            log_weight = np.log(self.weight)
        return np.asarray(logsumexp(log_weight + self._log_normal(x[:, None] - self.mean, self.covariance), axis=1))

    def overlap(self, other: Mixture) -> float:
        """Return the integral of the product of two densities: a sum of normal densities at differences of means."""
        difference = self.mean[:, None] - other.mean
        covariance = self.covariance[:, None] + other.covariance
        return float(self.weight @ np.exp(self._log_normal(difference, covariance)) @ other.weight)

    def distance(self, other: Mixture) -> float:
        """Return the integral of the squared difference of two densities; neither mixture may have collapsed."""
        return max(self.overlap(self) + other.overlap(other) - 2 * self.overlap(other), 0.0)

    @staticmethod
    def _log_normal(x: Floats, covariance: Floats) -> Floats:
        """Return the log density of normals of mean 0 at x [..., d]."""
        root = np.linalg.cholesky(covariance)
        whitened = np.linalg.solve(root, x[..., None])[..., 0]
        scale = np.log(np.diagonal(root, axis1=-2, axis2=-1)).sum(axis=-1)
        return np.asarray(-0.5 * (whitened**2).sum(axis=-1) - scale - 0.5 * x.shape[-1] * np.log(2 * np.pi))
