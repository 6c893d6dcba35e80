"""Implement the views of :mod:`ecosystem.policies.base` for the parts of a world."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.overlap import Overlaps
from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import DataError
from ecosystem.families.base import Cohort, Progress, SupportsWatermark, silent
from ecosystem.families.requests import Score, ScoreRequest
from ecosystem.policies.base import Answers
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.sources.base import Reservoir, Truth
from ecosystem.sources.labelled import matches_plane

_INDEXED = 1 << 16  # documents added to an index of near-duplicates at a time


class Cohorts(dict[str, Cohort]):
    """Cohorts by the name of their model; a missing one is built on first use."""

    def __init__(self, build: Callable[[str], Cohort]) -> None:
        super().__init__()
        self._build = build

    def build(self, names: Iterable[str]) -> None:
        """Build the cohorts of these models now, in this order."""
        for name in names:
            self[name]

    def __missing__(self, name: str) -> Cohort:
        self[name] = cohort = self._build(name)
        return cohort


class HeldOut:
    """Overlaps of held-out documents with documents of the web and of sources; each document is read once."""

    def __init__(self, corpus: Corpus, reservoirs: Mapping[str, Reservoir]) -> None:
        self.documents = pl.Series([], dtype=pl.String)  # set when the references are
        self._corpus, self._reservoirs = corpus, reservoirs
        self._web: dict[int, Overlaps] = {}
        self._sources: dict[tuple[int, str], tuple[Overlaps, dict[int, int]]] = {}  # with the place of each row

    def on_web(self, words: int) -> Overlaps:
        """Return the overlaps in ``words`` words in a row with all documents ever published, by id."""
        if words not in self._web:
            self._web[words] = Overlaps(self.documents, words)
        overlaps = self._web[words]
        total = self._corpus.last_id + 1
        for first in range(len(overlaps), total, _INDEXED):
            overlaps.add(self._corpus.contents(pl.Series(np.arange(first, min(first + _INDEXED, total)))))
        return overlaps

    def in_source(self, words: int, source: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the held-out documents that overlap with any of these rows of a source, ascending."""
        key = words, source
        if key not in self._sources:
            self._sources[key] = Overlaps(self.documents, words), {}
        overlaps, places = self._sources[key]
        new = [row for row in dict.fromkeys(rows.tolist()) if row not in places]
        if new:
            places |= {row: len(overlaps) + place for place, row in enumerate(new)}
            overlaps.add(self._reservoirs[source].rows(np.array(new, dtype=np.int64)))
        return overlaps.of(np.array([places[row] for row in rows.tolist()], dtype=np.int64))


class CorpusService:
    """The documents of the web: contents, which of them are live, and near-duplicates."""

    def __init__(
        self,
        corpus: Corpus,
        scratch: Scratch | None = None,
        progress: Progress = silent,
        held_out: HeldOut | None = None,
    ) -> None:
        """``scratch`` takes the files of indexes that are too large for memory (absent: a temporary folder)."""
        self._corpus, self._scratch, self._progress = corpus, scratch or Scratch(), progress
        self._held_out = held_out or HeldOut(corpus, {})
        self._indexes: dict[tuple[int, int, float], NearDuplicates] = {}

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return the contents of documents by id."""
        return self._corpus.contents(docs)

    def live(self) -> pl.Series:
        """Return the ids of the documents that are on the web now, ascending."""
        return pl.Series("doc", self._corpus.live().doc)

    def near_duplicates(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return the earliest near-duplicate of each document among all ever published, or null."""
        key = (num_perm, shingle, threshold)
        index = self._indexes.setdefault(key, NearDuplicates(*key, self._scratch))
        total = self._corpus.last_id + 1
        several = total - len(index) > _INDEXED
        for first in range(len(index), total, _INDEXED):
            ids = pl.Series(np.arange(first, min(first + _INDEXED, total)))
            index.add(ids, self._corpus.contents(ids))
            if several:
                self._progress("index of near-duplicates", len(index), total)
        return index.earliest(docs)

    def held_out_overlaps(self, words: int, docs: pl.Series) -> pl.Series:
        """Return the first held-out document with so many words in a row in common with each document, or null."""
        found = pl.Series(self._held_out.on_web(words).first(docs.to_numpy()))
        return found.set(found < 0, None)


