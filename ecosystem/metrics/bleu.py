"""Self-BLEU of a set of documents, and its standard error.

Every document is scored and also a reference of all the others, so scores are not independent: the standard error of
their mean is a third too small. The jackknife leaves out each document in both of its parts. It counts what is due to a
pair of documents twice, once for each (Efron & Stein 1981, "The jackknife estimate of variance"), and pairs that share
a rare n-gram matter here; so their part is estimated and subtracted once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecosystem.corpus.words import gram_keys, windows
from ecosystem.metrics.estimates import Estimate
from ecosystem.types import Floats


@dataclass(frozen=True)
class Scores:
    """BLEU of n documents against the others: ``all`` [n]; ``without`` [n, n] leaves out the reference of the column.

    The diagonal of ``without`` has no meaning.
    """

    all: Floats
    without: Floats

    def estimate(self) -> Estimate:
        """Return the mean of ``all`` and its standard error; NaN for fewer than 3 documents."""
        n = self.all.size
        mean = float(self.all.mean())
        if n < 3:
            return mean, math.nan
        others = ~np.eye(n, dtype=np.bool_)
        left_out = np.where(others, self.without, 0.0).sum(axis=0) / (n - 1)  # self-BLEU without each document
        jackknife = (n - 1) / n * float(np.square(left_out - left_out.mean()).sum())
        return mean, math.sqrt(max(jackknife - self._of_pairs(others), 0.0))

    def _of_pairs(self, others: NDArray[np.bool_]) -> float:
        """Return the part of the variance of the mean that is due to pairs of documents."""
        n = self.all.size
        loss = np.where(others, self.all[:, None] - self.without, 0.0)
        pair = loss + loss.T
        each = pair.sum(axis=0) / (n - 2)  # the effects of single documents, which are not those of pairs
        pair += pair.sum() / ((n - 1) * (n - 2)) - each[:, None] - each
        return float(np.square(pair[others]).sum()) / 2 / n**2


def bleu_scores(codes: NDArray[np.int64], document: NDArray[np.int64], types: int, n_max: int) -> Scores:
    """Score every document against all the others, without smoothing (Papineni et al. 2002).

    ``codes`` [N], below ``types``, are the words of the documents ``document`` [N], which ascend from 0; each has at
    least ``n_max`` words. A score is the geometric mean of the clipped precisions of n-grams up to ``n_max`` times the
    brevity penalty, and 0 if one precision is 0.
    """
    lengths = np.bincount(document)
    logs, logs_without = np.zeros(lengths.size), np.zeros((lengths.size, lengths.size))
    for n in range(1, n_max + 1):
        starts = windows(document, n)
        keys = gram_keys(codes, starts, n, types)
        matched, lost = _clipped_matches(keys, document[starts], lengths.size)
        total = lengths - n + 1
        with np.errstate(divide="ignore"):
            logs += np.log(matched / total) / n_max
            logs_without += np.log((matched[:, None] - lost) / total[:, None]) / n_max
    penalty, penalty_without = _brevity(lengths)
    return Scores(np.exp(logs) * penalty, np.exp(logs_without) * penalty_without)


def _clipped_matches(
    keys: NDArray[np.int64], document: NDArray[np.int64], documents: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the clipped number of n-gram matches of each document with all the others, and the loss without each.

    Shapes: [documents], [documents, documents]. An n-gram counts at most as often as in the other document that has it
    most often: the largest count or, for the document with the largest count itself, the second largest. Without that
    other document, the next largest count takes its place.
    """
    gram = np.unique(keys, return_inverse=True)[1]
    pair, count = np.unique(gram * documents + document, return_counts=True)
    gram, owner = pair // documents, pair % documents
    order = np.lexsort((count, gram))  # within a gram, the largest count last
    gram, owner, count = gram[order], owner[order], count[order]
    ends = np.flatnonzero(np.append(gram[1:] != gram[:-1], True))
    sizes = np.diff(np.append(-1, ends))
    last, size, here = np.repeat(ends, sizes), np.repeat(sizes, sizes), np.arange(gram.size)
    best, second = np.where(here == last, last - 1, last), np.where(here >= last - 1, last - 2, last - 1)
    most = np.minimum(count, np.where(size > 1, count[best], 0))
    next_most = np.minimum(count, np.where(size > 2, count[second], 0))
    matched = np.bincount(owner, weights=most, minlength=documents)
    cell = (owner * documents + owner[best])[size > 1]
    lost = np.bincount(cell, weights=(most - next_most)[size > 1], minlength=documents**2)
    return matched.astype(np.int64), lost.astype(np.int64).reshape(documents, documents)


def _brevity(lengths: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """Return BLEU's brevity penalty of each document, [n], and without each reference, [n, n].

    It is against the other document whose length is nearest (the shorter of two).
    """
    n = lengths.size
    order = np.argsort(lengths, kind="stable")
    place = np.arange(n)[:, None] + np.array([-2, -1, 1, 2])  # the two nearest are among two on either side
    inside = (place >= 0) & (place < n)
    candidates = order[np.clip(place, 0, n - 1)]
    own, theirs = lengths[order].astype(np.float64), lengths[candidates].astype(np.float64)
    distance = np.where(inside, np.abs(theirs - own[:, None]), np.inf)
    ranked = np.lexsort((theirs, distance), axis=1)[:, :2]
    nearest = np.take_along_axis(candidates, ranked, axis=1)
    penalty = np.exp(np.minimum(0.0, 1 - np.take_along_axis(theirs, ranked, axis=1) / own[:, None]))
    everything = np.empty(n)
    everything[order] = penalty[:, 0]
    without = np.tile(everything[:, None], n)
    without[order, nearest[:, 0]] = penalty[:, 1]
    return everything, without
