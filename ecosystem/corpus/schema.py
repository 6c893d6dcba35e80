"""The columns of all tables, and their visibility to policies.

*Observable* columns are visible to every reader of the web. *Truth* columns are known to the simulator alone; only
policies that declare themselves oracles receive them. *Features* are observable properties of the text, computed once,
at publication (:mod:`ecosystem.corpus.features`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import polars as pl
from numpy.typing import NDArray


class Column(NamedTuple):
    """A column of a table: its type, its description, and its unit ("" for names, counts and flags)."""

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
    "stop_words": Column(pl.Int32(), "number of different stop words among: the be to of and that have with", "words"),
    "duplicate_lines": Column(pl.Float32(), "lines that repeat an earlier line of the document", "share of lines"),
    "top_2gram": Column(pl.Float32(), "the most frequent word 2-gram", "share of characters"),
    "top_3gram": Column(pl.Float32(), "the most frequent word 3-gram", "share of characters"),
    "top_4gram": Column(pl.Float32(), "the most frequent word 4-gram", "share of characters"),
    "duplicate_5grams": Column(pl.Float32(), "word 5-grams that occur more than once", "share of characters"),
    "content_hash": Column(pl.UInt64(), "hash of the text in lower case with white space collapsed"),
}

_OBSERVABLE: Columns = {
    "doc": Column(pl.Int64(), "id of the document, counted from 0 over the whole run"),
    "t": Column(pl.Int32(), "step of publication; 0 for the web's initial documents", "step"),
    "site": Column(pl.Int32(), "node of the site graph"),
    "size": Column(pl.Int32(), "size of the text in UTF-8, or of the stored numbers of a vector or category", "bytes"),
    **_FEATURES,
    "duplicate_of": Column(pl.Int64(), "earliest document with the same content_hash, or null if this is the first"),
    "retired_at": Column(pl.Int32(), "step at which it left the web, or null", "step"),
    "weight": Column(pl.Float64(), "prominence: multiplies the chance of being scraped", "factor"),
}

_TRUTH: Columns = {
    "author": Column(pl.String(), 'author: a writer ("writers/people/0"), a trainer ("naive/0"), or "initial"'),
    "synthetic": Column(pl.Boolean(), "whether a model wrote it, or some of it"),
    "depth": Column(
        pl.Float64(),
        "distance from human data: 0 if human, else 1 + mean depth of the author's training set; of a human document "
        "that a model has rewritten, the share of its tokens that were changed; of a mixed document, 1 + that mean "
        "depth, times ai_share",
        "model hops",
    ),
    "model": Column(pl.String(), "name of the model that wrote or rewrote it, or null if human"),
    "source": Column(pl.String(), "source that a human document or part was drawn from, or null if there is none"),
    "row": Column(pl.Int64(), "row in that source, or null"),
}

_ASSISTED: Columns = {
    "ai_share": Column(
        pl.Float64(),
        "share of the content that a model wrote; only in runs whose writers may use AI",
        "share of content",
    ),
    "assistant": Column(
        pl.String(), "trainer whose model a writer used, or null; only in runs whose writers may use AI"
    ),
}

_PUBLISH: Columns = {
    "verdict": Column(pl.String(), "name of the policy that refused it at publication, or null if published"),
    "reason": Column(pl.String(), "reason of the refusal, or null"),
}

_CONTENT: Columns = {
    "content": Column(
        pl.String(),
        "content of the document: text (String), a vector (Array(Float64, d)) or a category (Int32)",
    )
}

_INDEX_CHANGE: Columns = {
    "doc": Column(pl.Int64(), "id of a document that changed in this step"),
    "retired_at": Column(pl.Int32(), "step at which it left the web, or null", "step"),
    "weight": Column(pl.Float64(), "prominence after the change", "factor"),
}

_LEFT: Columns = {
    "left_by": Column(
        pl.String(),
        'why it left the web: "page died", "site died", a curator ("curators/editors/0") or the name of a policy; null '
        "if it has not; only in runs whose web has types of sites",
    )
}

_LEDGER: Columns = {
    "reader": Column(pl.String(), 'name of the trainer, for instance "naive/0"'),
    "document": Column(pl.Int64(), "id on the web, or row in the source for an injected document"),
    "source": Column(pl.String(), "null for a document of the web; the source of an injected one"),
    "verdict": Column(pl.String(), "name of the policy that refused it, or null if kept"),
    "reason": Column(pl.String(), "reason of the refusal, or null"),
    "weight": Column(pl.Float64(), "weight in the training set: the product of the factors of all weighers", "factor"),
    "synthetic": Column(pl.Boolean(), "whether a model wrote it"),
    "depth": Column(pl.Float64(), "distance from human data", "model hops"),
    "added_by": Column(pl.String(), "name of the policy that injected it, or null"),
}

_ARCHIVE: Columns = {
    "reader": Column(pl.String(), "name of the trainer that keeps it"),
    "document": Column(pl.Int64(), "id on the web, or row in the source for an injected document"),
    "source": Column(pl.String(), "null for a document of the web; the source of an injected one"),
    "t": Column(pl.Int32(), "step at which the trainer acquired it", "step"),
    "weight": Column(pl.Float64(), "weight in the training set", "factor"),
}

_METRICS: Columns = {
    "step": Column(pl.Int32(), "step of the measurement; 0 is the opening of the web", "step"),
    "scope": Column(
        pl.String(),
        "sort of thing measured: trainer, training_set, web, site, site_type, instrument, policy, reference, writer, "
        "community, curator, cost or domain",
    ),
    "id": Column(
        pl.String(),
        'name of the thing measured, for instance "naive/0"; of a domain, the trainer and the domain: "naive/0/docs"',
    ),
    "metric": Column(pl.String(), "name of the metric"),
    "value": Column(pl.Float64(), "measured value", "unit of the metric"),
    "error": Column(pl.Float64(), "standard error where the value is an estimate, else null", "unit of the metric"),
}

_TIMINGS: Columns = {
    "phase": Column(
        pl.String(), "phase of the step: write to measure; of step 0, foundations, opening or measure; or changes"
    ),
    "id": Column(
        pl.String(), 'agent that the time was spent on, as a path ("trainers/naive/0"), or "web" for the rest'
    ),
    "seconds": Column(
        pl.Float64(),
        "wall time; that of a cohort is divided among its trainers by the tokens that they train on or write",
        "s",
    ),
}

FEATURES = _types(_FEATURES)
OBSERVABLE = _types(_OBSERVABLE)
TRUTH = _types(_TRUTH)
ASSISTED = _types(_ASSISTED)
"""Columns of a segment, beside those of SEGMENT, in a run whose writers may use AI."""
PUBLISH = _types(_PUBLISH)
INDEX = {**OBSERVABLE, **TRUTH, **PUBLISH}
SEGMENT = {**INDEX, **_types(_CONTENT)}
"""Columns of text documents; :func:`segment` returns those of vectors and categories."""
INDEX_CHANGE = _types(_INDEX_CHANGE)
LEFT = _types(_LEFT)
"""Columns of index changes, beside those of INDEX_CHANGE, in a run whose web has types of sites."""
LEDGER = _types(_LEDGER)
ARCHIVE = _types(_ARCHIVE)
METRICS = _types(_METRICS)
TIMINGS = _types(_TIMINGS)

COLUMNS: dict[str, Columns] = {
    "corpus": {**_OBSERVABLE, **_TRUTH, **_PUBLISH, **_CONTENT, **_ASSISTED},
    "index": {**_INDEX_CHANGE, **_LEFT},
    "ledger": _LEDGER,
    "metrics": _METRICS,
    "archive": _ARCHIVE,
    "timings": _TIMINGS,
}
"""Every table of a run folder, with its columns."""


def segment(content: pl.DataType, assisted: bool = False) -> dict[str, pl.DataType]:
    """Return the columns of a segment of documents with this type; ``assisted``: by writers who may use AI."""
    return {**SEGMENT, "content": content, **(ASSISTED if assisted else {})}


def empty(columns: dict[str, pl.DataType]) -> pl.DataFrame:
    """Return an empty table with these columns."""
    return _empty(tuple(columns.items()))


@cache  # every step needs the same few tables, and creating one takes a millisecond
def _empty(columns: tuple[tuple[str, pl.DataType], ...]) -> pl.DataFrame:
    return pl.DataFrame(schema=dict(columns))


@dataclass(frozen=True)
class Snapshot:
    """Everything that the store writes after a step.

    ``segment`` holds the documents of the step; it is empty after an opening in batches.
    ``state`` is plain JSON (clocks, counters, endorsements, events); ``weights`` holds the arrays of ``Cohort.state()``
    by model name; ``archive`` holds the earlier selections that trainers keep. ``timings`` are not reproducible, so no
    record lists them.
    """

    t: int
    segment: pl.DataFrame
    changes: pl.DataFrame
    ledger: pl.DataFrame
    metrics: pl.DataFrame
    archive: pl.DataFrame
    state: dict[str, Any]
    weights: Mapping[str, Mapping[str, NDArray[Any]]]
    timings: pl.DataFrame | None = None


@dataclass(frozen=True)
class History:
    """Everything that a resumed world is restored from.

    ``latest`` is the snapshot of the last step. ``segments`` are the documents of all steps in order, in ``files``
    parts that are read as they are needed, and ``changes`` the changes of all steps in order.
    """

    latest: Snapshot
    files: int
    segments: Iterable[pl.DataFrame]
    changes: pl.DataFrame
