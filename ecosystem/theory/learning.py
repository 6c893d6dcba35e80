"""Biased learners: distortion by decoding, accumulating errors, verifiers, and self-training.

The maps of decoding hold in the limit of infinitely many samples.
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
    """Return the distribution after ``t`` generations at a temperature, p^((1/T)^t) made to add up to one.

    Log-odds grow by 1/T a generation; (shape of ``t``, types). Derived for this project.
    """
    array, generations = probabilities(p), whole_numbers("t", t)
    check_positive(temperature=temperature)
    alive = array > 0
    # Relative to the largest entry, so that with a large power the other entries underflow rather than the sum.
    relative = np.log(array[alive]) - np.log(array.max())
    power = np.exp(np.minimum(-generations * math.log(temperature), 690))  # short of the largest float
    result = np.zeros(generations.shape + array.shape)
    result[..., alive] = np.exp(np.maximum(power[..., None] * relative, -1e4))
    return as_floats(result / result.sum(axis=-1, keepdims=True))


@law("derived")
def top_k_map(p: ArrayLike, k: int, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations of top-k sampling: cut once, the same ever after.

    Equals are kept by falling probability, then by rising index; (shape of ``t``, types). Derived for this project.
    """
    array, generations = probabilities(p), whole_numbers("t", t)
    kept = np.argsort(-array, kind="stable")[: int(whole_numbers("k", k, least=1))]
    cut = np.zeros_like(array)
    cut[kept] = array[kept] / array[kept].sum()
    return np.where(generations[..., None] == 0, array, cut)


