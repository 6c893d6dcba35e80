"""Loops of closed-form models for many replicates at once, without agents, web and documents.

They answer questions that need ten thousand runs or a thousand generations (times to collapse, rare events). Each
function has exactly the distribution of the loop in the world, but makes no documents: a normal is represented by its
sufficient statistics, symbols by their counts or by their ancestry. Tests compare them with the world where it has
such a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from ecosystem.errors import DataError
from ecosystem.families.requests import Budget, FitRequest
from ecosystem.families.statistical.categorical import CategoricalCohort
from ecosystem.runs.environment import cores
from ecosystem.streams import Stream, Streams
from ecosystem.types import Floats
from ecosystem.validation.symbol_lines import SymbolLines

T = TypeVar("T")

_BLOCK = 500  # replicates that share a stream: few enough for the cache, enough to keep threads busy
_LINES = 1000  # the same for blocks of thousands of short calls, between which threads would wait
_CROWDED = 0.75  # share of borders in use below which the others are removed


@dataclass(frozen=True)
class Normals:
    """Means and variances of fitted normals, shape [generations, replicates]; row 0 is the first fit to real data."""

    mean: Floats
    variance: Floats


@dataclass(frozen=True)
class Symbols:
    """Summaries of fitted frequencies, shape [generations, replicates]; row 0 is the first fit to real data."""

    gini_simpson: Floats
    support: NDArray[np.int64]
    survivor: NDArray[np.int64]  # [replicates]: the likeliest symbol of the last generation


def gaussian_replace(
    replicates: int, generations: int, n: int, *, unbiased: bool = True, sampling_bias: float = 1.0, seed: int = 1
) -> Normals:
    """Fit a normal to n samples of a standard normal, then to n samples of the last fit, and so on.

    The mean of n samples is normal and their sum of squares chi-squared with n - 1 degrees of freedom, independent of
    each other (Cochran's theorem). So two numbers per generation represent n documents. ``sampling_bias`` multiplies
    the variance with which a fitted model is sampled. Raise DataError for counts that are too small.
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


def gaussian_accumulate(replicates: int, generations: int, n: int, *, seed: int = 1) -> Normals:
    """Fit by maximum likelihood n samples of a standard normal, then these and n samples of the fit, and so on.

    The mean and the sum of squares of n samples represent them (see :func:`gaussian_replace`) and update those of all
    samples so far. Raise DataError for counts that are too small.
    """
    if n < 2 or replicates < 1 or generations < 1:
        asked = f"n = {n}, replicates = {replicates}, generations = {generations}"
        raise DataError(f"{asked}: n must be 2 or more, the others 1 or more.")

    def block(size: int, stream: Stream) -> Normals:
        rng = stream.rng()
        shift = rng.standard_normal((generations, size)) / np.sqrt(n)
        growth = 2 * rng.standard_gamma((n - 1) / 2, (generations, size))
        means, variances = np.empty((generations, size)), np.empty((generations, size))
        mean, variance, squares = np.zeros(size), np.ones(size), np.zeros(size)
        for t in range(generations):
            apart = np.sqrt(variance) * shift[t]  # distance of the mean of the new samples from that of all before
            squares += variance * growth[t] + apart**2 * n * t / (t + 1)
            mean = mean + apart / (t + 1)
            variance = squares / (n * (t + 1))
            means[t], variances[t] = mean, variance
        return Normals(means, variances)

    parts = _blocks(replicates, seed, "gaussian_accumulate", block)
    return Normals(np.hstack([part.mean for part in parts]), np.hstack([part.variance for part in parts]))


def categorical_replace(p: ArrayLike, replicates: int, generations: int, n: int, *, seed: int = 1) -> Symbols:
    """Estimate the frequencies of n draws from p, then of n draws from those, and so on.

    To draw from the frequencies of n draws is to copy n of them at random with replacement, so probabilities are used
    in the first generation only. Raise DataError for counts below 1 or if p is not a distribution.
    """
    if n < 1 or replicates < 1 or generations < 1:
        raise DataError(f"n = {n}, replicates = {replicates} and generations = {generations} must be 1 or more.")
    truth = _distribution(p)
    upto = truth.cumsum()

    def block(size: int, stream: Stream) -> Symbols:
        rng = stream.rng()
        drawn = np.searchsorted(upto, np.sort(rng.random((size, n)), axis=1) * upto[-1], side="right")
        lines = SymbolLines.of(drawn.astype(np.min_scalar_type(truth.size)))
        diversity, support = np.zeros((generations, size)), np.ones((generations, size), np.int64)
        for t in range(generations):
            if t:
                if not lines.open:
                    break  # one symbol is left in every replicate
                lines.resample(rng)
            counts = lines.counts()
            alive = np.count_nonzero(counts, axis=0)
            diversity[t, lines.replicate] = 1 - np.einsum("kr,kr->r", counts, counts, dtype=np.int64) / n**2
            support[t, lines.replicate] = alive
            if alive.sum() < _CROWDED * (sum(lines.open) + size):
                lines = lines.without(counts == 0)
        survivor = np.empty(size, np.int64)
        likeliest = lines.counts().argmax(axis=0)
        survivor[lines.replicate] = np.take_along_axis(lines.symbol, likeliest[None], axis=0)[0]
        return Symbols(diversity, support, survivor)

    parts = _blocks(replicates, seed, "categorical_replace", block, _LINES)
    return Symbols(
        np.hstack([part.gini_simpson for part in parts]),
        np.hstack([part.support for part in parts]),
        np.concatenate([part.survivor for part in parts]),
    )


def categorical_mixture(p: ArrayLike, replicates: int, generations: int, n: int, *, seed: int = 1) -> Floats:
    """Estimate frequencies of n draws, each from a model drawn at random among p and all estimates so far.

    Return the Gini-Simpson diversity of the estimates, [generations, replicates]. This is "Randomly Sampled Data" of
    Seddik et al. 2404.05090, section 4.2.
    """
    if n < 1 or replicates < 1 or generations < 1:
        raise DataError(f"n = {n}, replicates = {replicates} and generations = {generations} must be 1 or more.")
    upto = _distribution(p).cumsum()

    def block(size: int, stream: Stream) -> Floats:
        rng = stream.rng()
        held = np.empty((generations, size, n), np.int64)
        diversity = np.empty((generations, size))
        rows = np.arange(size)[:, None]
        for t in range(generations):
            # A draw that does not copy one of the n draws of an earlier estimate is from p.
            drawn = np.searchsorted(upto, rng.random((size, n)) * upto[-1], side="right")
            if t:
                model = rng.integers(-1, t, (size, n))
                copied = held[np.maximum(model, 0), rows, rng.integers(0, n, (size, n))]
                drawn = np.where(model < 0, drawn, copied)
            held[t] = drawn
            counts = np.bincount((drawn + rows * upto.size).ravel(), minlength=size * upto.size)
            diversity[t] = 1 - (counts.reshape(size, -1) ** 2).sum(axis=1) / n**2
        return diversity

    return np.hstack(_blocks(replicates, seed, "categorical_mixture", block))


def categorical_with_real(
    p: ArrayLike,
    replicates: int,
    generations: int,
    n_real: int,
    n_synthetic: int,
    *,
    start: ArrayLike | None = None,
    seed: int = 1,
) -> Floats:
    """Estimate frequencies of n_real draws from p beside n_synthetic from the last estimate, and so on.

    Without a ``start`` the real draws are always the same, and the first estimate uses them alone (the partially
    synthetic loop of Seddik et al. 2404.05090). With ``start``, a distribution, the real draws are new each time, and
    ``start`` is the model before the first (the fresh data loop of Alemohammad et al. 2307.01850). Return the
    estimates, [generations, replicates, types].
    """
    if min(n_real, n_synthetic, replicates, generations) < 1:
        asked = (
            f"n_real = {n_real}, n_synthetic = {n_synthetic}, replicates = {replicates}, generations = {generations}"
        )
        raise DataError(f"{asked}: all must be 1 or more.")
    truth = _distribution(p)
    before = None if start is None else _distribution(start)

    def block(size: int, stream: Stream) -> Floats:
        rng = stream.rng()
        real = rng.multinomial(n_real, truth, size)
        share = real / n_real if before is None else np.tile(before, (size, 1))
        shares = np.empty((generations, size, truth.size))
        for t in range(generations):
            if before is not None:
                real = rng.multinomial(n_real, truth, size)
            if t or before is not None:
                share = (real + rng.multinomial(n_synthetic, share)) / (n_real + n_synthetic)
            shares[t] = share
        return shares

    return np.concatenate(_blocks(replicates, seed, "categorical_with_real", block), axis=1)


def self_training(
    p: ArrayLike, replicates: int, rate: float, tokens: int, *, top_k: int | None = None, seed: int = 1
) -> NDArray[np.int64]:
    """Train softmax models over the types of p on their own samples until their entropy has halved.

    Each step is plain gradient descent, with this ``rate``, on the cross-entropy of ``tokens`` samples (of the
    ``top_k`` likeliest types, if given), from the logits ln p. Return the number of steps, [replicates]. This is the
    algorithm of Herel and Mikolov 2404.02305 for one context.
    """
    if replicates < 1 or tokens < 1 or not rate > 0:
        raise DataError(
            f"replicates = {replicates}, tokens = {tokens}, rate = {rate}: must be 1, 1 and above 0 or more."
        )
    truth = _distribution(p)
    if np.count_nonzero(truth) < truth.size or truth.size < 2:
        raise DataError("p must have two types or more, all of them possible: a softmax has no zeros.")
    half = -(truth @ np.log(truth)) / 2

    def block(size: int, stream: Stream) -> NDArray[np.int64]:
        rng = stream.rng()
        logits, left = np.tile(np.log(truth), (size, 1)), np.arange(size)
        steps = np.zeros(size, np.int64)
        while left.size:
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            steps[left] += 1
            logits = logits + rate * own_gradient(share, tokens, rng, top_k=top_k)
            log_share = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            going = -(np.exp(log_share) * log_share).sum(axis=1) > half
            logits, left = logits[going], left[going]
        return steps

    return np.concatenate(_blocks(replicates, seed, "self_training", block))


def own_gradient(share: Floats, tokens: int, rng: np.random.Generator, *, top_k: int | None = None) -> Floats:
    """Compute the gradient of the mean log-likelihood of own samples with respect to the logits, [replicates, types].

    ``share`` [replicates, types] are the probabilities of the models; ``tokens`` and ``top_k`` as in
    :func:`self_training`.
    """
    sampled = share
    if top_k is not None and top_k < share.shape[1]:
        least = np.partition(share, -top_k, axis=1)[:, -top_k, None]
        sampled = np.where(share >= least, share, 0.0)
        sampled /= sampled.sum(axis=1, keepdims=True)
    return np.asarray(rng.multinomial(tokens, sampled) / tokens - share)


def growing_corpus(p: float, bias: float, n_real: float, n_synthetic: float, generations: int) -> Floats:
    """Fit the share of one of two symbols in a corpus that grows by the text of biased models, deterministically.

    The corpus begins with ``n_real`` units of text; the share ``p`` of them is that symbol. Each model is the maximum
    likelihood fit to the whole corpus, off by ``bias``, and adds ``n_synthetic`` units in its own proportions. Return
    the share of the symbol in the models, [generations]. This is the setting of Wang et al. 2412.14872.
    """
    stream, docs, weight = Streams(0).at("recursions/growing_corpus"), [0, 1], [n_real * (1 - p), n_real * p]
    cohort = CategoricalCohort("growing_corpus", 1, 2)
    shares = np.empty(generations)
    for t in range(generations):
        corpus = pl.Series(docs, dtype=pl.Int32)
        cohort.fit([FitRequest(0, corpus, np.array(weight), Budget(epochs=1), None, "scratch", stream)])
        shares[t] = share = float(cohort.state()["probability"][0, 1]) + bias
        docs += [0, 1]
        weight += [n_synthetic * (1 - share), n_synthetic * share]
    return shares


def _distribution(p: ArrayLike) -> Floats:
    truth = np.asarray(p, dtype=np.float64)
    if truth.ndim != 1 or truth.size == 0 or (truth < 0).any() or abs(truth.sum() - 1) > 1e-9:
        raise DataError("p must be a list of probabilities that sum to one.")
    return truth


def _blocks(replicates: int, seed: int, name: str, block: Callable[[int, Stream], T], most: int = _BLOCK) -> list[T]:
    """Compute blocks of replicates on all cores; each has its own stream, so results do not depend on cores."""
    starts = range(0, replicates, most)
    streams = [Streams(seed).at(f"recursions/{name}/{start}") for start in starts]
    sizes = [min(most, replicates - start) for start in starts]
    with ThreadPoolExecutor(min(cores(), len(sizes))) as pool:
        return list(pool.map(block, sizes, streams))
