"""Training loops of closed-form models for many replicates at once, without agents, a web or documents.

They serve questions that need ten thousand runs or a thousand generations, such as times to collapse and rare events.
The result of each function has exactly the distribution of the same loop in the world: a normal is represented by its
sufficient statistics, symbols by their counts or their ancestry. Tests compare them with the world if it has the loop.
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
from ecosystem.interpreter import cores
from ecosystem.streams import Stream, Streams
from ecosystem.theory.domains import check_at_least, check_positive, probabilities
from ecosystem.types import Floats
from ecosystem.validation.symbol_lines import SymbolLines

T = TypeVar("T")

_BLOCK = 500  # replicates per stream: small enough for the cache, large enough to keep threads busy
_LINES = 1000  # the same for lines of symbols, whose many short calls make threads wait for each other
_MIN_USE = 0.75  # share of borders in use below which the unused borders are removed


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
    survivor: NDArray[np.int64]  # [replicates]: the most probable symbol of the last generation


def gaussian_replace(
    replicates: int, generations: int, n: int, *, unbiased: bool = True, sampling_bias: float = 1.0, seed: int = 1
) -> Normals:
    """Fit a normal to n samples of a standard normal, then repeatedly to n samples of the previous fit.

    The mean of n samples is normal and their sum of squares is chi-squared with n - 1 degrees of freedom, independent
    of the mean (Cochran's theorem), so two numbers per generation represent n documents. ``sampling_bias`` multiplies
    the variance at which a fitted model is sampled. Raise DataError for counts that are too small.
    """
    check_at_least(2, n=n)
    check_at_least(1, replicates=replicates, generations=generations)
    divisor = n - 1 if unbiased else n

    def block(size: int, stream: Stream) -> Normals:
        rng = stream.rng()
        shift = rng.standard_normal((generations, size))
        growth = 2 * rng.standard_gamma((n - 1) / 2, (generations, size)) / divisor
        growth[1:] *= sampling_bias
        variance = np.asarray(np.cumprod(growth, axis=0), dtype=np.float64)
        sampled = np.vstack([np.ones(size), sampling_bias * variance[:-1]])  # the variance that samples are drawn with
        return Normals(np.cumsum(np.sqrt(sampled / n) * shift, axis=0), variance)

    parts = _blocks(replicates, seed, "gaussian_replace", block)
    return Normals(np.hstack([part.mean for part in parts]), np.hstack([part.variance for part in parts]))


def gaussian_accumulate(replicates: int, generations: int, n: int, *, seed: int = 1) -> Normals:
    """Fit a normal by maximum likelihood to n samples of a standard normal, then repeatedly to all samples so far.

    Each fit adds n samples. They are represented by their mean and sum of squares (see :func:`gaussian_replace`), which
    update those of all samples. Raise DataError for counts that are too small.
    """
    check_at_least(2, n=n)
    check_at_least(1, replicates=replicates, generations=generations)

    def block(size: int, stream: Stream) -> Normals:
        rng = stream.rng()
        shift = rng.standard_normal((generations, size)) / np.sqrt(n)
        growth = 2 * rng.standard_gamma((n - 1) / 2, (generations, size))
        means, variances = np.empty((generations, size)), np.empty((generations, size))
        mean, variance, squares = np.zeros(size), np.ones(size), np.zeros(size)
        for t in range(generations):
            distance = np.sqrt(variance) * shift[t]  # of the mean of the new samples from the mean of the earlier ones
            squares += variance * growth[t] + distance**2 * n * t / (t + 1)
            mean = mean + distance / (t + 1)
            variance = squares / (n * (t + 1))
            means[t], variances[t] = mean, variance
        return Normals(means, variances)

    parts = _blocks(replicates, seed, "gaussian_accumulate", block)
    return Normals(np.hstack([part.mean for part in parts]), np.hstack([part.variance for part in parts]))


def categorical_replace(p: ArrayLike, replicates: int, generations: int, n: int, *, seed: int = 1) -> Symbols:
    """Estimate frequencies from n draws from p, then repeatedly from n draws from the previous estimate.

    Drawing from the frequencies of n draws is the same as copying n of them at random with replacement, so only the
    first generation needs probabilities. Raise DataError for counts below 1 or if p is not a distribution.
    """
    check_at_least(1, n=n, replicates=replicates, generations=generations)
    truth = probabilities(p)
    cumulative = truth.cumsum()

    def block(size: int, stream: Stream) -> Symbols:
        rng = stream.rng()
        uniform = np.sort(rng.random((size, n)), axis=1)
        drawn = np.searchsorted(cumulative, uniform * cumulative[-1], side="right")
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
            if alive.sum() < _MIN_USE * (sum(lines.open) + size):
                lines = lines.without(counts == 0)
        survivor = np.empty(size, np.int64)
        mode = lines.counts().argmax(axis=0)
        survivor[lines.replicate] = np.take_along_axis(lines.symbol, mode[None], axis=0)[0]
        return Symbols(diversity, support, survivor)

    parts = _blocks(replicates, seed, "categorical_replace", block, _LINES)
    return Symbols(
        np.hstack([part.gini_simpson for part in parts]),
        np.hstack([part.support for part in parts]),
        np.concatenate([part.survivor for part in parts]),
    )


def categorical_mixture(p: ArrayLike, replicates: int, generations: int, n: int, *, seed: int = 1) -> Floats:
    """Estimate frequencies repeatedly from n draws, each from p or an earlier estimate chosen at random.

    Return the Gini-Simpson diversity of the estimates, [generations, replicates]. This is "Randomly Sampled Data" of
    Seddik et al. 2024 (2404.05090), section 4.2.
    """
    check_at_least(1, n=n, replicates=replicates, generations=generations)
    cumulative = probabilities(p).cumsum()

    def block(size: int, stream: Stream) -> Floats:
        rng = stream.rng()
        draws = np.empty((generations, size, n), np.int64)
        diversity = np.empty((generations, size))
        rows = np.arange(size)[:, None]
        for t in range(generations):
            # A draw is from p unless it copies one of the n draws of an earlier estimate.
            drawn = np.searchsorted(cumulative, rng.random((size, n)) * cumulative[-1], side="right")
            if t:
                model = rng.integers(-1, t, (size, n))
                copied = draws[np.maximum(model, 0), rows, rng.integers(0, n, (size, n))]
                drawn = np.where(model < 0, drawn, copied)
            draws[t] = drawn
            counts = np.bincount((drawn + rows * cumulative.size).ravel(), minlength=size * cumulative.size)
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
    """Estimate frequencies repeatedly from n_real draws from p and n_synthetic draws from the previous estimate.

    Without ``start``, the real draws are the same at every generation, and the first estimate uses only them: the
    partially synthetic loop of Seddik et al. 2024 (2404.05090). With ``start``, a distribution, the real draws are new
    at every generation, and ``start`` is the model of generation 0: the fresh data loop of Alemohammad et al. 2023
    (2307.01850). Return the estimates, [generations, replicates, types].
    """
    check_at_least(1, n_real=n_real, n_synthetic=n_synthetic, replicates=replicates, generations=generations)
    truth = probabilities(p)
    initial = None if start is None else probabilities(start)

    def block(size: int, stream: Stream) -> Floats:
        rng = stream.rng()
        real = rng.multinomial(n_real, truth, size)
        share = real / n_real if initial is None else np.tile(initial, (size, 1))
        shares = np.empty((generations, size, truth.size))
        for t in range(generations):
            if initial is not None:
                real = rng.multinomial(n_real, truth, size)
            if t or initial is not None:
                share = (real + rng.multinomial(n_synthetic, share)) / (n_real + n_synthetic)
            shares[t] = share
        return shares

    return np.concatenate(_blocks(replicates, seed, "categorical_with_real", block), axis=1)


def self_training(
    p: ArrayLike, replicates: int, rate: float, tokens: int, *, top_k: int | None = None, seed: int = 1
) -> NDArray[np.int64]:
    """Train softmax models over the types of p on their own samples until their entropy has halved.

    Training starts from the logits ln p. Each step is plain gradient descent at learning rate ``rate`` on the
    cross-entropy of ``tokens`` samples, drawn from the ``top_k`` most probable types if given. Return the number of
    steps, [replicates]. This is the algorithm of Herel and Mikolov 2024 (2404.02305) for one context.
    """
    check_at_least(1, replicates=replicates, tokens=tokens)
    check_positive(rate=rate)
    truth = probabilities(p)
    if np.count_nonzero(truth) < truth.size or truth.size < 2:
        raise DataError("p must have two types or more, all with positive probability: a softmax has no zeros.")
    half = -(truth @ np.log(truth)) / 2

    def block(size: int, stream: Stream) -> NDArray[np.int64]:
        rng = stream.rng()
        logits, active = np.tile(np.log(truth), (size, 1)), np.arange(size)
        steps = np.zeros(size, np.int64)
        while active.size:
            share = np.exp(logits - logits.max(axis=1, keepdims=True))
            share /= share.sum(axis=1, keepdims=True)
            steps[active] += 1
            logits = logits + rate * sample_gradient(share, tokens, rng, top_k=top_k)
            log_share = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
            unfinished = -(np.exp(log_share) * log_share).sum(axis=1) > half
            logits, active = logits[unfinished], active[unfinished]
        return steps

    return np.concatenate(_blocks(replicates, seed, "self_training", block))


def sample_gradient(share: Floats, tokens: int, rng: np.random.Generator, *, top_k: int | None = None) -> Floats:
    """Compute the gradient of the mean log-likelihood of a model's samples by its logits, [replicates, types].

    ``share`` [replicates, types] holds the probabilities of the models; ``tokens`` and ``top_k`` are as in
    :func:`self_training`.
    """
    sampled = share
    if top_k is not None and top_k < share.shape[1]:
        threshold = np.partition(share, -top_k, axis=1)[:, -top_k, None]
        sampled = np.where(share >= threshold, share, 0.0)
        sampled /= sampled.sum(axis=1, keepdims=True)
    return np.asarray(rng.multinomial(tokens, sampled) / tokens - share)


def growing_corpus(p: float, bias: float, n_real: float, n_synthetic: float, generations: int) -> Floats:
    """Fit the share of one of two symbols in a corpus to which biased models add text, deterministically.

    The corpus begins with ``n_real`` units of text, and the symbol has the share ``p``. Each model is the maximum
    likelihood fit to the entire corpus plus ``bias``, and adds ``n_synthetic`` units in its own proportions. Return the
    share of the symbol in the models, [generations]. This is the setting of Wang et al. 2024 (2412.14872).
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


def _blocks(
    replicates: int, seed: int, name: str, block: Callable[[int, Stream], T], block_size: int = _BLOCK
) -> list[T]:
    """Compute blocks of replicates on all cores; one stream per block, so results do not depend on cores."""
    starts = range(0, replicates, block_size)
    streams = [Streams(seed).at(f"recursions/{name}/{start}") for start in starts]
    sizes = [min(block_size, replicates - start) for start in starts]
    with ThreadPoolExecutor(min(cores(), len(sizes))) as pool:
        return list(pool.map(block, sizes, streams))
