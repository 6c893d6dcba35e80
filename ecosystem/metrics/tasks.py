"""Downstream tasks made from real documents: multiple-choice questions with one correct answer.

An example is a text and its possible continuations; the model's answer is the continuation with the highest likelihood
after the text. A task therefore works with any language model, including those of other programs. Training and test
examples come from different documents. Examples depend on the set of documents and on one stream, not on the order of
the documents.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.errors import DataError
from ecosystem.metrics.base import Definition, MetricRegistry
from ecosystem.metrics.estimates import Estimate, mean_and_error
from ecosystem.spec import Spec
from ecosystem.streams import Stream

T = TypeVar("T")

TOPICS = 4  # maximum number of choices of a topic question
WORDS = 4  # number of choices of a next-word question
NEIGHBOURS = 12  # number of words on either side, by frequency, from which wrong words are drawn
SEEN = 5  # minimum count in the training documents of a word used as an answer
LENGTH = 200  # maximum length of a passage in characters

_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])|\n+")
_WORD = re.compile(r"(?<= )[A-Za-z]{2,}(?=[ .,;:])")


class Document(NamedTuple):
    """A real document and its topic, if the source has topics."""

    text: str
    topic: str | None = None


class Example(NamedTuple):
    """A question: the text, the possible continuations, and the index of the correct one."""

    text: str
    choices: tuple[str, ...]
    answer: int


class Task(Spec):
    """Base class of tasks: turns documents into examples whose correct answers are spread evenly over the choices."""

    asks: ClassVar[str] = ""  # the question in a few words; empty: the kind's name
    needs_topics: ClassVar[bool] = False
    relative: ClassVar[bool] = False  # score a choice by what the text adds to its log-likelihood

    @abstractmethod
    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, training: Sequence[Document]
    ) -> list[Example]:
        """Return ``n`` examples from ``docs``, or fewer if ``docs`` yields fewer; ``training``: training documents."""

    @classmethod
    def defined(cls, kind: str) -> dict[str, Definition]:
        """Return the definitions of the task's metrics: accuracy with and without fine-tuning."""
        asks = cls.asks or kind.replace("_", " ")
        tuned = f"share of right answers after fine-tuning from the model's present weights: {asks}"
        untuned = f"share of right answers of the model as it is: {asks}"
        formula = "Σ ⟦the likeliest choice is the right one⟧ / examples"
        return {
            f"accuracy_{kind}": Definition("1", "down", tuned, formula=formula),
            f"zero_shot_{kind}": Definition("1", "down", untuned, formula=formula),
        }


TASKS: MetricRegistry[type[Task]] = MetricRegistry("task", "ecosystem.metrics.tasks")


@TASKS.register("topic")
class Topic(Task):
    """Which part of its source a passage of up to 200 characters comes from: one of the four largest."""

    asks: ClassVar[str] = "which part of its source a passage comes from"
    needs_topics: ClassVar[bool] = True

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, training: Sequence[Document]
    ) -> list[Example]:
        """Return the same number of passages for every topic."""
        counts = Counter(doc.topic for doc in training if doc.topic is not None)
        topics = [topic for topic, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOPICS]]
        if len(topics) < 2:
            return []
        passages = [
            _interleaved([[p for p in _pieces(d.text, LENGTH) if len(p) > 40] for d in docs if d.topic == topic])
            for topic in topics
        ]
        choices = tuple(f" {topic}" for topic in topics)
        size = min(n, min(map(len, passages)) * len(topics))
        return [
            Example(f"{passages[i % len(topics)][i // len(topics)]}\n\nTopic:", choices, i % len(topics))
            for i in range(size)
        ]


