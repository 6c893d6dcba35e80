"""Counts of n-grams, and the distributions that follow from them.

A model stores how often each sequence of ``order`` tokens occurs, with ``order`` - 1 ends of text before every
document, so that each token of a document is the last of one n-gram. Counts of shorter n-grams are sums of these.
Probabilities are computed once per fit, in back-off form: the log-probability of every n-gram that occurs, and for each
context the log of the mass left to the distribution below it (that of the shorter context, or the uniform one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ecosystem.types import Floats, Ints

MAX_KEYS = 2**63  # an n-gram is one signed 64-bit number
DISCOUNT = 0.75


@dataclass(frozen=True)
class NgramSettings:
    """Settings for counting and smoothing n-grams: the fields of the family ``ngram`` with the same names."""

    order: int
    smoothing: Literal["none", "add_k", "kneser_ney"]
    k: float | None = None
    discount: float | None = None
    memory: float = 0.0


def require_keys(vocabulary: int, order: int) -> None:
    """Raise ValueError if the n-grams of ``vocabulary`` tokens are too many for 64-bit numbers."""
    if vocabulary**order > MAX_KEYS:
        highest = max(n for n in range(order) if vocabulary**n <= MAX_KEYS)
        raise ValueError(f"order = {order} is too high for a vocabulary of {vocabulary} tokens; give at most {highest}")


@dataclass(frozen=True)
class Counts:
    """Frequencies of n-grams: ``keys`` [n-grams] ascending, ``values`` [n-grams] above 0.

    The key of an n-gram is the number with its tokens as digits, in the base of the vocabulary size.
    """

    keys: Ints
    values: Floats

    @classmethod
    def of(cls, keys: Ints, values: Floats) -> Counts:
        """Sum the values of equal keys."""
        if len(values) and (values == 1).all():  # faster; a sum of ones does not depend on their order
            unique, count = np.unique(keys, return_counts=True)
            return cls(unique, count.astype(np.float64))
        unique, index = np.unique(keys, return_inverse=True)
        return cls(unique, np.bincount(index, weights=values).astype(np.float64))


NO_COUNTS = Counts(np.zeros(0, np.int64), np.zeros(0, np.float64))


def keys_of(columns: Sequence[Ints], vocabulary: int) -> Ints:
    """Return the keys of n-grams from columns of tokens, the oldest first."""
    keys = columns[0]
    for column in columns[1:]:
        keys = keys * vocabulary + column
    return keys


def columns_of(keys: Ints, order: int, vocabulary: int) -> tuple[list[Ints], Ints]:
    """Split n-grams into the columns of their contexts, the oldest token first, and the column of last tokens."""
    powers = [vocabulary**exponent for exponent in range(order)]
    *context, last = [keys // power % vocabulary for power in reversed(powers)]
    return context, last


def find(ascending: Ints, keys: Ints) -> Ints:
    """Return the index of each key in an ascending array; -1 if it is missing."""
    at = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return np.where(ascending[at] == keys, at, -1)


@dataclass(frozen=True)
class Level:
    """Probabilities of n-grams of one length (at least 2), as natural logarithms.

    Contexts and n-grams are ascending keys. The n-grams of context i are ``grams[start[i] : start[i] + size[i]]``.
    ``log_p`` is the log-probability of the last token of an n-gram, ``log_rest`` the log of the mass that a context
    leaves to the distribution below it.
    """

    contexts: Ints
    start: Ints
    size: Ints
    log_rest: Floats
    grams: Ints
    log_p: Floats


@dataclass(frozen=True)
class Table:
    """Distributions of one member: ``first`` [vocabulary] without context, and a level for each length from 2.

    ``chained``: the distribution below a context is that of its shorter context, else the uniform one.
    """

    first: Floats
    levels: tuple[Level, ...]
    chained: bool

    @classmethod
    def of(cls, counts: Counts, settings: NgramSettings, vocabulary: int, end: int) -> Table:
        """Compute probabilities from counts; without counts, all tokens are equally probable."""
        chained = settings.smoothing == "kneser_ney"
        if not len(counts.keys):
            return cls(np.full(vocabulary, -np.log(vocabulary)), (), chained)
        grams, raw, used = counts.keys, counts.values, counts.values
        longer: list[tuple[Ints, Floats, Ints]] = []  # n-grams, counts used, and indices of the n-grams one shorter
        for length in range(settings.order - 1, 0, -1):
            shorter, suffix = np.unique(grams % vocabulary**length, return_inverse=True)
            longer.append((grams, used, suffix))
            raw = used = np.bincount(suffix, weights=raw).astype(np.float64)
            if chained:
                # The number of different tokens before it; at the beginning of a document, that is always the end.
                first = shorter // vocabulary ** (length - 1)
                used = np.where((first == end) & (length > 1), raw, np.bincount(suffix))
            grams = shorter
        share, rest = _shares(used, np.zeros(1, np.int64), np.array([len(used)]), settings, vocabulary)
        first_p = np.full(vocabulary, rest[0] / vocabulary)
        first_p[grams] += share
        levels, p = [], first_p[grams]
        with np.errstate(divide="ignore"):  # the log of an impossible token is minus infinity
            for grams, used, suffix in reversed(longer):
                start = np.flatnonzero(np.diff(grams // vocabulary, prepend=-1))
                size = np.diff(start, append=len(grams))
                share, rest = _shares(used, start, size, settings, vocabulary)
                p = share + np.repeat(rest, size) * (p[suffix] if chained else 1 / vocabulary)
                levels.append(Level(grams[start] // vocabulary, start, size, np.log(rest), grams, np.log(p)))
            return cls(np.log(first_p), tuple(levels), chained)

    def log_probability(self, history: Sequence[Ints], tokens: Ints) -> Floats:
        """Return the log-probabilities of ``tokens`` [N] after the columns of earlier tokens, oldest first."""
        vocabulary = len(self.first)
        log_p = self.first[tokens]
        context, power = np.zeros(len(tokens), np.int64), 1
        for level, before in zip(self.levels, reversed(history), strict=False):
            context, power = context + before * power, power * vocabulary
            at = find(level.contexts, context)
            below = log_p if self.chained else -np.log(vocabulary)
            log_p = np.where(at >= 0, level.log_rest[at] + below, log_p)
            at = find(level.grams, context * vocabulary + tokens)
            log_p = np.where(at >= 0, level.log_p[at], log_p)
        return log_p


def _shares(counts: Floats, start: Ints, size: Ints, settings: NgramSettings, vocabulary: int) -> tuple[Floats, Floats]:
    """Return the share of each n-gram in the probability of its context, and the rest that each context leaves."""
    total = np.add.reduceat(counts, start)
    rest = np.zeros(len(start))
    if settings.k is not None:
        total = total + settings.k * vocabulary
        rest = settings.k * vocabulary / total
    elif settings.smoothing == "kneser_ney":
        discount = np.minimum(counts, DISCOUNT if settings.discount is None else settings.discount)
        counts, rest = counts - discount, np.add.reduceat(discount, start) / total
    return counts / np.repeat(total, size), rest