@dataclass(frozen=True)
class SourceService:
    """The sources of real documents, and the number of documents drawn from each."""

    reservoirs: Mapping[str, Reservoir]
    corpus: Corpus

    def size(self, source: str) -> int | None:
        """Return the number of documents of a source that may be injected (None: endless), without held-out ones."""
        return self.reservoirs[source].size

    def contents(self, source: str, rows: NDArray[np.int64]) -> pl.Series:
        """Return the contents of rows of a source."""
        return self.reservoirs[source].rows(rows)

    def drawn(self, source: str, t: int) -> int:
        """Return the number of rows of a source that people had drawn by the end of step ``t``."""
        return self.corpus.drawn(source, t)


class ModelService:
    """Score documents with models at the weights that their trainers start from; each document is read once."""

    def __init__(self, cohorts: Cohorts, corpus: Corpus) -> None:
        self._cohorts, self._corpus = cohorts, corpus
        self._scores: dict[str, dict[int, tuple[float, int]]] = {}
        self._watermarks: dict[tuple[str, WatermarkSpec], dict[int, tuple[float, int]]] = {}

    def score(self, model: str, docs: pl.Series) -> Answers:
        """Return (total nats, tokens) of documents under a model's starting weights."""

        def read(new: pl.Series) -> Answers:
            [score] = self._cohorts[model].score([ScoreRequest("initial", self._corpus.contents(new))])
            return score.per_document()

        return _once(self._scores.setdefault(model, {}), docs, read)

    def watermark(self, model: str, mark: WatermarkSpec, docs: pl.Series) -> Answers:
        """Return (z-scores, scored tokens) of documents read with the tokenizer of the named model."""
        cohort = self._cohorts[model]
        assert isinstance(cohort, SupportsWatermark)  # checked when the scenario was read
        answers = self._watermarks.setdefault((model, mark), {})
        return _once(answers, docs, lambda new: cohort.watermark(self._corpus.contents(new), mark))

    def fluency(self, model: str, docs: pl.Series, held_out: Score) -> NDArray[np.float64]:
        """Return each document's mean log-likelihood per token under a model's starting weights, standardised.

        The mean and the standard deviation are those of the ``held_out`` documents, which those weights have not seen
        either, so that the fluency of a document never changes. Raises DataError if all held-out documents are equally
        likely, or if their likelihood is zero.
        """
        total, tokens = held_out.per_document()
        deviation = (total / tokens).std()
        if not deviation > 0:
            raise DataError(
                f"models.{model}: cannot measure fluency, since held-out documents are equally likely or impossible."
            )
        nats, units = self.score(model, docs)
        z: NDArray[np.float64] = np.clip(((total / tokens).mean() - nats / units) / deviation, -1e6, 1e6)
        return z


@dataclass(frozen=True)
class LabelService:
    """Check labels against the truth of the initial source."""

    corpus: Corpus
    truth: Truth | None

    def label_is_correct(self, docs: pl.Series) -> NDArray[np.bool_]:
        """Return whether each document's label is correct; raise DataError if documents have no labels."""
        return correct_labels(self.corpus.contents(docs), self.truth)


def correct_labels(contents: pl.Series, truth: Truth | None) -> NDArray[np.bool_]:
    """Return whether the label of each document is correct; raise DataError if documents have no labels."""
    if truth is None or truth.plane is None:
        raise DataError(
            "web.initial.source: labels can only be checked against the source of the initial documents, which must "
            "be of kind labelled."
        )
    return matches_plane(contents, truth.plane)


class Services:
    """The services of one world; a policy reaches them through its Context."""

    def __init__(
        self,
        corpus: Corpus,
        reservoirs: Mapping[str, Reservoir],
        cohorts: Cohorts,
        scratch: Scratch | None = None,
        progress: Progress = silent,
    ) -> None:
        self.held_out = HeldOut(corpus, reservoirs)
        self.corpus = CorpusService(corpus, scratch, progress, self.held_out)
        self.sources = SourceService(reservoirs, corpus)
        self.models = ModelService(cohorts, corpus)
        self._corpus = corpus

    def labels(self, truth: Truth | None) -> LabelService:
        """Return the view through which an oracle checks labels."""
        return LabelService(self._corpus, truth)


def _once(answered: dict[int, tuple[float, int]], docs: pl.Series, ask: Callable[[pl.Series], Answers]) -> Answers:
    """Return the answers for documents; compute the missing ones and add them to ``answered``."""
    new = docs.filter(~docs.is_in(list(answered))) if answered else docs
    if new.len():
        values, counts = ask(new)
        answered.update(zip(new.to_list(), zip(values.tolist(), counts.tolist(), strict=True), strict=True))
    answers = [answered[doc] for doc in docs.to_list()]
    return np.array([a[0] for a in answers], dtype=np.float64), np.array([a[1] for a in answers], dtype=np.int64)