@law("derived")
def top_p_map(p: ArrayLike, top_p: float, t: ArrayLike) -> Floats:
    """Return the distribution after ``t`` generations of nucleus sampling, which cuts again at each of them.

    Each time the smallest set of the most frequent types that reaches ``top_p`` is kept; (shape of ``t``, types).
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
        current = np.where(before < top_p - 1e-12, current, 0)  # a set that falls short by rounding reaches it
        current /= current.sum()
        state = np.empty_like(array)
        state[order] = current
        states.append(state)
    return as_floats(states)[generations]


# Accumulating errors: the argument of Wang et al. 2412.14872.


def _corpus(n_real: float, n_synthetic: float) -> None:
    check_positive(n_real=n_real)
    check_at_least(0, n_synthetic=n_synthetic)


@law("derived")
def drift_growing_corpus_constant(bias: float, n_real: float, n_synthetic: float, t: ArrayLike) -> Floats:
    """Return p_t - p_0 in a growing corpus when every model errs by ``bias``: the exact sum, unbounded in ``t``.

    ``n_real`` and ``n_synthetic`` in any one unit of text; shape of ``t``. Derived for this project; the argument
    is Wang et al. 2412.14872.
    """
    _corpus(n_real, n_synthetic)
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
    """Return bias ln(1 + t n_synthetic/n_real), how :func:`drift_growing_corpus_constant` grows for large ``t``.

    Its arguments; shape of ``t``. Derived for this project.
    """
    _corpus(n_real, n_synthetic)
    return as_floats(bias * np.log1p(whole_numbers("t", t) * n_synthetic / n_real))


@law("derived")
def largest_share_growing_corpus(
    p: ArrayLike, n_real: float, n_synthetic: float, temperature: float, t: ArrayLike
) -> Floats:
    """Return the largest probability of the t-th model (t = 1, 2, ...; 0 is ``p``) fitted to a corpus that grows.

    The corpus begins with ``n_real`` real units; every model fits all of it and adds ``n_synthetic`` units at a
    temperature. Exact as both go to infinity at a constant ratio; at temperature 1 nothing moves, whatever is added.
    Shape of ``t``. Derived for this project; the argument is Wang et al. 2412.14872.
    """
    _corpus(n_real, n_synthetic)
    check_positive(temperature=temperature)
    corpus, generations, size = probabilities(p), whole_numbers("t", t), float(n_real)
    states = [corpus, corpus]
    for _ in range(1, int(generations.max(initial=0))):
        written = temperature_map(corpus, temperature, 1)
        corpus = (size * corpus + n_synthetic * written) / (size + n_synthetic)
        size += n_synthetic
        states.append(corpus)
    return as_floats(as_floats([state.max() for state in states])[generations])


# A verifier of labels, and a model trained on its own text step by step.


@law("derived")
def kept_correct_share(wrong: float, keep_correct: float, keep_wrong: float, t: ArrayLike = 1) -> Floats:
    """Return the correct share of the labels that a verifier keeps, (1-p) phi^t/((1-p) phi^t + p psi^t).

    ``wrong`` p is the share of wrong labels at first, ``keep_correct`` phi and ``keep_wrong`` psi the chances that the
    verifier keeps a correct or a wrong label. One half at p = phi/(phi + psi), up to which learning from the kept
    labels succeeds. Shape of ``t``: at generation 1 the verifier sees labels of which p are wrong (Feng et al.
    2406.07515, unread; Bayes' rule), at each later one labels as often right as those that it kept the last time, so
    that the odds are multiplied by phi/psi again: the loop of a model that errs as often as what it learnt from, for
    endless documents (derived for this project).
    """
    check_share(wrong=wrong, keep_correct=keep_correct, keep_wrong=keep_wrong)
    most = max(keep_correct, keep_wrong)
    if (1 - wrong) * keep_correct + wrong * keep_wrong == 0:
        raise DataError("A verifier that keeps nothing has no correct share.")
    rounds = whole_numbers("t", t).astype(np.float64)
    right = (1 - wrong) * (keep_correct / most) ** rounds
    return as_floats(right / (right + wrong * (keep_wrong / most) ** rounds))


@law("derived")
def verified_accuracy(
    wrong: float, dimension: int, n: int, t: ArrayLike, keep_correct: float = 1.0, keep_wrong: float = 1.0
) -> Floats:
    """Return the expected accuracy of the mean of y x over what a verifier keeps of ``n`` labelled documents.

    x ~ N(0, I) of ``dimension`` d, y the side of a plane on which x lies, wrong with chance ``wrong`` whatever x is;
    accuracy is 1 - angle/pi between the true plane and the fitted one. Along the true normal the mean is a = (2q - 1)
    sqrt(2/pi) with the variance (1 - a^2)/m, across it exactly N(0, I/m), m documents being kept, of which the share q
    is right; the chance that both planes say the same of a new x at the angle phi from the normal is then
    Phi(a sqrt(m) cos phi / sqrt(1 - a^2 cos^2 phi)), whose mean over phi (of density ~ sin^(d-2)) is returned.

    One fit, and so the same for every generation in the shape of ``t``. Within 0.002 if at least 50 documents are kept:
    m is put at its mean, and the mean along the normal at a normal distribution. Derived for this project; the setting
    is Feng et al. 2406.07515.
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
    agreed = ndtr(a * math.sqrt(m) * cosine / np.sqrt(1 - (a * cosine) ** 2))
    return np.full(whole_numbers("t", t).shape, float(agreed @ density / density.sum()))


def self_training_gradient(p: ArrayLike, tokens: int) -> float:
    """Return the root mean square of the gradient on ``tokens`` own samples, sqrt((1 - S)/tokens).

    Of the mean log-likelihood with respect to the logits of a unigram model ``p``: its mean is 0, so without
    truncation self-training is pure diffusion. Derived for this project; the setting is Herel and Mikolov 2404.02305.
    """
    check_at_least(1, tokens=tokens)
    return math.sqrt(max(gini_simpson(p), 0) / tokens)


def self_training_drift(p: ArrayLike, k: int) -> Floats:
    """Return the mean of that gradient when own samples are cut to the top ``k``: the cut distribution minus ``p``.

    (types,); pushes logits the same way at every step. Derived for this project.
    """
    return top_k_map(p, k, 1) - probabilities(p)


def halving_time_ratio(rate_ratio: float, batch_ratio: float = 1.0, truncated: bool = False) -> float:
    """Return the factor by which the steps to half the entropy change when learning rate and batch are multiplied.

    Diffusion goes as batch/rate^2, the drift of truncated sampling as 1/rate; for plain gradient descent. Derived
    for this project; the setting is Herel and Mikolov 2404.02305.
    """
    check_positive(rate_ratio=rate_ratio, batch_ratio=batch_ratio)
    return 1 / rate_ratio if truncated else batch_ratio / rate_ratio**2
