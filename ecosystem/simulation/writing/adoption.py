"""Documents of writers who adopt AI at a given share: what is planned for each, and the drafts made of it.

All numbers drawn for a document depend on its writer, its step and its number among the writer's documents of the step.
The documents of a population keep their order whether or not AI makes them, so that their ids, and all noise keyed by
them, are the same at every share.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.schema import empty
from ecosystem.scenario.entries.adoption import AdoptionSpec
from ecosystem.simulation.agents import Trainer, Writer
from ecosystem.simulation.choices.mixing import mixed
from ecosystem.simulation.state import State
from ecosystem.simulation.step import DRAFT, Planned, Step, human_drafts
from ecosystem.simulation.writing.assistance import assisted_drafts, generated, ready_trainers, trainer_used, why_none
from ecosystem.types import Floats, Ints

_NO_ROW = -1


def plan_documents(state: State, step: Step, writer: Writer, count: int) -> None:
    """Plan ``count`` documents of a writer: their sites, shares of AI and human parts."""
    settings, population = writer.settings, writer.population
    assert settings.adoption is not None
    if population not in step.planned:
        step.planned[population] = Planned(len(step.drafts), [])
        step.drafts.append(empty({**DRAFT, "content": state.corpus.content}))  # replaced in write_by_adoption
    share = ai_shares(state, writer.name, settings.adoption, count)
    if not ready_trainers(state, settings.adoption.uses):
        step.planned[population].without_model += int(np.count_nonzero(share))
        share[:] = 0.0
    needs_row = np.flatnonzero(share < 1)
    rows = state.draw(settings.source, needs_row.size, writer.name)
    row = np.full(count, _NO_ROW)
    row[needs_row[: rows.size]] = rows
    columns: dict[str, Any] = {
        "author": pl.repeat(f"writers/{writer.name}", count, eager=True),
        "writer": np.full(count, writer.number),
        "site": writer.place(count),
        "ai_share": share,
        "row": row,
        "noise": state.stream(f"writers/{writer.name}/mix").uniform(np.arange(count)),
    }
    plan = pl.DataFrame(columns)
    # If the source runs dry, the last documents that need a human part are not written.
    step.planned[population].documents.append(plan.filter((pl.col("row") != _NO_ROW) | (pl.col("ai_share") == 1)))


def ai_shares(state: State, writer: str, adoption: AdoptionSpec, count: int) -> Floats:
    """Return the share of AI wanted in each of a writer's ``count`` documents of the step, 0 for human ones."""
    number = np.arange(count)
    made_with_ai = state.stream(f"writers/{writer}/adopts").uniform(number) < adoption.share.at(state.t)
    if adoption.ai_shares is None:
        return made_with_ai.astype(np.float64)
    weights = np.array(adoption.weights or [1.0] * len(adoption.ai_shares))
    bound = np.cumsum(weights) / weights.sum()
    at = np.searchsorted(bound[:-1], state.stream(f"writers/{writer}/ai_share").uniform(number), "right")
    return np.where(made_with_ai, np.array(adoption.ai_shares)[at], 0.0)


def write_by_adoption(state: State, step: Step) -> None:
    """Draft what populations that adopt AI have planned, with the help of the models that they use."""
    shares = [share for population, planned in step.planned.items() for share in _shared(state, population, planned)]
    asked = [s for s in shares if s.trainer is not None and s.plan.height]
    requests = [(s.trainer, s.plan.height, f"assist/{s.population}") for s in asked if s.trainer is not None]
    texts = iter(generated(state, step, requests))  # in the order of the shares that use a model
    for population, planned in step.planned.items():
        own = [share for share in shares if share.population == population]
        parts = [_drafts(state, s, next(texts) if s.trainer is not None and s.plan.height else None) for s in own]
        order = np.argsort(np.concatenate([share.places for share in own]), kind="stable")
        step.drafts[planned.slot] = pl.concat(parts, how="diagonal")[order]


@dataclass(frozen=True)
class _Shared:
    """The planned documents of a population that use one trainer's model, or none's, and their places among all."""

    population: str
    trainer: Trainer | None
    plan: pl.DataFrame
    places: Ints


def _shared(state: State, population: str, planned: Planned) -> list[_Shared]:
    """Divide what a population has planned among the trainers whose models it uses; the last part uses none's."""
    adoption = state.scenario.writers[population].adoption
    assert adoption is not None
    if planned.without_model:
        state.note(
            f"the writers of {population} wrote {planned.without_model} documents themselves that they would have "
            f"made with AI: {why_none(state, adoption.uses)}"
        )
    plan = pl.concat(planned.documents)
    trainers = ready_trainers(state, adoption.uses)
    used = trainer_used(state, population, plan["writer"].to_numpy(), max(1, len(trainers)))
    used[plan["ai_share"].to_numpy() == 0] = len(trainers)  # nobody's model
    places = [np.flatnonzero(used == number) for number in range(len(trainers) + 1)]
    return [_Shared(population, t, plan[at], at) for t, at in zip([*trainers, None], places, strict=True)]


def _drafts(state: State, shared: _Shared, ai: pl.Series | None) -> pl.DataFrame:
    """Return the drafts of planned documents, given what the model that they use has written for them."""
    plan, settings = shared.plan, state.scenario.writers[shared.population]
    assert settings.adoption is not None
    row, share = plan["row"].to_numpy(), plan["ai_share"].to_numpy()
    author, site = plan["author"], plan["site"].to_numpy()
    human = state.reservoirs[settings.source].rows(row[row != _NO_ROW])
    if shared.trainer is None:
        return human_drafts(human, settings.source, row, author, site)
    if ai is None:
        return empty({**DRAFT, "content": state.corpus.content})
    both = np.flatnonzero(row != _NO_ROW)
    blend, actual = mixed(ai.gather(both), human, share[both], settings.adoption.mix, plan["noise"].to_numpy()[both])
    at, made = np.arange(plan.height), share.copy()
    at[both], made[both] = plan.height + np.arange(both.size), actual
    content = pl.concat([ai, blend]).gather(at)
    return assisted_drafts(content, made, shared.trainer, site=site, author=author, source=settings.source, row=row)
