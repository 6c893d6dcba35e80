"""Emulators: the mean output at each target as a function of the parameters, with the error of the prediction.

Each target has its own emulator, the better of three by leave-one-out error: a linear or quadratic regression, or a
Gaussian process with a Matérn 5/2 kernel and one length scale per parameter (Rasmussen & Williams 2006, chapters 2, 4
and 5). Leave-one-out residuals are exact for given hyperparameters (equation 5.12 there).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from ecosystem.fitting.trials import Trial, means_over_replicates
from ecosystem.types import Floats

Kind = Literal["constant", "linear", "quadratic", "gaussian process"]
_LENGTHS = (0.05, 20.0)  # bounds of length scales, in widths of the prior
_RESTARTS = 2
_NEGLIGIBLE = 1e-4  # share of the variance
_TERMS_PER_POINT = 0.6  # most terms of a regression


@dataclass(frozen=True)
class Regression:
    """A polynomial of the parameters, fitted by least squares; ``error`` is its leave-one-out error (RMS)."""

    kind: Kind
    error: float
    coefficients: Floats
    covariance: Floats

    @classmethod
    def fit(cls, kind: Kind, u: Floats, y: Floats) -> Regression:
        """Fit a polynomial to points u [points, parameters] with values y [points]."""
        x = _terms(kind, u)
        q, r = np.linalg.qr(x)
        leverage = np.clip((q**2).sum(axis=1), 0, 1 - 1e-9)
        coefficients = linalg.solve_triangular(r, q.T @ y)
        residuals = y - x @ coefficients
        error = float(np.sqrt(np.mean((residuals / (1 - leverage)) ** 2)))
        inverse = linalg.solve_triangular(r, np.eye(r.shape[0]))
        variance = float((residuals**2).sum()) / max(1, len(y) - x.shape[1])
        return cls(kind, error, coefficients, variance * inverse @ inverse.T)


def _terms(kind: Kind, u: Floats) -> Floats:
    """Return the terms of a polynomial at points, shape [points, terms]."""
    centred = 2 * u - 1
    columns = [np.ones(len(u))]
    if kind != "constant":
        columns += list(centred.T)
    if kind == "quadratic":
        k = u.shape[1]
        columns += [centred[:, i] * centred[:, j] for i in range(k) for j in range(i, k)]
    return np.stack(columns, axis=1)


@dataclass(frozen=True)
class Process:
    """A Gaussian process conditioned on points, in units of ``scale`` around ``centre``; ``error`` is as above."""

    kind: Kind
    error: float
    points: Floats
    lengths: Floats
    amplitude: float
    weights: Floats
    inverse: Floats  # of the Cholesky factor of the covariance of the points
    centre: float
    scale: float

    @classmethod
    def fit(cls, u: Floats, y: Floats, seed: int) -> Process:
        """Choose the hyperparameters by maximum likelihood and condition on points u with values y."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.gaussian_process import GaussianProcessRegressor
        from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

        centre, scale = float(y.mean()), float(y.std()) or 1.0
        k = u.shape[1]
        kernel = ConstantKernel(1.0, (1e-2, 1e3)) * Matern(np.ones(k), [_LENGTHS] * k, nu=2.5)
        kernel += WhiteKernel(1e-2, (1e-8, 1.0))
        process = GaussianProcessRegressor(kernel, n_restarts_optimizer=_RESTARTS, random_state=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a length scale at its bound: no effect
            process.fit(u, (y - centre) / scale)
        signal = process.kernel_.k1
        inverse = linalg.solve_triangular(process.L_, np.eye(len(y)), lower=True)
        weights = np.ravel(process.alpha_)
        left_out = weights / (inverse**2).sum(axis=0)  # (K⁻¹ y)ᵢ / (K⁻¹)ᵢᵢ
        return cls(
            "gaussian process",
            scale * float(np.sqrt(np.mean(left_out**2))),
            u,
            np.broadcast_to(signal.k2.length_scale, (k,)).copy(),
            float(signal.k1.constant_value),
            weights,
            inverse,
            centre,
            scale,
        )


Surface = Regression | Process
"""A fitted function of the parameters."""


@dataclass(frozen=True)
class Polynomials:
    """Regressions with the same terms, computed together: coefficients [terms, targets], covariances [targets, …]."""

    kind: Kind
    coefficients: Floats
    covariances: Floats

    @classmethod
    def of(cls, surfaces: Sequence[Regression]) -> Polynomials:
        """Put regressions of one kind together."""
        coefficients = np.stack([surface.coefficients for surface in surfaces], axis=1)
        return cls(surfaces[0].kind, coefficients, np.stack([surface.covariance for surface in surfaces]))

    def predict(self, u: Floats) -> tuple[Floats, Floats]:
        """Return the means and variances at points u [points, parameters], each [points, targets]."""
        x = _terms(self.kind, u)
        return x @ self.coefficients, ((x @ self.covariances) * x).sum(axis=2).T


@dataclass(frozen=True)
class Processes:
    """Gaussian processes with the same points, computed together; the first axis of all arrays is that of targets."""

    points: Floats  # in units of the length scales, [targets, points, parameters]
    lengths: Floats
    amplitude: Floats
    weights: Floats
    factor: NDArray[np.float32]  # F, so that F Fᵀ is nearly the inverse covariance of the points
    centre: Floats
    scale: Floats

    @classmethod
    def of(cls, surfaces: Sequence[Process]) -> Processes:
        """Put processes with the same points together."""
        lengths = np.stack([surface.lengths for surface in surfaces])[:, None]
        return cls(
            surfaces[0].points / lengths,
            lengths,
            np.array([surface.amplitude for surface in surfaces])[:, None, None],
            np.stack([surface.weights for surface in surfaces])[:, :, None],
            _stacked([_factor(surface) for surface in surfaces]),
            np.array([surface.centre for surface in surfaces])[:, None],
            np.array([surface.scale for surface in surfaces])[:, None],
        )

    def predict(self, u: Floats) -> tuple[Floats, Floats]:
        """Return the means and variances of the functions, without the noise of the points, each [points, targets]."""
        covariance = self.amplitude * _matern(u / self.lengths, self.points)
        mean = (covariance @ self.weights)[:, :, 0]
        explained = ((covariance.astype(np.float32) @ self.factor) ** 2).sum(axis=2, dtype=np.float64)
        variance = self.amplitude[:, 0] - explained
        return (self.centre + self.scale * mean).T, (self.scale**2 * np.maximum(variance, 0)).T


def _matern(a: Floats, b: Floats) -> Floats:
    """Return the Matérn 5/2 correlations of points a [..., m, parameters] and b [..., n, parameters], [..., m, n]."""
    squared = (a**2).sum(axis=-1)[..., None] + (b**2).sum(axis=-1)[..., None, :] - 2 * a @ np.swapaxes(b, -1, -2)
    distance = np.sqrt(5 * np.maximum(squared, 0))
    return np.asarray((1 + distance + distance**2 / 3) * np.exp(-distance))


def _factor(surface: Process) -> Floats:
    """Return F [points, rank], so that F Fᵀ is the inverse covariance of the points without what hardly explains.

    Left out are the eigenvectors that together explain less than 1e-4 of the variance at the points; the variance of
    predictions grows by as much.
    """
    scaled = surface.points / surface.lengths
    values, vectors = np.linalg.eigh(surface.inverse.T @ surface.inverse)  # of the inverse covariance
    signal = surface.amplitude * _matern(scaled, scaled) @ vectors
    explained = values * (signal**2).sum(axis=0)
    order = np.argsort(explained)
    kept = np.sort(order[np.cumsum(explained[order]) > _NEGLIGIBLE * surface.amplitude * len(scaled)])
    return np.asarray(vectors[:, kept] * np.sqrt(values[kept]))


def _stacked(factors: Sequence[Floats]) -> NDArray[np.float32]:
    """Return factors [points, rank] as one array [targets, points, largest rank], with zeros."""
    rank = max(factor.shape[1] for factor in factors)
    padded = [np.pad(factor, ((0, 0), (0, rank - factor.shape[1]))) for factor in factors]
    return np.stack(padded).astype(np.float32)


@dataclass(frozen=True)
class Emulator:
    """The emulators of all targets, and the variance of their outputs between replicates, [targets]."""

    surfaces: Sequence[Surface]
    spread: Floats  # standard deviation of the outputs over the points, [targets]
    errors: dict[str, Floats]  # kind → leave-one-out error of each target, NaN where it was not fitted
    between: Floats  # variance between replicates at one point, [targets]; 0 without replicates
    replicates: int

    @classmethod
    def fit(cls, trials: Sequence[Trial], seed: int) -> Emulator:
        """Fit the emulators to the trials that did not fail; targets without a value there are left out of each fit."""
        used = [trial for trial in trials if trial.state != "failed"]
        u = np.array([trial.u for trial in used])
        outputs = np.array([trial.outputs for trial in used])  # [trials, replicates, targets]
        means, between = means_over_replicates(outputs)
        kinds: list[Kind] = ["constant", "linear", "quadratic", "gaussian process"]
        errors: dict[str, Floats] = {kind: np.full(means.shape[1], np.nan) for kind in kinds}
        surfaces: list[Surface] = []
        for target in range(means.shape[1]):
            known = np.isfinite(means[:, target])
            fitted = _candidates(u[known], means[known, target], seed)
            for surface in fitted:
                errors[surface.kind][target] = surface.error
            surfaces.append(min(fitted, key=lambda surface: surface.error))
        return cls(surfaces, np.nanstd(means, axis=0), errors, between, outputs.shape[1])

    def predict(self, u: Floats) -> tuple[Floats, Floats]:
        """Return the means and their variances at points u [points, parameters], each of shape [points, targets]."""
        means, variances = np.empty((2, len(u), len(self.surfaces)))
        for numbers, group in self._groups:
            means[:, numbers], variances[:, numbers] = group.predict(u)
        return means, variances

    def of(self, targets: Sequence[int]) -> Emulator:
        """Return the emulators of some of the targets."""
        chosen = list(targets)
        errors = {kind: values[chosen] for kind, values in self.errors.items()}
        surfaces = [self.surfaces[i] for i in chosen]
        return Emulator(surfaces, self.spread[chosen], errors, self.between[chosen], self.replicates)

    @cached_property
    def _groups(self) -> list[tuple[list[int], Polynomials | Processes]]:
        """Surfaces that are computed together, with the numbers of their targets."""
        parts: dict[tuple[str, bytes], list[int]] = {}
        for number, surface in enumerate(self.surfaces):
            points = surface.points.tobytes() if isinstance(surface, Process) else b""
            parts.setdefault((surface.kind, points), []).append(number)
        groups: list[tuple[list[int], Polynomials | Processes]] = []
        for numbers in parts.values():
            members = [self.surfaces[i] for i in numbers]
            processes = [surface for surface in members if isinstance(surface, Process)]
            polynomials = [surface for surface in members if isinstance(surface, Regression)]
            groups.append((numbers, Processes.of(processes) if processes else Polynomials.of(polynomials)))
        return groups

    @cached_property
    def explained(self) -> Floats:
        """Share of the variance of each output over the points that leave-one-out prediction explains, [targets]."""
        error = np.array([surface.error for surface in self.surfaces])
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.spread > 0, 1 - (error / self.spread) ** 2, 1.0)


def _candidates(u: Floats, y: Floats, seed: int) -> list[Surface]:
    """Return the surfaces that can be fitted to points u [points, parameters] with values y [points]."""
    n, k = u.shape
    fitted: list[Surface] = [Regression.fit("constant", u, y)]
    if np.ptp(y) <= 1e-12 * max(1.0, float(np.abs(y).max())):
        return fitted
    if k + 1 <= _TERMS_PER_POINT * n:
        fitted.append(Regression.fit("linear", u, y))
    if (k + 1) * (k + 2) / 2 <= _TERMS_PER_POINT * n:
        fitted.append(Regression.fit("quadratic", u, y))
    fitted.append(Process.fit(u, y, seed))
    return fitted
