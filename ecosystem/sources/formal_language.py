"""The source ``process``: an endless formal language with exactly known probabilities.

The effect of collapse on natural text can only be estimated, since the probability of an English sentence is unknown.
Here the truth is a formula, so the distance of a model from it can be computed:

* The lexicon consists of made-up words; the weight of the r-th is proportional to r^-zipf.
* A document has one of several equally likely topics. A topic is a Markov chain over the lexicon, in which every word
  has ``branching`` successors with Zipf probabilities, chosen once (frequent words more often).
* The first word is from a set that begins documents of that topic only. So the text determines the topic, and the
  probability of a document is one product, not a sum over topics.
* The number of words is ``min_words`` plus a geometric number. The last word has a full stop; every other word has one
  with probability 1 / ``sentence_words``.

Every word has equally many successors with the same probabilities, and length, punctuation and words are drawn
independently. So the entropy of a document is an exact sum of closed forms (:class:`Entropy`).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path
from typing import Annotated

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray
from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.sources.base import SOURCES, EndlessSource, Truth
from ecosystem.streams import Stream, Streams

Size = Annotated[int, Field(ge=1, le=10**6)]

_SYLLABLES = ["".join(letters) for letters in product("bdfgklmnprstvz", "aeiou")]  # 70: words can be pronounced


@SOURCES.register("process")
class Process(EndlessSource):
    """An endless formal language of known entropy: a topic mixture of Markov chains over a Zipfian lexicon."""

    lexicon: Annotated[int, Field(ge=1, le=5000)] = Field(500, description="number of words of the language")
    topics: Size = Field(4, description="number of topics (Markov chains), all equally likely")
    branching: Size = Field(8, description="number of successors of every word within a topic")
    zipf: Annotated[float, Field(ge=0, le=10)] = Field(
        1.0, description="exponent of word weights and of successor probabilities; 0: all equal"
    )
    mean_words: Annotated[float, Field(ge=1)] = Field(40.0, description="mean number of words in a document")
    min_words: Size = Field(5, description="smallest number of words in a document")
    sentence_words: Annotated[float, Field(ge=1)] = Field(
        8.0, description="mean number of words from full stop to full stop"
    )

    @model_validator(mode="after")
    def _sizes(self) -> Process:
        if self.topics * self.branching > self.lexicon:
            raise ValueError(
                f"topics x branching = {self.topics * self.branching} must be at most lexicon = {self.lexicon}: every "
                "topic has its own first words; raise lexicon or lower topics or branching"
            )
        if self.mean_words < self.min_words:
            raise ValueError(f"mean_words ({self.mean_words:g}) must be at least min_words ({self.min_words})")
        return self

    def open(self, name: str, streams: Streams, base: Path) -> ProcessReservoir:
        """Make the language from the stream ``source/<name>/language``; never fails."""
        return ProcessReservoir(self, name, streams)


@dataclass(frozen=True)
class Entropy:
    """Exact entropy of one document, in nats, as the sum over its independent choices.

    ``topic``: the chain; ``length``: the number of words; ``first``: the first word, given the topic; ``words``: all
    other words, given the previous ones; ``stops``: the full stops. ``mean_words`` is the exact mean number of words.
    """

    topic: float
    length: float
    first: float
    words: float
    stops: float
    mean_words: float

    @property
    def per_document(self) -> float:
        """Entropy of a document: topic + length + first + words + stops."""
        return self.topic + self.length + self.first + self.words + self.stops

    @property
    def per_word(self) -> float:
        """Entropy of a document over its mean number of words: the rate of a long sequence of documents."""
        return self.per_document / self.mean_words


class ProcessReservoir:
    """An opened language; row i is a function of (seed, source name, language, i) alone."""

    size: int | None = None
    topics: pl.Series | None = None
    truth: Truth | None = None  # of vectors and categories only; the truth of a language is log_likelihood

    def __init__(self, spec: Process, name: str, streams: Streams) -> None:
        """Draw lexicon and chains; ``name`` is the name of the source in the scenario."""
        self.name = name
        self._spec = spec
        self._streams = streams
        language = streams.at(f"source/{name}/language")
        self.words = _lexicon(spec.lexicon, language.child("lexicon"))  # by rank, the most frequent first
        self._spelled = [*self.words, *(f"{word}." for word in self.words)]
        self._place = {token: number for number, token in enumerate(self._spelled)}
        self._zipf = _zipf(spec.branching, spec.zipf)  # probabilities of the successors of any word
        self.first, self.successors = _chains(spec, language.child("chains"))
        self._opening = np.full((spec.lexicon, 2), -1)
        for topic, words in enumerate(self.first):
            self._opening[words] = np.stack([np.full(len(words), topic), np.arange(len(words))], axis=1)
        self._stop = 1.0 / spec.sentence_words
        # The probability that a document ends at each word from min_words onwards.
        self._end = 1.0 / (1.0 + spec.mean_words - spec.min_words)
        self.digest = self._fingerprint()
        self.held_out = self._write(np.arange(int(spec.held_out)), "held_out")

    def rows(self, rows: ArrayLike) -> pl.Series:
        """Return documents by row number, [rows]; raise DataError for negative numbers."""
        index = np.asarray(rows, dtype=np.int64).reshape(-1)
        if index.size and index.min() < 0:
            raise DataError(f"sources.{self.name}: cannot draw row {index.min()}; rows are counted from 0.")
        return self._write(index, "rows")

    def log_likelihood(self, docs: pl.Series) -> NDArray[np.float64]:
        """Compute the exact log-probability of each document in nats; -inf for texts outside the language."""
        texts = [(text or "").split(" ") for text in docs]
        if not texts:
            return np.empty(0)
        token = np.array([self._place.get(word, -1) for words in texts for word in words], dtype=np.int64)
        length = np.array([len(words) for words in texts], dtype=np.int64)
        word, stop = np.where(token < 0, -1, token % self._spec.lexicon), token >= self._spec.lexicon
        first = np.concatenate([[0], np.cumsum(length)[:-1]])
        last = first + length - 1
        doc = np.repeat(np.arange(len(texts)), length)

        # The choice (of `branching`) that gave each word; -1: impossible.
        opening = self._opening[word[first]]  # (topic, choice) of the first words; (-1, -1) begins no document
        topic = np.where(word[first] >= 0, opening[:, 0], -1)
        choice = np.full(len(word), -1)
        before = np.concatenate([[-1], word[:-1]])
        possible = (topic[doc] >= 0) & (before >= 0)
        same = self.successors[topic[doc[possible]], before[possible]] == word[possible, None]
        choice[possible] = np.where(same.any(axis=1), same.argmax(axis=1), -1)
        choice[first] = np.where(topic >= 0, opening[:, 1], -1)

        with np.errstate(divide="ignore"):  # log 0 if sentence_words = 1 requires a stop after every word
            stops = np.log(np.array([1.0 - self._stop, self._stop]))[stop.astype(np.int64)]
        stops[last] = np.where(stop[last], 0.0, -np.inf)
        words = np.where(choice >= 0, np.log(self._zipf)[choice], -np.inf)
        total = np.bincount(doc, weights=words + stops, minlength=len(texts))
        return np.asarray(total + self._log_length(length) - np.log(self._spec.topics), dtype=np.float64)

    def entropy(self) -> Entropy:
        """Compute the exact entropy of a document, by parts."""
        spec, successor = self._spec, _entropy(self._zipf)
        further = spec.mean_words - 1.0
        return Entropy(
            topic=float(np.log(spec.topics)),
            length=_entropy(np.array([self._end, 1.0 - self._end])) / self._end,
            first=successor,
            words=further * successor,
            stops=further * _entropy(np.array([self._stop, 1.0 - self._stop])),
            mean_words=spec.mean_words,
        )

    def _log_length(self, length: NDArray[np.int64]) -> NDArray[np.float64]:
        extra = length - self._spec.min_words
        if self._end == 1.0:
            return np.where(extra == 0, 0.0, -np.inf)
        return np.where(extra >= 0, np.log(self._end) + np.maximum(extra, 0) * np.log1p(-self._end), -np.inf)

    def _write(self, rows: NDArray[np.int64], what: str) -> pl.Series:
        """Write documents, all chains in lockstep; the noise of every choice is keyed by (choice, position, row)."""
        if not rows.size:
            return pl.Series("text", [], dtype=pl.String)
        prefix = f"source/{self.name}/{what}"
        cumulative = np.cumsum(self._zipf)[:-1]
        topic = (self._streams.at(f"{prefix}/topic").uniform(rows) * self._spec.topics).astype(np.int64)
        length = np.full(len(rows), self._spec.min_words)
        if self._end < 1.0:
            u = self._streams.at(f"{prefix}/length").uniform(rows)
            length += np.floor(np.log(u) / np.log1p(-self._end)).astype(np.int64)
        offset = np.concatenate([[0], np.cumsum(length)])
        written = np.empty(offset[-1], dtype=np.int64)
        stopped = np.empty(offset[-1], dtype=bool)
        order = np.argsort(-length, kind="stable")  # longest first: those still being written are a prefix
        alive = np.searchsorted(-length[order], -np.arange(length.max()), side="left")
        word = np.empty(0, dtype=np.int64)
        for position, count in enumerate(alive):
            active = order[:count]
            choice = np.searchsorted(
                cumulative, self._streams.at(f"{prefix}/word", position).uniform(rows[active]), "right"
            )
            if position == 0:
                word = self.first[topic[active], choice]
            else:
                word = self.successors[topic[active], word[:count], choice]
            index = offset[active] + position
            written[index] = word
            stop = self._streams.at(f"{prefix}/stop", position).uniform(rows[active]) < self._stop
            stopped[index] = stop | (length[active] == position + 1)
        tokens = np.array(self._spelled, dtype=object)[written + len(self.words) * stopped]
        texts = [" ".join(tokens[a:b]) for a, b in pairwise(offset)]
        return pl.Series("text", texts, dtype=pl.String)

    def _fingerprint(self) -> str:
        total = hashlib.sha256(repr((sorted(self._spec.defining().items()), self._streams.seed, self.name)).encode())
        total.update(" ".join(self.words).encode())
        for array in (self.first, self.successors):
            total.update(np.ascontiguousarray(array, dtype="<i8").tobytes())
        return total.hexdigest()


def _zipf(n: int, exponent: float) -> NDArray[np.float64]:
    weight = np.arange(1, n + 1, dtype=np.float64) ** -exponent
    return np.asarray(weight / weight.sum(), dtype=np.float64)


def _entropy(p: NDArray[np.float64]) -> float:
    positive = p[p > 0]
    return float(-(positive * np.log(positive)).sum())


def _lexicon(n: int, stream: Stream) -> list[str]:
    """Draw ``n`` different words; as in natural languages, the most frequent ones are shorter."""
    words: list[str] = []
    for syllables, limit in ((1, 40), (2, 3000), (3, n)):
        possible = len(_SYLLABLES) ** syllables
        count = min(limit, n - len(words))
        if count <= 0:
            break
        codes = np.argsort(stream.child(f"{syllables}").uniform(np.arange(possible)), kind="stable")[:count]
        words += ["".join(_SYLLABLES[c // 70**k % 70] for k in range(syllables)) for c in codes.tolist()]
    return words


def _chains(spec: Process, stream: Stream) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw first words, [topics, branching], and successors, [topics, lexicon, branching].

    Successors are a weighted sample without replacement by exponential keys (Efraimidis & Spirakis 2006), so words
    follow roughly in proportion to their weights; the likeliest are first.
    """
    weight = _zipf(spec.lexicon, spec.zipf)
    arrival = -np.log(stream.child("first").uniform(np.arange(spec.lexicon))) / weight
    # Assigned to the topics in turn, so that every topic begins with frequent words.
    first = np.argsort(arrival, kind="stable")[: spec.topics * spec.branching].reshape(spec.branching, spec.topics).T
    successors = np.empty((spec.topics, spec.lexicon, spec.branching), dtype=np.int64)
    block = max(1, 1_000_000 // spec.lexicon)  # words at a time, to limit memory
    for topic in range(spec.topics):
        noise = stream.child(f"{topic}")
        for start in range(0, spec.lexicon, block):
            words = np.arange(start, min(start + block, spec.lexicon))
            pairs = words[:, None] * spec.lexicon + np.arange(spec.lexicon)
            arrival = -np.log(noise.uniform(pairs)) / weight
            chosen = np.argpartition(arrival, spec.branching - 1, axis=1)[:, : spec.branching]
            order = np.argsort(np.take_along_axis(arrival, chosen, axis=1), axis=1)
            successors[topic, words] = np.take_along_axis(chosen, order, axis=1)
    return np.ascontiguousarray(first), successors
