"""The posterior of the parameters, by an affine-invariant ensemble sampler (emcee) in the unit cube of the prior."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ecosystem.errors import EcosystemError
from ecosystem.fitting.search import INSTALL, sobol
from ecosystem.streams import Streams
from ecosystem.types import Floats

ENSEMBLES = 4  # independent of each other, for the comparison of their means
_BLOCK = 500  # steps between two tests of convergence
MOST = 8000  # steps
_TIMES = 20  # autocorrelation times that make a chain long enough
_LARGEST_RATIO = 1.01  # of R̂
ROUGH = 500  # steps of a first posterior, which only places runs
KEPT = 4000  # samples
_POPULATION = 4  # points that are annealed for each walker
_ANNEALING = 10  # steps between two powers
_LARGEST_SPREAD = 1.2  # R̂ of single walkers, which is large if some are stuck


@dataclass(frozen=True)
class Posterior:
    """Samples of the posterior in the unit cube of the prior, u [samples, parameters], with their diagnostics.

    ``ratio`` is R̂ over ensembles and halves of them (Gelman et al. 2013, section 11.4), ``time`` the integrated
    autocorrelation time in steps (Goodman & Weare 2010), and ``effective`` the number of independent samples, each
    [parameters]. ``steps`` is the length of each ensemble.
    """

    u: Floats
    log_likelihood: Floats  # [samples]
    ratio: Floats
    time: Floats
    effective: Floats
    steps: int
    acceptance: float
    stuck: bool  # whether some walkers stay apart from the others

    @property
    def converged(self) -> bool:
        """Whether the ensembles agree and are long against their autocorrelation times."""
        long = (self.steps > _TIMES * self.time).all()
        return bool((self.ratio < _LARGEST_RATIO).all() and long and not self.stuck)


def sample(log_likelihood: Callable[[Floats], Floats], k: int, seed: int, name: str, *, most: int = MOST) -> Posterior:
    """Sample the posterior of ``k`` parameters with a uniform prior in the unit cube.

    ``log_likelihood`` takes points [points, k] and returns [points]; ``name`` is that of the random stream. The
    ensembles run until R̂ is below 1.01 and half of them is 20 autocorrelation times long, or end after ``most`` steps.
    """
    try:
        import emcee
    except ImportError:
        raise EcosystemError(f"a fit needs Optuna and emcee, which are not installed: {INSTALL}") from None

    def log_probability(u: Floats) -> Floats:
        inside = ((u > 0) & (u < 1)).all(axis=1)
        values = np.full(len(u), -np.inf)
        if inside.any():
            values[inside] = log_likelihood(u[inside])
        return values

    walkers = max(24, 8 * k)
    ensembles, states = [], []
    for number in range(ENSEMBLES):
        rng = Streams(seed).at(f"fit/{name}", number).rng()
        states.append(_annealed(emcee, log_probability, k, _POPULATION * walkers, rng)[:walkers])
        ensembles.append(_ensemble(emcee, log_probability, walkers, k, rng))
    steps = 0
    while True:
        for number, ensemble in enumerate(ensembles):
            states[number] = ensemble.run_mcmc(states[number], _BLOCK)
        steps += _BLOCK
        result = _summary(ensembles, steps, Streams(seed).at(f"fit/{name}/kept").rng())
        if result.converged or steps >= most:
            return result


def _ensemble(emcee: Any, log_probability: Callable[[Floats], Floats], walkers: int, k: int, rng: Any) -> Any:
    """Return a sampler of emcee with the moves of fits, seeded by ``rng``."""
    moves = [(emcee.moves.DEMove(), 0.7), (emcee.moves.DESnookerMove(), 0.1), (emcee.moves.StretchMove(), 0.2)]
    ensemble = emcee.EnsembleSampler(walkers, k, log_probability, moves=moves, vectorize=True)
    ensemble.random_state = np.random.RandomState(int(rng.integers(2**32))).get_state()
    return ensemble


def _annealed(emcee: Any, log_probability: Callable[[Floats], Floats], k: int, count: int, rng: Any) -> Floats:
    """Return the first points of an ensemble, [count, k], in random order.

    Points of the prior are drawn to the posterior by powers of the likelihood that rise to 1, each so that half of the
    points would be lost, with resampling and a few steps of the sampler in between (annealed sequential Monte Carlo,
    Del Moral et al. 2006). Points that start far from a narrow posterior would not find it.
    """
    points = np.clip(sobol(max(2048, count), k, int(rng.integers(2**32))), 1e-6, 1 - 1e-6)
    logs, power = log_probability(points), 0.0
    while power < 1:
        power, weights = _next_power(logs, power, count)
        chosen = points[rng.choice(len(points), count, p=weights)]
        moved = chosen + 0.1 * chosen.std(axis=0) * rng.normal(size=chosen.shape)
        chosen = np.where((moved > 0) & (moved < 1), moved, chosen)
        tempered = _ensemble(emcee, _Tempered(log_probability, power), count, k, rng)
        points = tempered.run_mcmc(chosen, _ANNEALING).coords
        logs = log_probability(points)
    return np.asarray(points[rng.permutation(count)])


@dataclass(frozen=True)
class _Tempered:
    """A power of a likelihood."""

    log_probability: Callable[[Floats], Floats]
    power: float

    def __call__(self, u: Floats) -> Floats:
        return self.power * self.log_probability(u)


def _next_power(logs: Floats, power: float, count: int) -> tuple[float, Floats]:
    """Return the power, at most 1, whose weights leave half of ``count`` effective points; and these weights."""

    def weights(to: float) -> Floats:
        found = np.exp((to - power) * (logs - logs.max()))
        return np.asarray(found / found.sum())

    low, high = power, 1.0
    if 1 / (weights(1.0) ** 2).sum() >= count / 2:
        return 1.0, weights(1.0)
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if 1 / (weights(middle) ** 2).sum() >= count / 2 else (low, middle)
    return high, weights(high)


def _summary(ensembles: list[Any], steps: int, rng: np.random.Generator) -> Posterior:
    """Return the second halves of the chains as samples, with their diagnostics."""
    from emcee.autocorr import integrated_time

    half = steps // 2
    chains = np.stack([ensemble.get_chain(discard=half) for ensemble in ensembles])  # [ensembles, steps, walkers, k]
    logs = np.stack([ensemble.get_log_prob(discard=half) for ensemble in ensembles])
    time = np.mean([integrated_time(chain, quiet=True, tol=0) for chain in chains], axis=0)
    time = np.maximum(np.nan_to_num(time, nan=float(half)), 1.0)
    flat, flat_logs = chains.reshape(-1, chains.shape[-1]), logs.reshape(-1)
    kept = np.sort(rng.choice(len(flat), min(KEPT, len(flat)), replace=False))
    effective = len(flat) / time
    acceptance = float(np.mean([ensemble.acceptance_fraction.mean() for ensemble in ensembles]))
    return Posterior(flat[kept], flat_logs[kept], _ratio(chains), time, effective, half, acceptance, _stuck(chains))


def _ratio(chains: Floats) -> Floats:
    """Return R̂ of every parameter over the halves of all walkers' chains [ensembles, steps, walkers, parameters].

    The walkers of an ensemble depend on each other, so an ensemble counts as one chain: its mean over walkers.
    """
    half = chains.shape[1] // 2
    parts = np.concatenate([chains[:, :half], chains[:, half : 2 * half]])
    means = parts.mean(axis=(1, 2))
    within = parts.var(axis=(1, 2)).mean(axis=0)
    between = means.var(axis=0, ddof=1)
    return np.asarray(np.sqrt((within + between) / np.where(within > 0, within, 1.0)))


def _stuck(chains: Floats) -> bool:
    """Return whether the means of single walkers [ensembles, steps, walkers, parameters] differ too much."""
    within = chains.var(axis=1).mean(axis=(0, 1))
    between = chains.mean(axis=1).reshape(-1, chains.shape[-1]).var(axis=0, ddof=1)
    return bool((np.sqrt(1 + between / np.where(within > 0, within, 1.0)) > _LARGEST_SPREAD).any())
