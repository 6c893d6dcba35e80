"""How well a model predicts text: pure functions of arrays of log-likelihoods.

An average per token is a ratio of two sums over documents. Documents, not tokens, are independent, so its standard
error is that of a ratio estimator over documents (:func:`~ecosystem.metrics.estimates.ratio`).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ecosystem.metrics.definitions import QUANTILES
from ecosystem.metrics.estimates import Estimate, quantile, ratio
from ecosystem.types import Floats, Ints

FREQUENT_SHARE = 0.8  # of human tokens that the frequent types cover


def cross_entropy(nats: Floats, tokens: Ints) -> Estimate:
    """Return nats per token from the total nats (minus log-likelihood) and the tokens of each document."""
    return ratio(nats, tokens)


def perplexity(cross_entropy: Estimate) -> Estimate:
    """Return exp(cross entropy), with the standard error of the first order."""
    value, error = cross_entropy
    result = math.exp(value) if value < 700 else math.inf
    return result, result * error


def bits_per_byte(nats: Floats, size: Ints) -> Estimate:
    """Return bits per byte from the total nats and UTF-8 bytes of each document; comparable across tokenizers."""
    return ratio(np.asarray(nats, np.float64) / math.log(2), size)


def quality(nats: Floats, tokens: Ints, size: Ints) -> dict[str, Estimate]:
    """Return ``cross_entropy``, ``perplexity`` and ``bits_per_byte`` of documents, by name."""
    entropy = cross_entropy(nats, tokens)
    return {
        "cross_entropy": entropy,
        "perplexity": perplexity(entropy),
        "bits_per_byte": bits_per_byte(nats, size),
    }


def perplexity_quantiles(nats: Floats, tokens: Ints) -> dict[str, Estimate]:
    """Return the quantiles of the perplexities of single texts, exp(nats / tokens), each of shape [texts].

    Texts must not be empty.
    """
    each = np.exp(np.asarray(nats, dtype=np.float64) / tokens)
    shares = QUANTILES if each.size else ()
    return {f"initial_perplexity_q{percent:02d}": quantile(each, percent / 100) for percent in shares}


def frequent_types(counts: Ints, share: float = FREQUENT_SHARE) -> NDArray[np.bool_]:
    """Return, per token type, whether it is frequent: in the smallest set that covers ``share`` of human tokens.

    ``counts`` (types,) are those of human text. Types are added by falling count, ties by rising id, until the share is
    reached; a type that does not occur in human text is rare.
    """
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    frequent = np.zeros(counts.size, np.bool_)
    frequent[order] = before < share * counts.sum()
    return frequent & (counts > 0)


def by_frequency(nll: Floats, types: Ints, document: Ints, frequent: NDArray[np.bool_]) -> dict[str, Estimate]:
    """Return ``cross_entropy_frequent`` and ``cross_entropy_rare``: nats per token, split by the token predicted.

    ``nll``, ``types`` and ``document`` are (tokens,): nats, token id and document of each token scored;
    ``frequent`` (types,) comes from :func:`frequent_types`.
    """
    result: dict[str, Estimate] = {}
    is_frequent = frequent[types]
    for name, chosen in (("frequent", is_frequent), ("rare", ~is_frequent)):
        if chosen.any():
            nats = np.bincount(document[chosen], weights=nll[chosen]).astype(np.float64)
            result[f"cross_entropy_{name}"] = ratio(nats, np.bincount(document[chosen]))
    return result


def unigram_nll(counts: Ints) -> Floats:
    """Return the nats of each token type under a unigram model with add-one smoothing, -ln((c + 1) / (N + V)).

    The score of a model that has learnt frequencies but not order; ``counts`` (V,) are those of training text.
    """
    return np.asarray(np.log(counts.sum() + counts.size) - np.log(counts + 1.0), dtype=np.float64)
