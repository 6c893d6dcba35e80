"""Samples of equally many words, on which text metrics are computed, and what a text metric is.

Most measures of diversity depend on the size of the sample (twice the words have fewer *different* words per
word), so texts are compared on *groups*: disjoint samples of exactly the same number of words. A metric's value
is its mean over groups, its standard error that of the mean.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar, Literal, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.words import Words, gram_keys, windows, words
from ecosystem.errors import DataError, ScenarioError
from ecosystem.metrics.definitions import Definition as Definition
from ecosystem.metrics.definitions import define
from ecosystem.metrics.estimates import Estimate as Estimate
from ecosystem.registry import Registry
from ecosystem.sources.base import Truth
from ecosystem.spec import Spec
from ecosystem.streams import Stream


@dataclass(frozen=True)
class Groups:
    """``count`` groups of ``size`` words each, out of documents in random order.

    ``found`` holds the words of all documents, in that order; group g is its words g * size to (g + 1) * size. A
    document at the border is cut in two, and no n-gram reaches across a cut or from one document to the next.
    """

    found: Words
    size: int
    count: int

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Places of the words in ``found.vocabulary``, (count, size)."""
        return self.found.codes[: self.count * self.size].reshape(self.count, self.size)

    @cached_property
    def document(self) -> NDArray[np.int64]:
        """Number of the document each word stands in, (count, size)."""
        return self.found.document[: self.count * self.size].reshape(self.count, self.size)

    @cached_property
    def type_counts(self) -> NDArray[np.int64]:
        """How often each word of the vocabulary occurs in each group, (count, vocabulary)."""
        types = self.found.vocabulary.len()
        flat = self.codes + types * np.arange(self.count)[:, None]
        return np.bincount(flat.reshape(-1), minlength=self.count * types).reshape(self.count, types)

    def grams(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the keys of all n-grams within groups and documents, and the group of each."""
        flat = self.codes.reshape(-1)
        piece = self.document.reshape(-1) * self.count + np.repeat(np.arange(self.count), self.size)
        starts = windows(piece, n)
        return gram_keys(flat, starts, n, self.found.vocabulary.len()), starts // self.size

    def texts(self) -> list[str]:
        """Return the text of each group: its words with spaces between them, one document a line."""
        vocabulary = self.found.vocabulary.to_list()
        result = []
        for codes, document in zip(self.codes, self.document, strict=True):
            ends = np.flatnonzero(np.diff(document)) + 1
            lines = (" ".join([vocabulary[c] for c in line.tolist()]) for line in np.split(codes, ends))
            result.append("\n".join(lines))
        return result


@dataclass(frozen=True)
class Vocabulary:
    """The words of human text: ``words``, most frequent first (equals in alphabetical order), and their ``counts``."""

    words: pl.Series
    counts: NDArray[np.int64]

    @classmethod
    def of(cls, texts: pl.Series) -> Vocabulary:
        """Count the words of ``texts``."""
        found = words(texts)
        counts = np.bincount(found.codes, minlength=found.vocabulary.len())
        table = pl.DataFrame({"word": found.vocabulary.cast(pl.String), "count": counts})
        table = table.sort("count", "word", descending=[True, False])
        return cls(table["word"], table["count"].to_numpy().astype(np.int64))

    def ranks(self, vocabulary: pl.Series) -> NDArray[np.int64]:
        """Return the rank (0: most frequent) of each of these words, -1 for one that people did not use."""
        places = self.words.rename("word").to_frame().with_row_index("rank")
        found = vocabulary.rename("word").to_frame().join(places, on="word", how="left", maintain_order="left")
        return found["rank"].cast(pl.Int64).fill_null(-1).to_numpy()

    def expected(self, size: int) -> NDArray[np.float64]:
        """Return the chance of each word to occur among ``size`` words drawn independently from human ones."""
        share = self.counts / max(int(self.counts.sum()), 1)
        with np.errstate(divide="ignore"):
            return np.asarray(-np.expm1(size * np.log1p(-share)), dtype=np.float64)


class Metric(Spec):
    """One way to measure documents: yields one or several named metrics, which it defines."""

    definitions: ClassVar[Mapping[str, Definition]] = {}

    @classmethod
    def defined(cls, kind: str) -> Mapping[str, Definition]:
        """Return the metrics that it yields when registered as ``kind``, by name."""
        if not cls.definitions:
            raise ScenarioError(
                f'The metric kind "{kind}" ({cls.__module__}.{cls.__qualname__}) defines no metric; give its class '
                "definitions = {name: Definition(unit, collapse, text)}."
            )
        return cls.definitions


class TextMetric(Metric):
    """One way to measure the texts that a trainer publishes."""

    @abstractmethod
    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return metric name → (value, standard error); a metric that these texts do not have is left out."""


class DocumentMetric(Metric):
    """One way to measure the vectors, or the categories, that a trainer publishes at a step."""

    modality: ClassVar[Literal["vector", "category"]] = "vector"

    @abstractmethod
    def measure(self, documents: NDArray[Any], truth: Truth) -> dict[str, Estimate]:
        """Return metric name → (value, standard error); one that these documents do not have is left out.

        ``documents``, at least one, are [documents, dimensions] floats or [documents] symbols; ``truth`` is what the
        models are measured against.
        """


T = TypeVar("T", bound=type[Any])


class MetricRegistry(Registry[T]):
    """Kinds that yield metrics: registering one defines what it yields (``defined`` of the class)."""

    def register(self, kind: str) -> Callable[[T], T]:
        """Class decorator: make ``kind`` stand for the class and define its metrics."""
        enter = super().register(kind)

        def enter_and_define(cls: T) -> T:
            define(cls.defined(kind), f"{cls.__module__}.{cls.__qualname__}")
            return enter(cls)

        return enter_and_define


TEXT_METRICS: MetricRegistry[type[TextMetric]] = MetricRegistry("text metric", "ecosystem.metrics.text")
DOCUMENT_METRICS: MetricRegistry[type[DocumentMetric]] = MetricRegistry("document metric")


def sample_groups(texts: pl.Series, words_each: int, groups: int, stream: Stream) -> Groups | None:
    """Shuffle documents and cut their words into at most ``groups`` groups of exactly ``words_each`` words.

    Fewer groups where the text is short; None where it is too short for two, since one has no standard error.
    Words are those of :data:`ecosystem.corpus.words.TOKENS`, punctuation marks included, as they are written.
    """
    order = stream.rng().permutation(texts.len())
    found = words(texts.gather(order))
    count = min(groups, found.codes.size // words_each)
    return Groups(found, words_each, count) if count >= 2 else None


def measure_texts(
    metrics: Iterable[TextMetric], groups: Groups | None, human: Vocabulary | None = None
) -> dict[str, Estimate]:
    """Return every metric of the same groups; none at all if there are no groups."""
    result: dict[str, Estimate] = {}
    if groups is not None:
        for metric in metrics:
            result |= _defined(metric, metric.measure(groups, human))
    return result


def measure_documents(metrics: Iterable[DocumentMetric], documents: NDArray[Any], truth: Truth) -> dict[str, Estimate]:
    """Return every metric of the same vectors or categories; none at all if there are none."""
    result: dict[str, Estimate] = {}
    if len(documents):
        for metric in metrics:
            result |= _defined(metric, metric.measure(documents, truth))
    return result


def _defined(metric: Metric, values: dict[str, Estimate]) -> dict[str, Estimate]:
    unknown = values.keys() - metric.definitions.keys()
    if unknown:
        raise DataError(f'The metric kind "{metric.kind}" yields {min(unknown)}, which its definitions do not have.')
    return values
