"""Biased learners: distortion by decoding, accumulated errors, verifiers, and self-training.

The decoding maps hold in the limit of infinitely many samples.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import digamma, ndtr

from ecosystem.errors import DataError
from ecosystem.theory.diversity import gini_simpson
from ecosystem.theory.domains import (
    as_floats,
    check_at_least,
    check_positive,
    check_share,
    probabilities,
    whole_numbers,
)
from ecosystem.theory.laws import law
from ecosystem.types import Floats


@law("derived")
def temperature_map(p: ArrayLike, temperature: float, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations at temperature T, p^((1/T)^t) normalised to sum 1.

    Log-odds are multiplied by 1/T per generation; (shape of ``t``, types). Derived for this project.
    """
    array, generations = probabilities(p), whole_numbers("t", t)
    check_positive(temperature=temperature)
    alive = array > 0
    # Relative to the largest entry, so that a large power makes the other entries underflow, but not the sum.
    relative = np.log(array[alive]) - np.log(array.max())
    power = np.exp(np.minimum(-generations * math.log(temperature), 690))  # exp(690) is below the largest float
    result = np.zeros(generations.shape + array.shape)
    result[..., alive] = np.exp(np.maximum(power[..., None] * relative, -1e4))
    return as_floats(result / result.sum(axis=-1, keepdims=True))


@law("derived")
def diversity_edited(p: ArrayLike, n: int, threshold: float, temperature: float, t: ArrayLike) -> Floats:
    """Return the expected Gini-Simpson index of a fit to n real documents of which a model has edited the likely ones.

    The model knows the truth p. It draws types of probability at least ``threshold`` again, from p^(1/T) normalised.
    New documents are edited at each generation, so the index of the edited distribution, times 1 - 1/n, is that of all
    generations after 0. Shape of ``t``. The edit is that of ToEdit (Zhu et al. 2024, 2412.14689), for documents of one
    token; the law derived for this project.
    """
    check_at_least(1, n=n)
    truth, generations = probabilities(p), whole_numbers("t", t)
    flat = temperature_map(truth, temperature, np.array([1]))[0]
    likely = truth >= threshold
    edited = np.where(likely, 0.0, truth) + truth[likely].sum() * flat
    return as_floats(np.where(generations > 0, gini_simpson(edited) * (1 - 1 / n), gini_simpson(truth)))


