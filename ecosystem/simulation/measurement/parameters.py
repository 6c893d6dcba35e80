"""Measure models whose parameters are known: their distance from the truth, and which have collapsed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.families.base import Cohort, Describes
from ecosystem.families.requests import ScoreRequest
from ecosystem.metrics import tables
from ecosystem.metrics.base import DOCUMENT_METRICS, measure_documents
from ecosystem.metrics.estimates import hellinger, ratio
from ecosystem.metrics.tables import rows
from ecosystem.simulation.agents import Trainer, by_model
from ecosystem.simulation.references import held_out_documents
from ecosystem.simulation.services import correct_labels
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step
from ecosystem.simulation.writing.knowledge import grid_of

NAMED = 3  # largest population in which the collapse of each trainer is an event of its own


def measure_parameters(state: State, step: Step) -> None:
    """Compare every trainer's parameters, which are known exactly, with the truth, and score held-out documents."""
    assert state.truth is not None
    correct = _correct_labels(state, step)
    held_out = held_out_documents(state.scenario, state.reservoirs, state.corpus.content)
    for model, trainers in by_model(state.trainers).items():
        ready = [trainer for trainer in trainers if trainer.has_model]
        cohort = state.cohorts[model]
        assert isinstance(cohort, Describes)  # every model of vectors or categories is
        described = cohort.describe(state.truth)
        members = [trainer.member for trainer in ready]
        names = np.array([trainer.name for trainer in ready])
        values = {metric: column[members] for metric, column in described.items()}
        values["documents_trained"] = np.array([getattr(step.fits.get(n), "tokens", np.nan) for n in names.tolist()])
        values["label_accuracy"] = np.array([correct.get(n, np.nan) for n in names.tolist()])
        if "collapsed" in values:
            values["collapsed_at"] = _collapses(state, ready, values["collapsed"] == 1)
        errors = {}
        if (points := state.scenario.measure.density) is not None:
            values["hellinger"] = _hellinger(state, cohort, members, points)
        if held_out.len():
            scores = cohort.score([ScoreRequest(member, held_out) for member in members])
            nats = [ratio(*score.per_document()) for score in scores]
            values["held_out_nll"], errors["held_out_nll"] = np.array(nats, np.float64).reshape(-1, 2).T
        step.metrics.append(tables.many(step.t, "trainer", names, values, errors))
    measure_published(state, step)


def _hellinger(state: State, cohort: Cohort, members: Sequence[int], points: int) -> NDArray[np.float64]:
    """Return the Hellinger distance of every model's density from the truth, [members]."""
    source = state.scenario.true_source
    assert source is not None
    reservoir = state.reservoirs[source]
    grid = grid_of(reservoir, points)
    truth = reservoir.log_likelihood(grid)
    assert truth is not None  # checked when the scenario was read
    scores = cohort.score([ScoreRequest(member, grid) for member in members])
    return np.array(
        [hellinger(np.exp(-score.nll), np.exp(truth), grid.to_numpy()[:, 0]) for score in scores], np.float64
    )


def measure_published(state: State, step: Step) -> None:
    """Measure the vectors or categories that each trainer published, by the metrics registered for their modality."""
    assert state.truth is not None
    metrics = [kind() for kind in DOCUMENT_METRICS.all().values() if kind.modality == state.scenario.modality]
    if not metrics:
        return
    published = step.segment.filter(pl.col("verdict").is_null())
    for trainer in state.trainers:
        documents = published.filter(pl.col("author") == trainer.name)["content"].to_numpy()
        values = measure_documents(metrics, documents, state.truth)
        if values:
            step.metrics.append(rows(step.t, "trainer", trainer.name, values))


def _collapses(state: State, trainers: Sequence[Trainer], collapsed: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Record the trainers that first collapse at this step; return the step for these, NaN for all others.

    In a large population only three events are recorded: the first collapse, half and all.
    """
    steps = np.full(len(trainers), np.nan)
    new: dict[str, list[str]] = {}
    for place in np.flatnonzero(collapsed).tolist():
        trainer = trainers[place]
        if trainer.collapsed_at is None:
            trainer.collapsed_at = state.t
            steps[place] = state.t
            new.setdefault(trainer.population, []).append(trainer.name)
    collapse = "collapsed: nothing varies any more in what was learnt"
    for population, names in new.items():
        collapse_steps = [trainer.collapsed_at for trainer in state.trainers if trainer.population == population]
        count = len(collapse_steps) - collapse_steps.count(None)
        before, half = count - len(names), (len(collapse_steps) + 1) // 2
        if len(collapse_steps) <= NAMED:
            for name in names:
                state.note(f"{name} {collapse}")
        elif count == len(collapse_steps):
            state.note(f"all {count} trainers of {population} have {collapse}")
        elif before < half <= count:
            state.note(f"half of the {len(collapse_steps)} trainers of {population} have {collapse}")
        elif before == 0:
            state.note(f"{names[0]} is the first of {len(collapse_steps)} trainers of {population} that has {collapse}")
    return steps


def _correct_labels(state: State, step: Step) -> dict[str, float]:
    """Return the weighted share of correct labels in the training set of every trainer fitted at this step.

    The result is empty if documents have no labels.
    """
    if state.truth is None or state.truth.plane is None or not step.fits:
        return {}
    rows = pl.concat([step.training[name] for name in step.fits])
    correct = pl.Series(correct_labels(state.contents(rows), state.truth))
    weighted = rows.with_columns(correct=correct).filter(pl.col("weight") > 0)
    share = (pl.col("correct") * pl.col("weight")).sum() / pl.col("weight").sum()
    return dict(weighted.group_by("reader").agg(share).iter_rows())
