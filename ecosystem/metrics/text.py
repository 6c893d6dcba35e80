"""Metrics of published text: diversity, repetition, redundancy, and the share of the human vocabulary that is left.

Distinct-n (Li et al. 2016), rep-n (Welleck et al. 2020), self-BLEU (Zhu et al. 2018, Texygen). All are computed on
integers. Words are case-sensitive; in Chinese, Japanese, Thai, Lao, Khmer and Burmese they are found by dictionary.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Annotated, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.corpus.words import gram_keys, windows
from ecosystem.metrics.base import TEXT_METRICS, Definition, Groups, TextMetric, Vocabulary
from ecosystem.metrics.estimates import Estimate, mean_and_error

_DECILES = 10


@TEXT_METRICS.register("distinct")
class Distinct(TextMetric):
    """Different n-grams per n-gram in a group, n = 1 to 4; for independent words E = sum(1 - (1 - p)^N) / N (n = 1)."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        f"distinct_{n}": Definition(
            "1",
            "down",
            f"different {n}-grams / all {n}-grams in samples of equally many words",
            source="Li et al. 2016 (unread), who divide by words",
            formula=f"mean over samples of different {n}-grams / {n}-grams",
        )
        for n in range(1, 5)
    }

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``distinct_1`` to ``distinct_4``."""
        result: dict[str, Estimate] = {}
        for n, name in enumerate(self.definitions, start=1):
            keys, group = groups.grams(n)
            total = np.bincount(group, minlength=groups.count)
            if total.all():
                result[name] = mean_and_error(_different(keys, group, groups.count) / total)
        return result


@TEXT_METRICS.register("repetition")
class Repetition(TextMetric):
    """Repeated n-grams within a document, n = 1 to 4: a constant sequence of L words has rep_2 = 1 - 1 / (L - 1).

    Mean over all whole documents that have an n-gram, standard error over documents. Longer documents repeat more.
    """

    definitions: ClassVar[Mapping[str, Definition]] = {
        f"rep_{n}": Definition(
            "1",
            "up",
            f"1 - different {n}-grams / all {n}-grams within one document, mean over documents",
            source="Welleck et al. 2020 (unread)",
            formula=f"mean over documents of 1 - different {n}-grams / {n}-grams",
        )
        for n in range(1, 5)
    }

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``rep_1`` to ``rep_4``."""
        words = groups.words
        result: dict[str, Estimate] = {}
        for n, name in enumerate(self.definitions, start=1):
            starts = windows(words.document, n)
            document = words.document[starts]
            total = np.bincount(document, minlength=words.documents)
            keys = gram_keys(words.codes, starts, n, words.vocabulary.len())
            has = total > 0
            if has.any():
                result[name] = mean_and_error(1 - (_different(keys, document, words.documents)[has] / total[has]))
        return result