@law("derived")
def top_k_map(p: ArrayLike, k: int, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations of top-k sampling, which is constant after the first.

    Ties are broken in favour of the lower index; (shape of ``t``, types). Derived for this project.
    """
    array, generations = probabilities(p), whole_numbers("t", t)
    top = np.argsort(-array, kind="stable")[: int(whole_numbers("k", k, least=1))]
    cut = np.zeros_like(array)
    cut[top] = array[top] / array[top].sum()
    return np.where(generations[..., None] == 0, array, cut)


@law("derived")
def top_p_map(p: ArrayLike, top_p: float, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations of nucleus sampling, which truncates at each of them.

    Each generation keeps the smallest set of the most frequent types whose mass reaches ``top_p``; (shape of ``t``,
    types).
    Derived for this project.
    """
    array, generations = probabilities(p), whole_numbers("t", t)
    check_share(top_p=top_p)
    check_positive(top_p=top_p)
    order = np.argsort(-array, kind="stable")
    current = array[order]
    states = [array]
    for _ in range(generations.max(initial=0)):
        before = np.cumsum(current) - current
        current = np.where(before < top_p - 1e-12, current, 0)  # tolerate rounding errors
        current /= current.sum()
        state = np.empty_like(array)
        state[order] = current
        states.append(state)
    return as_floats(states)[generations]


# Accumulated errors: the argument of Wang et al. 2024 (2412.14872).


def _check_corpus(n_real: float, n_synthetic: float) -> None:
    check_positive(n_real=n_real)
    check_at_least(0, n_synthetic=n_synthetic)


@law("derived")
def drift_growing_corpus_constant(bias: float, n_real: float, n_synthetic: float, t: ArrayLike) -> Floats:
    """Return p_t - p_0 in a growing corpus when every model errs by ``bias``: the exact sum, unbounded in ``t``.

    ``n_real`` and ``n_synthetic`` are in the same unit of text; shape of ``t``. Derived for this project; the argument
    is Wang et al. 2024 (2412.14872).
    """
    _check_corpus(n_real, n_synthetic)
    generations = whole_numbers("t", t)
    if n_synthetic == 0:
        inherited = np.zeros(generations.shape)
    else:
        # The harmonic sum of 1/(n_real/n_synthetic + i) over 0 < i < t, as a difference of digammas.
        start = n_real / n_synthetic
        inherited = digamma(start + np.maximum(generations, 1)) - digamma(start + 1)
    return as_floats(np.where(generations == 0, 0, bias * (1 + inherited)))


@law("derived")
def drift_growing_corpus_approximation(bias: float, n_real: float, n_synthetic: float, t: ArrayLike) -> Floats:
    """Return bias ln(1 + t n_synthetic/n_real), the growth of :func:`drift_growing_corpus_constant` for large ``t``.

    Arguments as in that function; shape of ``t``. Derived for this project.
    """
    _check_corpus(n_real, n_synthetic)
    return as_floats(bias * np.log1p(whole_numbers("t", t) * n_synthetic / n_real))


@law("derived")
def largest_share_growing_corpus(
    p: ArrayLike, n_real: float, n_synthetic: float, temperature: float, t: ArrayLike
) -> Floats:
    """Return the largest probability of the t-th model fitted to a growing corpus; t = 0 is ``p``.

    The corpus begins with ``n_real`` real units; every model is fitted to the entire corpus and adds ``n_synthetic``
    units at ``temperature``. Exact as both sizes go to infinity at a constant ratio; constant at temperature 1. Shape
    of ``t``. Derived for this project; the argument is Wang et al. 2024 (2412.14872).
    """
    _check_corpus(n_real, n_synthetic)
    check_positive(temperature=temperature)
    corpus, generations, size = probabilities(p), whole_numbers("t", t), float(n_real)
    states = [corpus, corpus]
    for _ in range(1, int(generations.max(initial=0))):
        generated = temperature_map(corpus, temperature, 1)
        corpus = (size * corpus + n_synthetic * generated) / (size + n_synthetic)
        size += n_synthetic
        states.append(corpus)
    return as_floats(as_floats([state.max() for state in states])[generations])


# A verifier of labels, and a model trained on its own text.


@law("derived")
def kept_correct_share(wrong: float, keep_correct: float, keep_wrong: float, t: ArrayLike = 1) -> Floats:
    """Return the correct share of the labels that a verifier keeps, (1-p) phi^t/((1-p) phi^t + p psi^t).

    p = ``wrong`` is the initial share of wrong labels; phi = ``keep_correct`` and psi = ``keep_wrong`` are the
    probabilities that the verifier keeps a correct and a wrong label. The result at generation 1 follows from Bayes'
    rule (Feng et al. 2024, 2406.07515, unread); it is one half at p = phi/(phi + psi), and learning from the kept
    labels succeeds below that p. At each later generation, the share of wrong labels is that of the labels kept before,
    so the odds are multiplied by phi/psi again. This is the loop of a model that errs as often as its training labels,
    with infinitely many documents (derived for this project). Shape of ``t``.
    """
    check_share(wrong=wrong, keep_correct=keep_correct, keep_wrong=keep_wrong)
    largest = max(keep_correct, keep_wrong)
    if (1 - wrong) * keep_correct + wrong * keep_wrong == 0:
        raise DataError("A verifier that keeps nothing has no correct share.")
    rounds = whole_numbers("t", t).astype(np.float64)
    correct = (1 - wrong) * (keep_correct / largest) ** rounds
    return as_floats(correct / (correct + wrong * (keep_wrong / largest) ** rounds))


@law("derived")
def verified_accuracy(
    wrong: float, dimension: int, n: int, t: ArrayLike, keep_correct: float = 1.0, keep_wrong: float = 1.0
) -> Floats:
    """Return the expected accuracy of the classifier mean(y x) over the documents that a verifier keeps of ``n``.

    x ~ N(0, I) has d = ``dimension``; the label y is the side of a plane, and wrong with probability ``wrong``
    independently of x. Accuracy is 1 - angle/pi between the true plane and the fitted one. If m documents are kept and
    the share q of them is correct, the mean of y x along the true normal is a = (2q - 1) sqrt(2/pi) with variance
    (1 - a^2)/m, and orthogonal to the normal it is exactly N(0, I/m). The probability that both planes agree on a new x
    at angle phi from the normal is then Phi(a sqrt(m) cos phi / sqrt(1 - a^2 cos^2 phi)); the result is its mean over
    phi, with density ~ sin^(d-2).

    The law describes one fit, so it is constant in ``t``; shape of ``t``. Accurate to 0.002 if at least 50 documents
    are kept: m is replaced by its mean, and the mean along the normal is taken as normally distributed. Derived for
    this project; the setting is Feng et al. 2024 (2406.07515).
    """
    check_at_least(1, dimension=dimension)
    share = float(kept_correct_share(wrong, keep_correct, keep_wrong))
    m = n * ((1 - wrong) * keep_correct + wrong * keep_wrong)
    if not m >= 1:
        raise DataError(
            f"n = {n} is too small for this verifier: raise n until at least one document is kept, not {m:.2g}."
        )
    a = (2 * share - 1) * math.sqrt(2 / math.pi)
    if dimension == 1:
        cosine, density = np.ones(1), np.ones(1)
    else:
        nodes, weights = np.polynomial.legendre.leggauss(400)
        angle = (nodes + 1) * math.pi / 4
        cosine, density = np.cos(angle), weights * np.sin(angle) ** (dimension - 2)
    agreement = ndtr(a * math.sqrt(m) * cosine / np.sqrt(1 - (a * cosine) ** 2))
    return np.full(whole_numbers("t", t).shape, float(agreement @ density / density.sum()))


def self_training_gradient(p: ArrayLike, tokens: int) -> float:
    """Return the root mean square gradient of a unigram model on ``tokens`` of its own samples, sqrt((1 - S)/tokens).

    The gradient is that of the mean log-likelihood with respect to the logits of ``p``, with S = sum p_i^2. Its mean is
    0, so self-training without truncation is pure diffusion. Derived for this project; the setting is Herel and Mikolov
    2024 (2404.02305).
    """
    check_at_least(1, tokens=tokens)
    return math.sqrt(max(gini_simpson(p), 0) / tokens)


def self_training_drift(p: ArrayLike, k: int) -> Floats:
    """Return the mean gradient when a model's own samples are truncated to the top ``k``: truncated ``p`` minus ``p``.

    The gradient is that of :func:`self_training_gradient`, (types,); its direction is the same at every step. Derived
    for this project.
    """
    return top_k_map(p, k, 1) - probabilities(p)


def halving_time_ratio(rate_ratio: float, batch_ratio: float = 1.0, truncated: bool = False) -> float:
    """Return the factor of the steps to half the entropy when learning rate and batch size are multiplied.

    The time scales as batch/rate^2 under diffusion, and as 1/rate under the drift of truncated sampling, for plain
    gradient descent. Derived for this project; the setting is Herel and Mikolov 2024 (2404.02305).
    """
    check_positive(rate_ratio=rate_ratio, batch_ratio=batch_ratio)
    return 1 / rate_ratio if truncated else batch_ratio / rate_ratio**2
