"""What a model of text is asked for at a step; the questions are asked where the model is, which may be elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.families.base import Cohort, SupportsWatermark, TextCohort
from ecosystem.families.requests import Radioactivity, Score, ScoreRequest
from ecosystem.simulation.references import next_token


@dataclass(frozen=True)
class Reading:
    """What one model is asked for at a step; None: nothing to read."""

    held_out: Score | None
    synthetic: tuple[NDArray[np.float64], NDArray[np.int64]] | None  # nats and tokens per document
    next_token_l1: NDArray[np.float64] | None  # per context: distance to the starting distribution
    radioactivity: Radioactivity | None
    initial: Score | None  # of its publications, under the weights that it started from


@dataclass(frozen=True)
class Asked:
    """What all models of one entry are asked for."""

    held_out: pl.Series
    synthetic: pl.Series
    contexts: int
    next_token: NDArray[np.float32]  # under the starting weights, [contexts, types]
    mark: WatermarkSpec | None  # the watermark that it is tested for
    marked_contexts: int  # most contexts of that test


def read(cohort: Cohort, member: int, asked: Asked, own: pl.Series, begun: int, tokens: int, number: int) -> Reading:
    """Read one model, where it is."""
    scored = [docs for docs in (asked.held_out, asked.synthetic) if docs.len()]
    scores = iter(cohort.score([ScoreRequest(member, docs) for docs in scored]))
    held_out = next(scores) if asked.held_out.len() else None
    synthetic = next(scores).per_document() if asked.synthetic.len() else None
    distance = None
    if held_out is not None and len(asked.next_token):
        # The measure of Seddik et al. (2024).
        now = next_token(cohort, member, asked.held_out, asked.contexts)
        distance = np.abs(now.astype(np.float64) - asked.next_token).sum(axis=1)
    test = None
    if asked.mark is not None and isinstance(cohort, SupportsWatermark):
        test = cohort.radioactivity(member, asked.held_out, asked.mark, asked.marked_contexts)
    initial = initial_score(cohort, own, begun, tokens, number) if own.len() else None
    return Reading(held_out, synthetic, distance, test, initial)


def initial_score(cohort: Cohort, texts: pl.Series, begun: int, tokens: int, number: int) -> Score | None:
    """Score the first excerpts of texts under the weights that members start from."""
    docs = cast(TextCohort, cohort).excerpts(texts, begun, tokens) if number else texts.clear()
    return cohort.score([ScoreRequest("initial", docs.head(number))])[0] if docs.len() else None
