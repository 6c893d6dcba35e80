"""Base classes of metrics, and the samples of words on which text metrics are computed.

Most measures of diversity depend on the sample size (the share of different words falls as a sample grows), so texts
are compared on *groups*: disjoint samples of exactly the same number of words. A metric's value is its mean over
groups, its standard error that of the mean.
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

    ``words`` holds the words of all documents, in that order; group g is its words g * size to (g + 1) * size. A
    document at the border is cut in two, and no n-gram reaches across a cut or from one document to the next.
    """

    words: Words
    size: int
    count: int

    @cached_property
    def codes(self) -> NDArray[np.int64]:
        """Indices of the words in ``words.vocabulary``, (count, size)."""
        return self.words.codes[: self.count * self.size].reshape(self.count, self.size)

    @cached_property
    def document(self) -> NDArray[np.int64]:
        """Index of the document of each word, (count, size)."""
        return self.words.document[: self.count * self.size].reshape(self.count, self.size)

    @cached_property
    def type_counts(self) -> NDArray[np.int64]:
        """Count of each word of the vocabulary in each group, (count, vocabulary)."""
        types = self.words.vocabulary.len()
        flat = self.codes + types * np.arange(self.count)[:, None]
        return np.bincount(flat.reshape(-1), minlength=self.count * types).reshape(self.count, types)

    def grams(self, n: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the keys of all n-grams within groups and documents, and the group of each."""
        flat = self.codes.reshape(-1)
        piece = self.document.reshape(-1) * self.count + np.repeat(np.arange(self.count), self.size)
        starts = windows(piece, n)
        return gram_keys(flat, starts, n, self.words.vocabulary.len()), starts // self.size

    def texts(self) -> list[str]:
        """Return the text of each group: its words with spaces between them, one document a line."""
        vocabulary = self.words.vocabulary.to_list()
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
        tokens = words(texts)
        counts = np.bincount(tokens.codes, minlength=tokens.vocabulary.len())
        table = pl.DataFrame({"word": tokens.vocabulary.cast(pl.String), "count": counts})
        table = table.sort("count", "word", descending=[True, False])
        return cls(table["word"], table["count"].to_numpy().astype(np.int64))

    def ranks(self, vocabulary: pl.Series) -> NDArray[np.int64]:
        """Return the rank of each word (0: most frequent), or -1 if it is not in the human vocabulary."""
        human = self.words.rename("word").to_frame().with_row_index("rank")
        ranked = vocabulary.rename("word").to_frame().join(human, on="word", how="left", maintain_order="left")
        return ranked["rank"].cast(pl.Int64).fill_null(-1).to_numpy()

    def expected(self, size: int) -> NDArray[np.float64]:
        """Return the chance that each word occurs among ``size`` words drawn independently with human frequencies."""
        share = self.counts / max(int(self.counts.sum()), 1)
        with np.errstate(divide="ignore"):
            return np.asarray(-np.expm1(size * np.log1p(-share)), dtype=np.float64)


class Metric(Spec):
    """Base class of measurements of documents; a kind defines and yields one or more named metrics."""

    definitions: ClassVar[Mapping[str, Definition]] = {}

    @classmethod
    def defined(cls, kind: str) -> Mapping[str, Definition]:
        """Return the definitions, by name, of the metrics that the class yields when registered as ``kind``."""
        if not cls.definitions:
            raise ScenarioError(
                f'The metric kind "{kind}" ({cls.__module__}.{cls.__qualname__}) defines no metric; give its class '
                "definitions = {name: Definition(unit, collapse, text)}."
            )
        return cls.definitions


class TextMetric(Metric):
    """Base class of metrics of the texts that a trainer publishes."""

    @abstractmethod
    def measure(self, groups: Groups, human: Vocabulary | None = None) -> dict[str, Estimate]:
        """Return (value, standard error) by metric name; metrics that are undefined for these texts are left out."""


class DocumentMetric(Metric):
    """Base class of metrics of the vectors or categories that a trainer publishes at a step."""

    modality: ClassVar[Literal["vector", "category"]] = "vector"

    @abstractmethod
    def measure(self, documents: NDArray[Any], truth: Truth) -> dict[str, Estimate]:
        """Return (value, standard error) by metric name; metrics undefined for these documents are left out.

        ``documents`` (at least one) are floats of shape [documents, dimensions] or symbols of shape [documents];
        ``truth`` is the true distribution.
        """


T = TypeVar("T", bound=type[Any])


class MetricRegistry(Registry[T]):
    """Registry of kinds that yield metrics; registering a class also defines its metrics (``defined``)."""

    def register(self, kind: str) -> Callable[[T], T]:
        """Return a class decorator that registers a class as ``kind`` and defines its metrics."""
        enter = super().register(kind)

        def enter_and_define(cls: T) -> T:
            define(cls.defined(kind), f"{cls.__module__}.{cls.__qualname__}")
            return enter(cls)

        return enter_and_define


TEXT_METRICS: MetricRegistry[type[TextMetric]] = MetricRegistry("text metric", "ecosystem.metrics.text")
DOCUMENT_METRICS: MetricRegistry[type[DocumentMetric]] = MetricRegistry("document metric")


def sample_groups(texts: pl.Series, words_each: int, groups: int, stream: Stream) -> Groups | None:
    """Shuffle documents and cut their words into at most ``groups`` groups of exactly ``words_each`` words.

    Short texts yield fewer groups. Return None if there are not enough words for two, since one group has no standard
    error. Words are those of :data:`ecosystem.corpus.words.TOKENS`, including punctuation, and case-sensitive.
    """
    order = stream.rng().permutation(texts.len())
    tokens = words(texts.gather(order))
    count = min(groups, tokens.codes.size // words_each)
    return Groups(tokens, words_each, count) if count >= 2 else None


def measure_texts(
    metrics: Iterable[TextMetric], groups: Groups | None, human: Vocabulary | None = None
) -> dict[str, Estimate]:
    """Return the values of all ``metrics`` of the groups; empty without groups."""
    result: dict[str, Estimate] = {}
    if groups is not None:
        for metric in metrics:
            result |= _defined(metric, metric.measure(groups, human))
    return result


def measure_documents(metrics: Iterable[DocumentMetric], documents: NDArray[Any], truth: Truth) -> dict[str, Estimate]:
    """Return the values of all ``metrics`` of the vectors or categories; empty without documents."""
    result: dict[str, Estimate] = {}
    if len(documents):
        for metric in metrics:
            result |= _defined(metric, metric.measure(documents, truth))
    return result


def _defined(metric: Metric, values: dict[str, Estimate]) -> dict[str, Estimate]:
    unknown = values.keys() - metric.definitions.keys()
    if unknown:
        raise DataError(f'The metric kind "{metric.kind}" yields {min(unknown)}, which is not in its definitions.')
    return values
