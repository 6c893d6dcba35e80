"""Identifiability: what the targets say of each parameter, which parameters they cannot tell apart, and which pull."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from scipy import stats

from ecosystem.fitting.likelihood import Likelihood
from ecosystem.fitting.posterior import Posterior
from ecosystem.fitting.search import sobol
from ecosystem.fitting.spec.targets import Target
from ecosystem.streams import Streams
from ecosystem.types import Floats

PRIOR_SD = float(np.sqrt(1 / 12))  # of a probability of the prior
_PROPOSALS = 2**12
_FLAT = 0.3  # share of the proposals that are from the prior
_FREEDOM = 5.0  # of the Student t law that the others are from
_WIDER = 1.5  # standard deviation of the proposals in units of the posterior's
FEWEST = 100.0  # effective samples that a pull needs


@dataclass(frozen=True)
class Pull:
    """What leaving out targets does to each parameter, [parameters].

    ``shift``: mean with all targets minus mean without these, in posterior standard deviations. ``widening``: standard
    deviation without them over that with all. ``surprise``: deviation of the targets from what the others predict, as
    the root mean square of standardised deviations. ``effective``: the number of independent samples behind it.
    """

    label: str
    count: int
    shift: Floats
    widening: Floats
    surprise: float
    effective: float


@dataclass(frozen=True)
class Proposals:
    """Weighted points of the unit cube that describe the posterior and those without some targets.

    ``u`` [points, parameters]; ``log_weights`` [points] are those of all targets; ``inverse`` [points, used, used] is
    the inverse covariance of the residuals, ``scaled`` [points, used] its product with them.
    """

    u: Floats
    log_weights: Floats
    inverse: Floats
    scaled: Floats

    @classmethod
    def of(cls, likelihood: Likelihood, posterior: Posterior, seed: int) -> Proposals:
        """Draw points from a mixture of the prior and a wide Student t law around the posterior, and weigh them."""
        rng = Streams(seed).at("fit/proposals").rng()
        k = posterior.u.shape[1]
        centre = posterior.u.mean(axis=0)
        shape = np.atleast_2d(np.cov(posterior.u.T)) * _WIDER**2 + 1e-10 * np.eye(k)
        law = stats.multivariate_t(centre, shape, df=_FREEDOM)
        drawn = np.atleast_2d(law.rvs(_PROPOSALS, random_state=rng)).reshape(_PROPOSALS, k)
        inside = ((drawn > 0) & (drawn < 1)).all(axis=1)
        flat = np.clip(sobol(int(_PROPOSALS * _FLAT), k, int(rng.integers(2**32))), 1e-9, 1 - 1e-9)
        u = np.concatenate([flat, drawn[inside]])
        # All draws of the law count, so that its mass outside the cube needs no estimate.
        density = (len(flat) + _PROPOSALS * np.atleast_1d(law.pdf(u))) / (len(flat) + _PROPOSALS)
        residuals, covariances = likelihood.residuals(u)
        inverse = np.asarray(np.linalg.inv(covariances), float)
        scaled = np.einsum("pij,pj->pi", inverse, residuals)
        logs = -0.5 * ((scaled * residuals).sum(axis=1) + np.linalg.slogdet(covariances)[1])
        return cls(u, logs - np.log(density), inverse, scaled)

    def without(self, left: Sequence[int]) -> tuple[Floats, Floats]:
        """Return the log weights without some of the targets, and the surprise at these at each point, both [points].

        The density of the others is that of all over that of these given the others.
        """
        block = self.inverse[:, left][:, :, left]
        rest = np.linalg.solve(block, self.scaled[:, left][..., None])[..., 0]  # deviation given the others
        squares = np.einsum("pi,pij,pj->p", rest, block, rest)
        conditional = -0.5 * (squares - np.linalg.slogdet(block)[1])
        return self.log_weights - conditional, np.sqrt(squares / len(left))

    def moments(self, log_weights: Floats) -> tuple[Floats, Floats, Floats, float]:
        """Return means and standard deviations [parameters], normalised weights, and their effective number."""
        weights = np.exp(log_weights - log_weights.max())
        weights /= weights.sum()
        mean = weights @ self.u
        sd = np.sqrt(np.maximum(weights @ (self.u - mean) ** 2, 1e-300))
        return mean, sd, weights, float(1 / (weights**2).sum())


def pulls(likelihood: Likelihood, posterior: Posterior, targets: Sequence[Target], seed: int) -> list[Pull]:
    """Return the pull of every group of targets, and of every target if a group has several."""
    used = [targets[i] for i in likelihood.used]
    proposals = Proposals.of(likelihood, posterior, seed)
    mean, sd, _, _ = proposals.moments(proposals.log_weights)
    parts: dict[str, list[int]] = {}
    for number, target in enumerate(used):
        parts.setdefault(target.part, []).append(number)
    sets = dict(parts)
    if any(len(numbers) > 1 for numbers in parts.values()):
        sets |= {used[i].label: [i] for i in range(len(used))}
    found = []
    for label, left in sets.items():
        logs, surprise = proposals.without(left)
        other_mean, other_sd, weights, effective = proposals.moments(logs)
        found.append(
            Pull(label, len(left), (mean - other_mean) / sd, other_sd / sd, float(weights @ surprise), effective)
        )
    return found


def pull_table(found: Sequence[Pull], names: Sequence[str]) -> pl.DataFrame:
    """Return the table of pulls: label, targets, parameter, shift, widening, surprise, effective."""
    rows = [
        (pull.label, pull.count, name, float(shift), float(widening), pull.surprise, pull.effective)
        for pull in found
        for name, shift, widening in zip(names, pull.shift, pull.widening, strict=True)
    ]
    columns = ["label", "targets", "parameter", "shift", "widening", "surprise", "effective"]
    return pl.DataFrame(rows, schema=columns, orient="row")


def width_ratios(posterior: Posterior) -> Floats:
    """Return the standard deviation of each parameter in the posterior over that in the prior, as probabilities."""
    return np.asarray(posterior.u.std(axis=0, ddof=1) / PRIOR_SD)


def correlations(values: Mapping[str, Floats]) -> pl.DataFrame:
    """Return the correlations of samples of parameters: columns x, y, value."""
    names = list(values)
    matrix = np.atleast_2d(np.corrcoef(np.array([values[name] for name in names])))
    rows = [(a, b, float(matrix[i, j])) for i, a in enumerate(names) for j, b in enumerate(names)]
    return pl.DataFrame(rows, schema=["x", "y", "value"], orient="row")
