"""Loops of one closed-form model for many replicates at once, past agents, web and documents.

For questions that need ten thousand runs or a thousand generations (times to collapse, rare events). Each function
draws exactly what the world's loop of the same name draws in distribution, but never makes a document: a normal is
carried by its sufficient statistics, symbols by who copied whom. A test holds them against the world.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ecosystem.cores import cores
from ecosystem.errors import DataError
from ecosystem.streams import Stream, Streams

T = TypeVar("T")
Floats = NDArray[np.float64]

_BLOCK = 500  # replicates that share a stream: few enough for a cache, enough that threads do not wait for each other


@dataclass(frozen=True)
class Normals:
    """Means and variances of fitted normals, shape [generations, replicates]; row 0 is the first fit to real data."""

    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Symbols:
    """What became of fitted frequencies, shape [generations, replicates]; row 0 is the first fit to real data."""

    gini_simpson: Floats
    support: NDArray[np.int64]
    survivor: NDArray[np.int64]  # [replicates]: the likeliest symbol of the last generation


def gaussian_replace(
    replicates: int, generations: int, n: int, *, unbiased: bool = True, sampling_bias: float = 1.0, seed: int = 1
) -> Normals:
    """Fit a standard normal, then its fit, and so on, to n samples a time.

    The mean of n samples is normal and their sum of squares chi-squared with n - 1 degrees of freedom, independent of
    each other (Cochran's theorem), so two numbers a generation stand for n documents. ``sampling_bias`` multiplies the
    variance that a fitted model is sampled with.
    """
    if n < 2 or replicates < 1 or generations < 1:
        asked = f"n = {n}, replicates = {replicates}, generations = {generations}"
        raise DataError(f"{asked}: n must be 2 or more, the others 1 or more.")
    divisor = n - 1 if unbiased else n

    def block(size: int, stream: Stream) -> Normals:
        rng = stream.rng()
        shift = rng.standard_normal((generations, size))
        growth = 2 * rng.standard_gamma((n - 1) / 2, (generations, size)) / divisor
        growth[1:] *= sampling_bias
        variance = np.asarray(np.cumprod(growth, axis=0), dtype=np.float64)
        sampled = np.vstack([np.ones(size), sampling_bias * variance[:-1]])  # what each generation is sampled with
        return Normals(np.cumsum(np.sqrt(sampled / n) * shift, axis=0), variance)

    parts = _blocks(replicates, seed, "gaussian_replace", block)
    return Normals(np.hstack([part.mean for part in parts]), np.hstack([part.variance for part in parts]))


def categorical_replace(p: ArrayLike, replicates: int, generations: int, n: int, *, seed: int = 1) -> Symbols:
    """Estimate the frequencies of n draws from p, then of n draws from those, and so on.

    Drawing from frequencies of n draws is copying n of them at random with replacement, so after the first generation
    no probability is ever looked up.
    """
    truth = np.asarray(p, dtype=np.float64)
    if n < 1 or replicates < 1 or generations < 1:
        raise DataError(f"n = {n}, replicates = {replicates} and generations = {generations} must be 1 or more.")
    if truth.ndim != 1 or truth.size == 0 or (truth < 0).any() or abs(truth.sum() - 1) > 1e-9:
        raise DataError("p must be a list of probabilities that sum to one.")
    upto = truth.cumsum()

    def block(size: int, stream: Stream) -> Symbols:
        rng = stream.rng()
        drawn = np.sort(np.searchsorted(upto, rng.random((size, n)) * upto[-1], side="right"), axis=1)
        # Symbols get numbers of their own in every replicate, fewer than n, so that counting them is cheap.
        fresh = np.diff(drawn, axis=1, prepend=drawn[:, :1]) > 0
        local = fresh.cumsum(axis=1)
        names = np.zeros((size, n), np.int64)
        np.put_along_axis(names, local, drawn, axis=1)
        rows = np.arange(size, dtype=np.int64)[:, None] * n
        held = (local + rows).ravel()
        small = np.uint16 if n <= 1 << 16 else np.uint32  # NumPy draws bounded 8-bit numbers four times as slowly
        diversity, support = np.empty((generations, size)), np.empty((generations, size), np.int64)
        for t in range(generations):
            if t:
                held = held.take((rng.integers(0, n, (size, n), dtype=small) + rows).ravel())
            counts = np.bincount(held, minlength=size * n).reshape(size, n)
            diversity[t] = 1 - np.einsum("rk,rk->r", counts, counts) / n**2
            support[t] = np.count_nonzero(counts, axis=1)
        winner = counts.argmax(axis=1)
        return Symbols(diversity, support, np.take_along_axis(names, winner[:, None], axis=1)[:, 0])

    parts = _blocks(replicates, seed, "categorical_replace", block)
    return Symbols(
        np.hstack([part.gini_simpson for part in parts]),
        np.hstack([part.support for part in parts]),
        np.concatenate([part.survivor for part in parts]),
    )


def _blocks(replicates: int, seed: int, name: str, block: Callable[[int, Stream], T]) -> list[T]:
    """Compute blocks of replicates, each with a stream of its own, over all cores; results do not depend on cores."""
    starts = range(0, replicates, _BLOCK)
    streams = [Streams(seed).at(f"recursions/{name}/{start}") for start in starts]
    sizes = [min(_BLOCK, replicates - start) for start in starts]
    with ThreadPoolExecutor(min(cores(), len(sizes))) as pool:
        return list(pool.map(block, sizes, streams))