@TASKS.register("next_sentence")
class NextSentence(Task):
    """How a passage continues: with its own next sentence, or with one of similar length from another document.

    Some sentences are likelier than others in any context, so a choice is scored by what the passage adds to its
    log-likelihood (the pointwise mutual information of the two).
    """

    asks: ClassVar[str] = "a passage's next sentence or one of another document"
    relative: ClassVar[bool] = True

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, training: Sequence[Document]
    ) -> list[Example]:
        """Return passages of up to 150 characters, and sentences that are cut after 100."""
        breaks = [[(d, before, after) for before, after in _breaks(d.text)] for d in docs]
        pairs = _interleaved([_shuffled(triples, rng) for triples in breaks])
        if len({doc.text for doc, _, _ in pairs}) < 2:
            return []
        made = []
        for i, (doc, before, after) in enumerate(pairs[:n]):
            others = [pairs[j] for j in rng.integers(len(pairs), size=12)]
            others = [pair for pair in others if pair[2] not in doc.text] or [p for p in pairs if p[0].text != doc.text]
            other = min((pair[2] for pair in others), key=lambda text: abs(len(text) - len(after)))
            made.append(_example(before, f" {after}", [f" {other}"], i))
        return made


@TASKS.register("word_order")
class WordOrder(Task):
    """Which of two sentences a person wrote: the original, or the same with two words swapped."""

    asks: ClassVar[str] = "a sentence as written or with two words swapped"

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, training: Sequence[Document]
    ) -> list[Example]:
        """Return sentences of at least 6 words and at most 160 characters; the first and last words stay in place."""
        candidates = [[s for s in _sentences(doc.text) if len(s.split()) > 5 and len(s) <= 160] for doc in docs]
        made: list[Example] = []
        for sentence in _interleaved([_shuffled(sentences, rng) for sentences in candidates]):
            words = sentence.split()
            first, second = np.sort(1 + rng.permutation(len(words) - 2)[:2]).tolist()
            if words[first].lower() != words[second].lower() and len(made) < n:
                words[first], words[second] = words[second], words[first]
                made.append(_example("", " ".join(sentence.split()), [" ".join(words)], len(made)))
        return made


@TASKS.register("next_word")
class NextWord(Task):
    """Which word continues a passage: its own next word, or one of three that people use about as often."""

    asks: ClassVar[str] = "a passage's next word or one of three as frequent"

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, training: Sequence[Document]
    ) -> list[Example]:
        """Return passages of 40 to 200 characters that end before a word of the training documents."""
        counts = Counter(word for doc in training for word in _WORD.findall(doc.text))
        usual = [w for w, c in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if c >= SEEN]
        if len(usual) <= 2 * NEIGHBOURS:
            return []
        rank = {word: i for i, word in enumerate(usual)}
        places = [[(d.text, m) for m in _WORD.finditer(d.text, 40, LENGTH) if m.group() in rank] for d in docs]
        made = []
        for i, (text, match) in enumerate(_interleaved([_shuffled(matches, rng) for matches in places])[:n]):
            at = rank[match.group()]
            low = min(max(0, at - NEIGHBOURS), len(usual) - 2 * NEIGHBOURS - 1)
            near = [word for word in usual[low : low + 2 * NEIGHBOURS + 1] if word != match.group()]
            wrong = [f" {near[j]}" for j in rng.permutation(len(near))[: WORDS - 1].tolist()]
            made.append(_example(text[: match.start()].rstrip(" "), f" {match.group()}", wrong, i))
        return made


def make(
    kind: str, docs: pl.Series, topics: pl.Series | None, train: int, test: int, stream: Stream
) -> tuple[list[Example], list[Example]]:
    """Return (training examples, test examples) of the task ``kind`` from real documents.

    ``topics`` are those of the documents, if the source has topics. Documents are split at random between training and
    test in proportion to ``train`` and ``test``; the split depends on each text and the stream only. Raise DataError if
    they do not yield enough examples.
    """
    task = TASKS.get(kind)()
    named = [None] * docs.len() if topics is None else topics.to_list()
    shuffled = _split_order([Document(text, topic) for text, topic in zip(docs.to_list(), named, strict=True)], stream)
    border = round(len(shuffled) * test / (train + test))
    parts = {"test": (shuffled[:border], test), "train": (shuffled[border:], train)}
    made = {}
    for part, (documents, n) in parts.items():
        made[part] = task.examples(documents, n, stream.child(f"{kind}/{part}").rng(), shuffled[border:])
        if len(made[part]) < n:
            raise DataError(
                f'measure.downstream: the task "{kind}" needs {train} examples to train on and {test} to test on, but '
                f"{len(shuffled):,} real documents that are never published, split between both, yield "
                f"{len(made[part])} to {part} on; raise held_out of the source that the web begins with, or lower "
                "measure.downstream.train or test."
            )
    return made["train"], made["test"]


