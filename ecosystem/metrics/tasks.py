"""Downstream tasks, made from real documents: questions with a few choices, one of which is right.

An example is a text and what may follow it; a model answers with the choice that it finds likeliest after the text.
So a task is learnt and judged with a language model's own likelihoods, and any language model can be asked, also one
of another program. Training and test examples come from different documents. What is asked is a function of the
documents and of one stream: the order of the documents does not matter.
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

TOPICS = 4  # choices of a question about the topic, at most
WORDS = 4  # choices of a question about the next word
NEIGHBOURS = 12  # words on either side, by frequency, that a wrong word is taken from
SEEN = 5  # times a word must occur in the training documents to be asked for
LENGTH = 200  # characters of a passage, at most

_SENTENCE = re.compile(r"(?<=[.!?]) +(?=[A-Z])|\n+")
_ASKED = re.compile(r"(?<= )[A-Za-z]{2,}(?=[ .,;:])")


class Document(NamedTuple):
    """A real document and the topic that its source gives it, if it does."""

    text: str
    topic: str | None = None


class Example(NamedTuple):
    """A question: the text, what may follow it, and the number of the right choice."""

    text: str
    choices: tuple[str, ...]
    answer: int


class Task(Spec):
    """A way to turn documents into examples, with right answers evenly spread over the choices."""

    asks: ClassVar[str] = ""  # what the choices are, in a few words; empty: the kind's name
    needs_topics: ClassVar[bool] = False
    relative: ClassVar[bool] = False  # judge a choice by what the text adds to its likelihood, not by that itself

    @abstractmethod
    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, known: Sequence[Document]
    ) -> list[Example]:
        """Return ``n`` examples of ``docs``, or as many as there can be; ``known``: the training documents."""

    @classmethod
    def defined(cls, kind: str) -> dict[str, Definition]:
        """Return the metrics of the task: the accuracy after fine-tuning, and without."""
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
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, known: Sequence[Document]
    ) -> list[Example]:
        """Return equally many passages of every topic."""
        counts = Counter(doc.topic for doc in known if doc.topic is not None)
        topics = [topic for topic, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:TOPICS]]
        if len(topics) < 2:
            return []
        passages = [
            _turns([[p for p in _pieces(d.text, LENGTH) if len(p) > 40] for d in docs if d.topic == topic])
            for topic in topics
        ]
        choices = tuple(f" {topic}" for topic in topics)
        asked = min(n, min(map(len, passages)) * len(topics))
        return [
            Example(f"{passages[i % len(topics)][i // len(topics)]}\n\nTopic:", choices, i % len(topics))
            for i in range(asked)
        ]


@TASKS.register("next_sentence")
class NextSentence(Task):
    """How a passage goes on: with its own next sentence, or with one of another document that is about as long.

    Sentences differ in how likely they are in themselves, so a choice is judged by what the passage adds to it (the
    pointwise mutual information of the two).
    """

    asks: ClassVar[str] = "a passage's next sentence or one of another document"
    relative: ClassVar[bool] = True

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, known: Sequence[Document]
    ) -> list[Example]:
        """Return passages of up to 150 characters, and sentences that are cut after 100."""
        breaks = [[(d, before, after) for before, after in _breaks(d.text)] for d in docs]
        pairs = _turns([_shuffled(found, rng) for found in breaks])
        if len({doc.text for doc, _, _ in pairs}) < 2:
            return []
        made = []
        for i, (doc, before, after) in enumerate(pairs[:n]):
            others = [pairs[j] for j in rng.integers(len(pairs), size=12)]
            others = [pair for pair in others if pair[2] not in doc.text] or [p for p in pairs if p[0].text != doc.text]
            other = min((pair[2] for pair in others), key=lambda text: abs(len(text) - len(after)))
            made.append(_asked(before, f" {after}", [f" {other}"], i))
        return made


@TASKS.register("word_order")
class WordOrder(Task):
    """Which of two sentences a person wrote: one as it stands, or the same with two words swapped."""

    asks: ClassVar[str] = "a sentence as written or with two words swapped"

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, known: Sequence[Document]
    ) -> list[Example]:
        """Return sentences of 6 words to 160 characters; the first word and the last stay where they are."""
        found = [[s for s in _sentences(doc.text) if len(s.split()) > 5 and len(s) <= 160] for doc in docs]
        made: list[Example] = []
        for sentence in _turns([_shuffled(sentences, rng) for sentences in found]):
            words = sentence.split()
            first, second = np.sort(1 + rng.permutation(len(words) - 2)[:2]).tolist()
            if words[first].lower() != words[second].lower() and len(made) < n:
                words[first], words[second] = words[second], words[first]
                made.append(_asked("", " ".join(sentence.split()), [" ".join(words)], len(made)))
        return made


@TASKS.register("next_word")
class NextWord(Task):
    """Which word a passage goes on with: its own next one, or one of three that people use about as often."""

    asks: ClassVar[str] = "a passage's next word or one of three as frequent"

    def examples(
        self, docs: Sequence[Document], n: int, rng: np.random.Generator, known: Sequence[Document]
    ) -> list[Example]:
        """Return passages of 40 to 200 characters, broken off before a word that the training documents know."""
        counts = Counter(word for doc in known for word in _ASKED.findall(doc.text))
        usual = [w for w, c in sorted(counts.items(), key=lambda item: (-item[1], item[0])) if c >= SEEN]
        if len(usual) <= 2 * NEIGHBOURS:
            return []
        rank = {word: i for i, word in enumerate(usual)}
        places = [[(d.text, m) for m in _ASKED.finditer(d.text, 40, LENGTH) if m.group() in rank] for d in docs]
        made = []
        for i, (text, match) in enumerate(_turns([_shuffled(found, rng) for found in places])[:n]):
            at = rank[match.group()]
            low = min(max(0, at - NEIGHBOURS), len(usual) - 2 * NEIGHBOURS - 1)
            near = [word for word in usual[low : low + 2 * NEIGHBOURS + 1] if word != match.group()]
            wrong = [f" {near[j]}" for j in rng.permutation(len(near))[: WORDS - 1].tolist()]
            made.append(_asked(text[: match.start()].rstrip(" "), f" {match.group()}", wrong, i))
        return made


def make(
    kind: str, docs: pl.Series, topics: pl.Series | None, train: int, test: int, stream: Stream
) -> tuple[list[Example], list[Example]]:
    """Return (training examples, test examples) of the task ``kind`` from real documents.

    ``topics``: of each document, where the source knows them. Documents are dealt to training and test in proportion
    to the examples asked for, by the luck of each text; raises DataError if they do not yield as many.
    """
    task = TASKS.get(kind)()
    named = [None] * docs.len() if topics is None else topics.to_list()
    dealt = _dealt([Document(text, topic) for text, topic in zip(docs.to_list(), named, strict=True)], stream)
    border = round(len(dealt) * test / (train + test))
    parts = {"test": (dealt[:border], test), "train": (dealt[border:], train)}
    made = {}
    for part, (own, n) in parts.items():
        made[part] = task.examples(own, n, stream.child(f"{kind}/{part}").rng(), dealt[border:])
        if len(made[part]) < n:
            raise DataError(
                f'measure.downstream: the task "{kind}" needs {train} examples to train on and {test} to test on, but '
                f"{len(dealt):,} real documents that are never published, dealt to both, yield {len(made[part])} to "
                f"{part} on; raise held_out of the source that the web begins with, or lower measure.downstream.train "
                "or test."
            )
    return made["train"], made["test"]


def accuracy(
    nats: NDArray[np.float64], alone: NDArray[np.float64] | None, examples: Sequence[Example]
) -> tuple[Estimate, NDArray[np.bool_]]:
    """Return the accuracy with its standard error over examples, and which answers were right, [examples].

    ``nats``: minus the log-likelihood of every choice of every example after its text, one after the other;
    ``alone``: the same without the text, for tasks that are judged relative to it.
    """
    found = nats if alone is None else nats - alone
    ends = np.cumsum([len(example.choices) for example in examples])
    answers = [int(np.argmin(part)) for part in np.split(found, ends[:-1])]
    right = np.array([answer == example.answer for answer, example in zip(answers, examples, strict=True)])
    return mean_and_error(right), right


def chance(examples: Sequence[Example]) -> float:
    """Return the accuracy of guessing."""
    return float(np.mean([1 / len(example.choices) for example in examples]))


def _asked(text: str, right: str, wrong: Sequence[str], number: int) -> Example:
    """Return an example whose right choice stands at a place that rises with its number."""
    answer = number % (len(wrong) + 1)
    return Example(text, (*wrong[:answer], right, *wrong[answer:]), answer)


def _dealt(docs: Iterable[Document], stream: Stream) -> list[Document]:
    """Return documents by the luck of their texts, each text once."""
    unique = list({doc.text: doc for doc in docs}.values())
    digests = [hashlib.blake2b(doc.text.encode(), digest_size=8).digest() for doc in unique]
    keys = np.array([int.from_bytes(digest, "little") >> 1 for digest in digests], dtype=np.int64)
    return [unique[i] for i in np.argsort(stream.child("deal").uniform(keys), kind="stable").tolist()]


def _shuffled(items: Sequence[T], rng: np.random.Generator) -> list[T]:
    return [items[i] for i in rng.permutation(len(items)).tolist()]


def _turns(lists: Sequence[Sequence[T]]) -> list[T]:
    """Return the first item of every list, then the second of each, …: as many documents as possible come first."""
    longest = max(map(len, lists), default=0)
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]


def _pieces(text: str, limit: int) -> list[str]:
    """Return a text in pieces of at most ``limit`` characters (or of one word), parted between words."""
    pieces = [""]
    for word in re.findall(r"\S+\s*", text):
        if pieces[-1] and len(pieces[-1]) + len(word.rstrip()) > limit:
            pieces.append("")
        pieces[-1] += word
    return [piece.strip() for piece in pieces if piece.strip()]


def _sentences(text: str) -> list[str]:
    """Return the whole sentences of a text: they begin with a capital, end with a mark and are no lists of names."""
    whole = [s for s in _SENTENCE.split(text) if s[:1].isupper() and s[-1:] in (".", "!", "?")]
    return [s for s in whole if sum(c.islower() or c == " " for c in s) > 0.85 * len(s)]


def _breaks(text: str) -> list[tuple[str, str]]:
    """Return what stands before (its last 150 characters) and after (the first 100) every sentence but the first."""
    found = []
    for border in _SENTENCE.finditer(text):
        before, after = text[: border.start()], _SENTENCE.split(text[border.end() :])[0]
        if len(before) >= 40 and len(after.split()) >= 5:
            found.append((_last(before, 150), _pieces(after, 100)[0]))
    return found


def _last(text: str, limit: int) -> str:
    """Return the last words of a text, ``limit`` characters at most where they can be parted."""
    return text if len(text) <= limit else text[-limit:].split(" ", 1)[-1]
