"""Counts of n-grams, and the distributions that follow from them.

The only thing a model learns is how often each sequence of ``order`` tokens occurs, with ``order`` - 1 ends of text
before every document, so that each token of a document is the last of one n-gram. Shorter n-grams are sums over longer
ones. Probabilities are computed once per fit, in back-off form: the log-probability of every n-gram that occurs, and
per context the log of the mass left to the distribution below it (that of the shorter context, or the uniform one).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ecosystem.types import Floats, Ints

KEYS = 2**63  # an n-gram is one signed 64-bit number
DISCOUNT = 0.75


@dataclass(frozen=True)
class NgramSettings:
    """How n-grams are counted and smoothed: the fields of the family ``ngram`` with the same names."""

    order: int
    smoothing: Literal["none", "add_k", "kneser_ney"]
    k: float | None = None
    discount: float | None = None
    memory: float = 0.0


def require_keys(vocabulary: int, order: int) -> None:
    """Raise ValueError if the n-grams of ``vocabulary`` tokens are too many for 64-bit numbers."""
    if vocabulary**order > KEYS:
        most = max(n for n in range(order) if vocabulary**n <= KEYS)
        raise ValueError(f"order = {order} is too high for a vocabulary of {vocabulary} tokens; give at most {most}")


@dataclass(frozen=True)
class Counts:
    """Frequencies of n-grams: ``keys`` [n-grams] ascending, ``values`` [n-grams] above 0.

    The key of an n-gram is the number whose digits, to the base of the vocabulary's size, are its tokens.
    """

    keys: Ints
    values: Floats

    @classmethod
    def of(cls, keys: Ints, values: Floats) -> Counts:
        """Add up the values of equal keys."""
        if len(values) and (values == 1).all():  # no sum of ones depends on its order
            unique, count = np.unique(keys, return_counts=True)
            return cls(unique, count.astype(np.float64))
        unique, place = np.unique(keys, return_inverse=True)
        return cls(unique, np.bincount(place, weights=values).astype(np.float64))


NOTHING = Counts(np.zeros(0, np.int64), np.zeros(0, np.float64))


def keys_of(columns: Sequence[Ints], vocabulary: int) -> Ints:
    """Return the keys of n-grams given column by column, the oldest token first."""
    keys = columns[0]
    for column in columns[1:]:
        keys = keys * vocabulary + column
    return keys


def columns_of(keys: Ints, order: int, vocabulary: int) -> tuple[list[Ints], Ints]:
    """Return the tokens of n-grams column by column, the oldest first: those of the context, and the last ones."""
    powers = [vocabulary**place for place in range(order)]
    *context, last = [keys // power % vocabulary for power in reversed(powers)]
    return context, last


def find(ascending: Ints, keys: Ints) -> Ints:
    """Return the place of each key in an ascending array, -1 where it is missing."""
    at = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return np.where(ascending[at] == keys, at, -1)


@dataclass(frozen=True)
class Level:
    """Probabilities of n-grams of one length (at least 2), as natural logarithms.

    The n-grams of context i are ``grams[start[i] : start[i] + size[i]]``. Contexts and n-grams are keys, ascending;
    ``log_p`` is that of an n-gram's last token, ``log_rest`` that of the mass left to the distribution below a context.
    """

    contexts: Ints
    start: Ints
    size: Ints
    log_rest: Floats
    grams: Ints
    log_p: Floats


@dataclass(frozen=True)
class Table:
    """Distributions of one member: ``first`` [vocabulary] after no context, and a level per length from 2 up.

    ``chained``: the distribution below a context is that of its shorter one, else the uniform one.
    """

    first: Floats
    levels: tuple[Level, ...]
    chained: bool

    @classmethod
    def of(cls, counts: Counts, settings: NgramSettings, vocabulary: int, end: int) -> Table:
        """Compute the probabilities that follow from counts; without counts, all tokens are equally probable."""
        chained = settings.smoothing == "kneser_ney"
        if not len(counts.keys):
            return cls(np.full(vocabulary, -np.log(vocabulary)), (), chained)
        grams, raw, used = counts.keys, counts.values, counts.values
        longer: list[tuple[Ints, Floats, Ints]] = []  # n-grams, counts used, and the place of the n-gram one shorter
        for length in range(settings.order - 1, 0, -1):
            shorter, place = np.unique(grams % vocabulary**length, return_inverse=True)
            longer.append((grams, used, place))
            raw = used = np.bincount(place, weights=raw).astype(np.float64)
            if chained:
                # How many different tokens it follows; before the beginning of a document there is only the end.
                first = shorter // vocabulary ** (length - 1)
                used = np.where((first == end) & (length > 1), raw, np.bincount(place))
            grams = shorter
        share, rest = _shares(used, np.zeros(1, np.int64), np.array([len(used)]), settings, vocabulary)
        first_p = np.full(vocabulary, rest[0] / vocabulary)
        first_p[grams] += share
        levels, p = [], first_p[grams]
        with np.errstate(divide="ignore"):  # the log of an impossible token is minus infinity
            for grams, used, place in reversed(longer):
                start = np.flatnonzero(np.diff(grams // vocabulary, prepend=-1))
                size = np.diff(start, append=len(grams))
                share, rest = _shares(used, start, size, settings, vocabulary)
                p = share + np.repeat(rest, size) * (p[place] if chained else 1 / vocabulary)
                levels.append(Level(grams[start] // vocabulary, start, size, np.log(rest), grams, np.log(p)))
            return cls(np.log(first_p), tuple(levels), chained)

    def log_probability(self, history: Sequence[Ints], tokens: Ints) -> Floats:
        """Return the log-probability of each of ``tokens`` [N] after a history: the tokens before, oldest first."""
        vocabulary = len(self.first)
        log_p = self.first[tokens]
        context, place = np.zeros(len(tokens), np.int64), 1
        for level, before in zip(self.levels, reversed(history), strict=False):
            context, place = context + before * place, place * vocabulary
            at = find(level.contexts, context)
            below = log_p if self.chained else -np.log(vocabulary)
            log_p = np.where(at >= 0, level.log_rest[at] + below, log_p)
            at = find(level.grams, context * vocabulary + tokens)
            log_p = np.where(at >= 0, level.log_p[at], log_p)
        return log_p


def _shares(counts: Floats, start: Ints, size: Ints, settings: NgramSettings, vocabulary: int) -> tuple[Floats, Floats]:
    """Return each n-gram's own share of its context's probability, and the rest that every context leaves."""
    total = np.add.reduceat(counts, start)
    rest = np.zeros(len(start))
    if settings.k is not None:
        total = total + settings.k * vocabulary
        rest = settings.k * vocabulary / total
    elif settings.smoothing == "kneser_ney":
        taken = np.minimum(counts, DISCOUNT if settings.discount is None else settings.discount)
        counts, rest = counts - taken, np.add.reduceat(taken, start) / total
    return counts / np.repeat(total, size), rest