@TEXT_METRICS.register("self_bleu")
class SelfBleu(TextMetric):
    """Overlap of the n-grams of documents: BLEU of each document with all the others as references.

    BLEU is that of Papineni et al. (2002) without smoothing: the geometric mean of the clipped precisions of
    n-grams up to ``n`` times the brevity penalty; 0 if one precision is 0. It depends on the number of references,
    so exactly ``documents`` random documents are compared, and fewer yield nothing. The standard error treats the
    documents as independent, though they share references.
    """

    definitions: ClassVar[Mapping[str, Definition]] = {
        "self_bleu": Definition(
            "1",
            "up",
            "mean BLEU-4 of each sampled document against all the others",
            source="Zhu et al. 2018 (code), smoothed there",
            formula="mean over documents of the brevity penalty times the geometric mean of clipped n-gram precisions",
        )
    }

    documents: Annotated[int, Field(ge=2)] = Field(100, description="documents compared with each other")
    n: Annotated[int, Field(ge=1, le=8)] = Field(4, description="longest n-gram; shorter documents are left out")

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``self_bleu``."""
        words = groups.words
        lengths = words.lengths()
        chosen = np.flatnonzero(lengths >= self.n)[: self.documents]
        if chosen.size < self.documents:
            return {}
        place = np.full(words.documents, -1)
        place[chosen] = np.arange(chosen.size)
        keep = place[words.document] >= 0
        codes, document = words.codes[keep], place[words.document[keep]]
        logs = np.zeros(chosen.size)
        for n in range(1, self.n + 1):
            starts = windows(document, n)
            keys = gram_keys(codes, starts, n, words.vocabulary.len())
            matched = _clipped_matches(keys, document[starts], chosen.size)
            with np.errstate(divide="ignore"):
                logs += np.log(matched / (lengths[chosen] - n + 1)) / self.n
        return {"self_bleu": mean_and_error(np.exp(logs) * _brevity(lengths[chosen]))}


@TEXT_METRICS.register("compression_ratio")
class CompressionRatio(TextMetric):
    """Bytes of a group's text per byte after zlib (level 6): 1 is incompressible, higher is more redundant."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        "compression_ratio": Definition(
            "1",
            "up",
            "bytes of text / bytes after zlib: the higher, the more redundant",
            formula="mean over samples of bytes / bytes after zlib, level 6",
        )
    }

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``compression_ratio``."""
        texts = [text.encode() for text in groups.texts()]
        return {"compression_ratio": mean_and_error([len(text) / len(zlib.compress(text, 6)) for text in texts])}


@TEXT_METRICS.register("token_entropy")
class TokenEntropy(TextMetric):
    """Entropy of a group's word frequencies, nats: plug-in plus (K - 1) / (2 N) (Miller 1955), K words seen of N."""

    definitions: ClassVar[Mapping[str, Definition]] = {
        "entropy": Definition(
            "nats",
            "down",
            "of published texts: entropy of the word frequencies of a sample (Miller-Madow); of a categorical model: "
            "entropy of its own probabilities",
            source="Miller 1955 (unread)",
            formula="texts: -Σ f ln f + (K - 1) / (2 N), f the frequencies of K words seen in N; categories: -Σ p ln p",
        )
    }

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``entropy``."""
        counts = groups.type_counts
        share = counts / groups.size
        plug_in = -(share * np.log(np.where(counts > 0, share, 1))).sum(axis=1)
        return {"entropy": mean_and_error(plug_in + (np.count_nonzero(counts, axis=1) - 1) / (2 * groups.size))}


@TEXT_METRICS.register("zipf_exponent")
class ZipfExponent(TextMetric):
    """Exponent s of rank^-s over a group's words by falling frequency, by maximum likelihood over a bounded range.

    Ranks are those in the sample itself, so s depends on the sample size; groups of equal size are comparable. The
    estimator for a bounded range of values is that of Hanel et al. (2017).
    """

    definitions: ClassVar[Mapping[str, Definition]] = {
        "zipf_exponent": Definition(
            "1",
            "up",
            "s of the power law rank^-s fitted to a sample by maximum likelihood",
            source="Hanel et al. 2017 (abstract)",
            formula="the s that maximises Σ c_r ln(r^-s / Σ r^-s) over ranks r with counts c_r, between 0 and 20",
        )
    }

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``zipf_exponent``."""
        ranked = np.sort(groups.type_counts, axis=1)[:, ::-1]
        exponents = [zipf_exponent(counts[counts > 0]) for counts in ranked if counts[1:2].any()]
        return {"zipf_exponent": mean_and_error(exponents)} if len(exponents) > 1 else {}


