"""The likelihood of the targets by emulation, and the noise between runs that enters it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ecosystem.fitting.emulator import Emulator
from ecosystem.fitting.spec.targets import Target
from ecosystem.types import Floats, Ints


@dataclass(frozen=True)
class Noise:
    """How runs with their own seeds differ from the emulator: mean [targets] and covariance [targets, targets].

    The covariance includes the uncertainty of the mean. ``runs`` is the number of runs that it is estimated from.
    """

    offset: Floats
    covariance: Floats
    runs: int

    @classmethod
    def between_replicates(cls, emulator: Emulator) -> Noise:
        """Return a first estimate without further runs: the variance between the replicates at one point.

        The emulator describes the mean over replicates with the same seeds everywhere, whose own deviation adds.
        """
        variance = emulator.between * (1 + 1 / emulator.replicates)
        return cls(np.zeros(variance.size), np.diag(variance), emulator.replicates)

    @classmethod
    def of_runs(cls, emulator: Emulator, u: Floats, outputs: Floats) -> Noise:
        """Estimate the noise from runs with their own seeds, at points u [runs, parameters], outputs [runs, targets].

        Their deviations from the emulator contain the noise of one run and what the emulator misses near these points.
        The covariance is shrunk towards a diagonal of the same variances (Schäfer & Strimmer 2005), since there may be
        fewer runs than targets, and widened for its own uncertainty as a Student t law of as many degrees of freedom.
        """
        residuals = outputs - emulator.predict(u)[0]
        n = len(residuals)
        offset, covariance = residuals.mean(axis=0), shrunk_covariance(residuals)
        freedom = max(n - 1, 3)
        return cls(offset, covariance * (1 + 1 / n) * freedom / (freedom - 2), n)


def shrunk_covariance(values: Floats) -> Floats:
    """Return the covariance of rows [runs, targets], correlations shrunk towards 0 by the optimal amount.

    Schäfer & Strimmer (2005), target D: the intensity is the sum of the variances of the correlations over the sum of
    their squares.
    """
    n, count = values.shape
    sd = values.std(axis=0, ddof=1)
    scaled = np.divide(values - values.mean(axis=0), sd, out=np.zeros_like(values), where=sd > 0)
    products = scaled[:, :, None] * scaled[:, None, :]
    correlation = products.sum(axis=0) / (n - 1)
    variance = n / (n - 1) ** 3 * ((products - products.mean(axis=0)) ** 2).sum(axis=0)
    off = ~np.eye(count, dtype=bool)
    total = float((correlation[off] ** 2).sum())
    intensity = min(1.0, float(variance[off].sum()) / total) if total > 0 else 1.0
    correlation = np.where(off, (1 - intensity) * correlation, 1.0)
    return np.asarray(correlation * sd[:, None] * sd)


@dataclass(frozen=True)
class Likelihood:
    """The synthetic likelihood of the targets of a fit: normal, with the emulator's mean.

    Its covariance is the sum of the targets' errors and discrepancies, the noise of a run, and the error of the
    emulator (Wood 2010; Kennedy & O'Hagan 2001). Only targets with ``use = "fit"`` count.
    """

    emulator: Emulator  # of the targets that count
    offset: Floats  # mean of the noise, [used]
    covariance: Floats  # of the noise and the measurements, [used, used]
    used: Ints  # numbers of the targets that count
    observed: Floats  # [used]

    @classmethod
    def of(cls, emulator: Emulator, noise: Noise, targets: Sequence[Target]) -> Likelihood:
        """Return the likelihood of targets with an emulator and the noise of runs."""
        used = [i for i, target in enumerate(targets) if target.use == "fit"]
        measured = [targets[i].error ** 2 + targets[i].discrepancy ** 2 for i in used]
        return cls(
            emulator.of(used),
            noise.offset[used],
            noise.covariance[np.ix_(used, used)] + np.diag(measured),
            np.array(used),
            np.array([targets[i].value for i in used]),
        )

    def residuals(self, u: Floats) -> tuple[Floats, Floats]:
        """Return observed minus expected values [points, used], and their covariances [points, used, used]."""
        means, variances = self.emulator.predict(u)
        return self.observed - means - self.offset, self.covariance + variances[:, :, None] * np.eye(len(self.used))

    def __call__(self, u: Floats) -> Floats:
        """Return the log likelihood at points u [points, parameters], shape [points]."""
        residuals, covariances = self.residuals(u)
        # The last row of the Cholesky factor of the covariance, bordered by the residuals, solves for these on the way.
        count = len(self.used)
        bordered = np.empty((len(u), count + 1, count + 1))
        bordered[:, :count, :count] = covariances
        bordered[:, count, :count] = bordered[:, :count, count] = residuals
        bordered[:, count, count] = 1e300
        factors = np.linalg.cholesky(bordered)
        scaled = factors[:, count, :count]
        logdet = 2 * np.log(np.diagonal(factors, axis1=1, axis2=2)[:, :count]).sum(axis=1)
        return np.asarray(-0.5 * ((scaled**2).sum(axis=1) + logdet + count * np.log(2 * np.pi)))
