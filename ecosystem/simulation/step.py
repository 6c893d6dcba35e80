"""The tables passed between the phases of a step, and the drafts of writers and trainers."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.schema import LEDGER, SEGMENT, empty
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.families.requests import FitRecord, Rewritten, WriteRecord
from ecosystem.simulation.agents import Writer

DRAFT = {name: SEGMENT[name] for name in ("site", "author", "synthetic", "depth", "model", "source", "row", "content")}


@dataclass
class Planned:
    """The documents that a population of writers who adopt AI has planned for a step, in the order of its writers.

    ``slot`` is their place among the drafts of the step. ``documents`` has a table of each writer: author, writer (its
    number), site, ai_share (wanted), row (of the source; -1: no human part) and noise. ``without_model`` counts those
    that people write themselves, for lack of a model.
    """

    slot: int
    documents: list[pl.DataFrame]
    without_model: int = 0


@dataclass
class Step:
    """The data passed between the phases of one step."""

    t: int
    drafts: list[pl.DataFrame] = field(default_factory=list)  # columns of DRAFT
    assisted: dict[str, dict[Writer, int]] = field(default_factory=dict)  # by population: documents by users of AI
    planned: dict[str, Planned] = field(default_factory=dict)  # by population of writers who adopt AI
    audiences: dict[str, float] = field(default_factory=dict)  # per writer that may leave: share of people's prominence
    marks: dict[str, WatermarkSpec] = field(default_factory=dict)  # per trainer that watermarks its text
    unpublished: dict[str, pl.Series] = field(default_factory=dict)  # per trainer: text written for scoring only
    written: dict[str, WriteRecord | int] = field(default_factory=dict)  # per trainer: tokens, or number of documents
    rewritten: dict[str, Rewritten] = field(default_factory=dict)  # per writer: documents that a model rewrote
    segment: pl.DataFrame = field(default_factory=lambda: empty(SEGMENT))
    candidates: dict[str, NDArray[np.int64]] = field(default_factory=dict)  # per trainer: ids, ascending
    ledger: pl.DataFrame = field(default_factory=lambda: empty(LEDGER))
    training: dict[str, pl.DataFrame] = field(default_factory=dict)  # per trainer: the ledger rows it trains on
    fits: dict[str, FitRecord] = field(default_factory=dict)
    reviews: list[pl.DataFrame] = field(default_factory=list)
    metrics: list[pl.DataFrame] = field(default_factory=list)


def draft_table(content: pl.Series, **columns: object) -> pl.DataFrame:
    """Build drafts with these contents (columns of DRAFT); a scalar fills every row, a missing column is null."""
    series = []
    for name, dtype in DRAFT.items():
        value = columns.get(name)
        if name == "content":
            series.append(content.alias(name))
        elif isinstance(value, np.ndarray | pl.Series):
            series.append(pl.Series(name, value).cast(dtype))
        else:
            series.append(pl.Series(name, [value], dtype=dtype).new_from_index(0, content.len()))
    return pl.DataFrame(series)


def human_drafts(
    content: pl.Series, source: str, rows: np.ndarray, author: str | pl.Series, sites: np.ndarray
) -> pl.DataFrame:
    """Build human drafts: ``rows`` of a source, each on its site, by one author or one each."""
    return draft_table(content, site=sites, author=author, synthetic=False, depth=0.0, source=source, row=rows)
