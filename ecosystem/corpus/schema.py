"""The columns of every table, in one place: what a document carries, and which of it a policy may see.

*Observable* columns are what anybody could see of a document on the web. *Truth* columns are known to the
simulator alone: a policy receives them only if it declares itself an oracle. *Features* are observable
properties of the text, computed once when a document is published (:mod:`ecosystem.corpus.features`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import polars as pl
from numpy.typing import NDArray

FEATURES: dict[str, pl.DataType] = {
    "words": pl.Int32(),  # whitespace-separated words
    "mean_word_length": pl.Float32(),  # characters per word
    "symbol_ratio": pl.Float32(),  # hash signs and ellipses per word
    "bullet_lines": pl.Float32(),  # share of lines that begin with a bullet
    "ellipsis_lines": pl.Float32(),  # share of lines that end with an ellipsis
    "alphabetic_words": pl.Float32(),  # share of words with at least one letter
    "stop_words": pl.Int32(),  # distinct ones of: the be to of and that have with
    "duplicate_lines": pl.Float32(),  # share of lines that repeat an earlier line of the document
    "top_2gram": pl.Float32(),  # share of characters in the most frequent word 2-gram
    "top_3gram": pl.Float32(),
    "top_4gram": pl.Float32(),
    "duplicate_5grams": pl.Float32(),  # share of characters in word 5-grams that occur more than once
    "content_hash": pl.UInt64(),  # of the text in lower case with white space collapsed
}

OBSERVABLE: dict[str, pl.DataType] = {
    "doc": pl.Int64(),  # identity, counted from 0 over the life of the web
    "t": pl.Int32(),  # step of publication; 0 for the web's initial documents
    "site": pl.Int32(),  # node of the site graph
    "size": pl.Int32(),  # bytes of the text in UTF-8
    **FEATURES,
    "duplicate_of": pl.Int64(),  # earliest document with the same content_hash, or null
    "retired_at": pl.Int32(),  # step at which it left the web, or null
    "weight": pl.Float64(),  # prominence: multiplies the chance of being scraped
}

TRUTH: dict[str, pl.DataType] = {
    "author": pl.String(),  # "writers/people/0", "naive/0", or "initial"
    "synthetic": pl.Boolean(),
    "depth": pl.Float64(),  # model hops back to human data: 0 if human, else 1 + mean depth of the training set
    "model": pl.String(),  # name of the model that wrote it, or null
    "source": pl.String(),  # source that a human document was drawn from, or null
    "row": pl.Int64(),  # its row in that source, or null
}

PUBLISH = {"verdict": pl.String(), "reason": pl.String()}  # null, or the policy that refused it at the door, and why

INDEX = {**OBSERVABLE, **TRUTH, **PUBLISH}
SEGMENT = {**INDEX, "content": pl.String()}
"""Of text; vectors have content of type Array(Float64, d), categories of type Int32 (see :func:`segment`)."""

INDEX_CHANGE: dict[str, pl.DataType] = {"doc": pl.Int64(), "retired_at": pl.Int32(), "weight": pl.Float64()}

LEDGER: dict[str, pl.DataType] = {
    "reader": pl.String(),  # the trainer
    "document": pl.Int64(),  # id on the web, or row in the source for an injected document
    "source": pl.String(),  # null for a document of the web; the source of an injected one
    "verdict": pl.String(),  # null if kept, else the name of the policy that refused it
    "reason": pl.String(),
    "weight": pl.Float64(),
    "synthetic": pl.Boolean(),
    "depth": pl.Float64(),
    "added_by": pl.String(),  # the name of the policy that injected it, else null
}

ARCHIVE: dict[str, pl.DataType] = {
    "reader": pl.String(),
    "document": pl.Int64(),
    "source": pl.String(),
    "t": pl.Int32(),  # step at which the trainer acquired it
    "weight": pl.Float64(),
}

METRICS: dict[str, pl.DataType] = {
    "step": pl.Int32(),
    "scope": pl.String(),  # trainer, training_set, web, site, policy, reference, writer, curator, cost
    "id": pl.String(),
    "metric": pl.String(),
    "value": pl.Float64(),
    "error": pl.Float64(),  # standard error where the value is an estimate, else null
}


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
