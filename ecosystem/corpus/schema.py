"""The columns of every table, in one place: what a document carries, and which of it a policy may see.

*Observable* columns are what anybody could see of a document on the web. *Truth* columns are known to the
simulator alone: a policy receives them only if it declares itself an oracle. *Features* are observable
properties of the text, computed once when a document is published (:mod:`ecosystem.corpus.features`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import polars as pl
from numpy.typing import NDArray


class Column(NamedTuple):
    """A column of a table: its type, what it holds, and its unit ("" for names, numbers of things and flags)."""

    dtype: pl.DataType
    text: str
    unit: str = ""


Columns = dict[str, Column]


def _types(columns: Columns) -> dict[str, pl.DataType]:
    return {name: column.dtype for name, column in columns.items()}


_FEATURES: Columns = {
    "words": Column(pl.Int32(), "whitespace-separated words", "words"),
    "mean_word_length": Column(pl.Float32(), "mean length of a word", "characters per word"),
    "symbol_ratio": Column(pl.Float32(), "hash signs and ellipses per word", "symbols per word"),
    "bullet_lines": Column(pl.Float32(), "lines that begin with a bullet", "share of lines"),
    "ellipsis_lines": Column(pl.Float32(), "lines that end with an ellipsis", "share of lines"),
    "alphabetic_words": Column(pl.Float32(), "words with at least one letter", "share of words"),
    "stop_words": Column(pl.Int32(), "distinct ones of: the be to of and that have with", "words"),
    "duplicate_lines": Column(pl.Float32(), "lines that repeat an earlier line of the document", "share of lines"),
    "top_2gram": Column(pl.Float32(), "the most frequent word 2-gram", "share of characters"),
    "top_3gram": Column(pl.Float32(), "the most frequent word 3-gram", "share of characters"),
    "top_4gram": Column(pl.Float32(), "the most frequent word 4-gram", "share of characters"),
    "duplicate_5grams": Column(pl.Float32(), "word 5-grams that occur more than once", "share of characters"),
    "content_hash": Column(pl.UInt64(), "hash of the text in lower case with white space collapsed"),
}

_OBSERVABLE: Columns = {
    "doc": Column(pl.Int64(), "identity, counted from 0 over the life of the web"),
    "t": Column(pl.Int32(), "step of publication; 0 for the web's initial documents", "step"),
    "site": Column(pl.Int32(), "node of the site graph"),
    "size": Column(pl.Int32(), "the text in UTF-8; of vectors and categories, the numbers as stored", "bytes"),
    **_FEATURES,
    "duplicate_of": Column(pl.Int64(), "earliest document with the same content_hash, or null"),
    "retired_at": Column(pl.Int32(), "step at which it left the web, or null", "step"),
    "weight": Column(pl.Float64(), "prominence: multiplies the chance of being scraped", "factor"),
}

_TRUTH: Columns = {
    "author": Column(pl.String(), 'who wrote it: "writers/people/0", "naive/0", or "initial"'),
    "synthetic": Column(pl.Boolean(), "whether a model wrote it"),
    "depth": Column(
        pl.Float64(),
        "distance from human data: 0 if human, else 1 + mean depth of the author's training set",
        "model hops",
    ),
    "model": Column(pl.String(), "name of the model that wrote it, or null"),
    "source": Column(pl.String(), "source that a human document was drawn from, or null"),
    "row": Column(pl.Int64(), "its row in that source, or null"),
}

_PUBLISH: Columns = {
    "verdict": Column(pl.String(), "the policy that refused it at publication, or null"),
    "reason": Column(pl.String(), "why that policy refused it, or null"),
}

_CONTENT: Columns = {
    "content": Column(
        pl.String(),
        "the document itself: text (String), a vector (Array(Float64, d)) or a category (Int32)",
    )
}

_INDEX_CHANGE: Columns = {
    "doc": Column(pl.Int64(), "the document that changed in this step"),
    "retired_at": Column(pl.Int32(), "step at which it left the web, or null", "step"),
    "weight": Column(pl.Float64(), "its prominence from now on", "factor"),
}

_LEDGER: Columns = {
    "reader": Column(pl.String(), 'the trainer, for instance "naive/0"'),
    "document": Column(pl.Int64(), "id on the web, or row in the source for an injected document"),
    "source": Column(pl.String(), "null for a document of the web; the source of an injected one"),
    "verdict": Column(pl.String(), "null if kept, else the name of the policy that refused it"),
    "reason": Column(pl.String(), "why that policy refused it, or null"),
    "weight": Column(pl.Float64(), "its weight in the training set: the product of the weighers' factors", "factor"),
    "synthetic": Column(pl.Boolean(), "whether a model wrote it"),
    "depth": Column(pl.Float64(), "its distance from human data", "model hops"),
    "added_by": Column(pl.String(), "the name of the policy that injected it, else null"),
}

_ARCHIVE: Columns = {
    "reader": Column(pl.String(), "the trainer that keeps it"),
    "document": Column(pl.Int64(), "id on the web, or row in the source for an injected document"),
    "source": Column(pl.String(), "null for a document of the web; the source of an injected one"),
    "t": Column(pl.Int32(), "step at which the trainer acquired it", "step"),
    "weight": Column(pl.Float64(), "its weight in the training set", "factor"),
}

_METRICS: Columns = {
    "step": Column(pl.Int32(), "when it was measured; 0 is the opening of the web", "step"),
    "scope": Column(
        pl.String(), "what it is of: trainer, training_set, web, site, policy, reference, writer, curator or cost"
    ),
    "id": Column(pl.String(), 'which one of these, for instance "naive/0"'),
    "metric": Column(pl.String(), "name of the metric"),
    "value": Column(pl.Float64(), "what was measured", "that of the metric"),
    "error": Column(pl.Float64(), "standard error where the value is an estimate, else null", "that of the metric"),
}

FEATURES = _types(_FEATURES)
OBSERVABLE = _types(_OBSERVABLE)
TRUTH = _types(_TRUTH)
PUBLISH = _types(_PUBLISH)
INDEX = {**OBSERVABLE, **TRUTH, **PUBLISH}
SEGMENT = {**INDEX, **_types(_CONTENT)}
"""Of text; vectors have content of type Array(Float64, d), categories of type Int32 (see :func:`segment`)."""
INDEX_CHANGE = _types(_INDEX_CHANGE)
LEDGER = _types(_LEDGER)
ARCHIVE = _types(_ARCHIVE)
METRICS = _types(_METRICS)

COLUMNS: dict[str, Columns] = {
    "corpus": {**_OBSERVABLE, **_TRUTH, **_PUBLISH, **_CONTENT},
    "index": _INDEX_CHANGE,
    "ledger": _LEDGER,
    "metrics": _METRICS,
    "archive": _ARCHIVE,
}
"""Every table of a run folder with what its columns hold."""


def segment(content: pl.DataType) -> dict[str, pl.DataType]:
    """Return the columns of a segment whose documents have contents of this type."""
    return {**SEGMENT, "content": content}


def empty(columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return a table with these columns and no rows."""
    return _empty(tuple(columns.items()))


@cache  # the same few tables are wanted at every step, and making one takes a millisecond
def _empty(columns: tuple[tuple[str, pl.DataType], ...]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict(columns))


@dataclass(frozen=True)
class Snapshot:
    """Everything a step leaves behind: what the world hands to the store, and gets back on a resume.

    ``state`` is plain JSON (clocks, counters, endorsements, events); ``weights`` holds, per model name, the
    arrays of ``Cohort.state()``; ``archive`` is what trainers keep from earlier scrapes.
    """

    t: int
    segment: pl.DataFrame
    changes: pl.DataFrame
    ledger: pl.DataFrame
    metrics: pl.DataFrame
    archive: pl.DataFrame
    state: dict[str, Any]
    weights: dict[str, dict[str, NDArray[Any]]]