@TEXT_METRICS.register("vocabulary")
class VocabularyKept(TextMetric):
    """Share of each frequency decile of the human vocabulary that is left; decile 1 has the most frequent words.

    The number of words of a decile that occur in a group, divided by the expected number in as many words drawn
    independently with human frequencies: 1 is human-like, 0 means that all are forgotten. (Real human text scores
    slightly below 1, because words cluster: measure it too.) Yields nothing without the human vocabulary.
    """

    definitions: ClassVar[Mapping[str, Definition]] = {
        f"vocabulary_kept_{k}": Definition(
            "1",
            "down",
            f"human words of frequency decile {k} (1: most frequent) that occur, per expected in as much human text",
            formula="words of the decile that occur / Σ (1 - (1 - f)^N), f their human shares, N words in a sample",
        )
        for k in range(1, _DECILES + 1)
    }

    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return ``vocabulary_kept_1`` to ``vocabulary_kept_10``."""
        if human is None or human.words.len() < _DECILES:
            return {}
        ranks = human.ranks(groups.words.vocabulary)
        known = ranks >= 0
        edges = np.linspace(0, human.words.len(), _DECILES + 1).astype(np.int64)
        decile = np.searchsorted(edges, ranks[known], side="right") - 1
        seen = (groups.type_counts[:, known] > 0).astype(np.float64)
        expected = np.add.reduceat(human.expected(groups.size), edges[:-1])
        kept = np.stack([seen[:, decile == k].sum(axis=1) for k in range(_DECILES)], axis=1) / expected
        return {name: mean_and_error(kept[:, k]) for k, name in enumerate(self.definitions)}


def zipf_exponent(counts: NDArray[np.int64], highest: float = 20.0) -> float:
    """Return the maximum-likelihood s of p(r) = r^-s / sum(r^-s) for counts by rank 1 to K, within [0, highest].

    The mean of ln(rank) under the law falls as s grows; the estimate is where it meets the sample's, found by
    bisection to 2^-40 of the interval.
    """
    logs = np.log(np.arange(1, counts.size + 1))
    target = float(counts @ logs) / max(int(counts.sum()), 1)
    low, high = 0.0, highest
    for _ in range(40):
        middle = (low + high) / 2
        law = np.exp(-middle * logs)
        if float(law @ logs) / float(law.sum()) > target:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _different(keys: NDArray[np.int64], owner: NDArray[np.int64], owners: int) -> NDArray[np.int64]:
    """Return how many different keys each owner (a group or a document) has, (owners,)."""
    order = np.lexsort((keys, owner))
    keys, owner = keys[order], owner[order]
    new = np.ones(keys.size, np.bool_)
    new[1:] = (keys[1:] != keys[:-1]) | (owner[1:] != owner[:-1])
    return np.bincount(owner[new], minlength=owners)


def _clipped_matches(keys: NDArray[np.int64], document: NDArray[np.int64], documents: int) -> NDArray[np.int64]:
    """Return the clipped number of n-gram matches of each document with all the others, (documents,).

    An n-gram counts at most as often as in the other document that has it most often: the largest count or, for the
    document with the largest count itself, the second largest.
    """
    gram = np.unique(keys, return_inverse=True)[1]
    pair, count = np.unique(gram * documents + document, return_counts=True)
    gram, owner = pair // documents, pair % documents
    order = np.lexsort((count, gram))  # within a gram, the largest count last
    gram, owner, count = gram[order], owner[order], count[order]
    last = np.flatnonzero(np.append(gram[1:] != gram[:-1], True))
    first = np.append(0, last[:-1] + 1)
    second = np.where(last > first, count[np.maximum(last - 1, 0)], 0)
    most = np.repeat(count[last], last - first + 1)
    most[last] = second
    return np.bincount(owner, weights=np.minimum(count, most), minlength=documents).astype(np.int64)


def _brevity(lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return BLEU's brevity penalty of each document against the other whose length is nearest (the shorter of two)."""
    order = np.argsort(lengths, kind="stable")
    ranked = lengths[order].astype(np.float64)
    shorter = np.append(-np.inf, ranked[:-1])
    longer = np.append(ranked[1:], np.inf)
    nearest = np.where(ranked - shorter <= longer - ranked, shorter, longer)
    penalty = np.empty(lengths.size)
    penalty[order] = np.exp(np.minimum(0.0, 1 - nearest / ranked))
    return penalty