def accuracy(
    nats: NDArray[np.float64], alone: NDArray[np.float64] | None, examples: Sequence[Example]
) -> tuple[Estimate, NDArray[np.bool_]]:
    """Return the accuracy with its standard error over examples, and whether each answer was correct, [examples].

    ``nats`` are the negative log-likelihoods of the choices after their texts, example by example; ``alone`` are those
    without the texts, for tasks that are scored relative to them.
    """
    scores = nats if alone is None else nats - alone
    ends = np.cumsum([len(example.choices) for example in examples])
    answers = [int(np.argmin(part)) for part in np.split(scores, ends[:-1])]
    right = np.array([answer == example.answer for answer, example in zip(answers, examples, strict=True)])
    return mean_and_error(right), right


def chance(examples: Sequence[Example]) -> float:
    """Return the accuracy of random guessing."""
    return float(np.mean([1 / len(example.choices) for example in examples]))


def _example(text: str, right: str, wrong: Sequence[str], number: int) -> Example:
    """Return an example; the position of the correct choice cycles with ``number``."""
    answer = number % (len(wrong) + 1)
    return Example(text, (*wrong[:answer], right, *wrong[answer:]), answer)


def _split_order(docs: Iterable[Document], stream: Stream) -> list[Document]:
    """Return distinct documents in a random order that depends on their texts and the stream only."""
    unique = list({doc.text: doc for doc in docs}.values())
    digests = [hashlib.blake2b(doc.text.encode(), digest_size=8).digest() for doc in unique]
    keys = np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], dtype=np.int64)
    return [unique[i] for i in np.argsort(stream.child("deal").uniform(keys), kind="stable").tolist()]


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[i] for i in rng.permutation(len(items)).tolist()]


def _interleaved(lists: Sequence[Sequence[T]]) -> list[T]:
    """Interleave lists: the first item of each, then the second of each, …, so that most documents come early."""
    longest = max(map(len, lists), default=0)
    return [items[i] for i in range(longest) for items in lists if i < len(items)]


def _pieces(text: str, limit: int) -> list[str]:
    """Split a text between words into pieces of at most ``limit`` characters (or of one longer word)."""
    pieces = [""]
    for word in re.findall(r"\S+\s*", text):
        if pieces[-1] and len(pieces[-1]) + len(word.rstrip()) > limit:
            pieces.append("")
        pieces[-1] += word
    return [piece.strip() for piece in pieces if piece.strip()]


def _sentences(text: str) -> list[str]:
    """Return the complete sentences of a text, from a capital to a mark, except lists of names."""
    sentences = [s for s in _SENTENCE.split(text) if s[:1].isupper() and s[-1:] in (".", "!", "?")]
    return [s for s in sentences if sum(c.islower() or c == " " for c in s) > 0.85 * len(s)]


def _breaks(text: str) -> list[tuple[str, str]]:
    """Return the text before each sentence break (last 150 characters) and the sentence after it (first 100)."""
    breaks = []
    for border in _SENTENCE.finditer(text):
        before, after = text[: border.start()], _SENTENCE.split(text[border.end() :])[0]
        if len(before) >= 40 and len(after.split()) >= 5:
            breaks.append((_last(before, 150), _pieces(after, 100)[0]))
    return breaks


def _last(text: str, limit: int) -> str:
    """Return the last words of a text, at most ``limit`` characters unless a word is longer."""
    return text if len(text) <= limit else text[-limit:].split(" ", 1)[-1]
