"""Measure how many held-out documents share n-grams with the web and with training sets."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.metrics.estimates import binomial
from ecosystem.metrics.tables import rows
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step


def measure_overlap(state: State, step: Step) -> None:
    """Append ``held_out_overlap`` of the live web, and of every training set of this step, if it is to be measured."""
    settings, held_out = state.scenario.measure.overlap, state.services.held_out
    if settings is None:
        return
    total = held_out.documents.len()
    web = held_out.on_web(settings.words)
    step.metrics.append(_share(step, "web", "web", web.of(state.corpus.live().doc), total))
    for reader, training in step.training.items():
        # Of a set whose weights are all zero, everything is trained on.
        read = training if training["weight"].sum() == 0 else training.filter(pl.col("weight") > 0)
        found = [web.of(read.filter(pl.col("source").is_null())["document"].to_numpy())]
        injected = read.filter(pl.col("source").is_not_null())
        for (source,), added in injected.group_by("source", maintain_order=True):
            found.append(held_out.in_source(settings.words, str(source), added["document"].to_numpy()))
        step.metrics.append(_share(step, "training_set", reader, np.unique(np.concatenate(found)), total))


def _share(step: Step, scope: str, identity: str, found: NDArray[np.int64], total: int) -> pl.DataFrame:
    return rows(step.t, scope, identity, {"held_out_overlap": binomial(found.size, total)})
