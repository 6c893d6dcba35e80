"""Drafts of writers who choose: people's own documents, those of the models that they use, and mixtures of the two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from ecosystem.scenario.entries.choices import ChoiceSpec
from ecosystem.simulation.agents import Trainer, Writer
from ecosystem.simulation.choices.mixing import mixed
from ecosystem.simulation.choices.strategies import SILENT, USE_AI, WRITE, revise
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step, human_drafts
from ecosystem.simulation.writing.assistance import assisted_drafts, generated, ready_trainers, trainer_used, why_none
from ecosystem.simulation.writing.knowledge import learn, observed
from ecosystem.types import Ints


def revise_choices(state: State) -> None:
    """Let every population with a choice revise its strategies, given what was measured at the last step."""
    for name, choices in state.choices.items():
        settings = state.scenario.writers[name]
        assert settings.choice is not None
        if settings.choice.novelty is not None and settings.rate:
            learn(state, name, settings, choices, ready_trainers(state, settings.choice.uses))
        revise(name, settings, choices, _quality(state, name, settings.choice), state.streams, state.t)


def _quality(state: State, population: str, choice: ChoiceSpec) -> float:
    """Return the mean over trainers of the metric that the benefit of AI falls with; NaN if there is none.

    If the metric is missing although there are models, which is certain after the first step, it is recorded once.
    """
    if choice.falls_with == "use":
        return float("nan")
    names = [trainer.name for trainer in state.trainers if trainer.population == choice.uses]
    values = [state.measured.get(("trainer", name, choice.falls_with)) for name in names]
    known = [value for value in values if value is not None]
    if known:
        return float(np.mean(known))
    path = f"writers.{population}.choice.falls_with"
    if state.t > 1 and ready_trainers(state, choice.uses) and path not in state.unmeasured:
        state.unmeasured.add(path)
        state.note(
            f"{path}: {choice.falls_with} of {choice.uses} was not measured at step {state.t - 1}, so the benefit of "
            "AI does not fall"
        )
    return float("nan")


def write_by_choice(state: State, step: Step, writer: Writer) -> None:
    """Draft the documents of one writer who writes, or note how many it lets a model write."""
    strategy = state.choices[writer.population].strategy[writer.number]
    count = writer.documents_to_write(0.0) if strategy != SILENT and writer.settings.rate else 0
    if count and strategy == USE_AI:
        step.assisted.setdefault(writer.population, {})[writer] = count
    elif count and strategy == WRITE:
        draft_people(state, step, writer, count)


def draft_people(state: State, step: Step, writer: Writer, count: int) -> None:
    """Draft the next ``count`` documents of a writer's source."""
    rows, content = _written(state, writer, count)
    if len(rows):
        source, sites = writer.settings.source, writer.place(len(rows))
        step.drafts.append(human_drafts(content, source, rows, f"writers/{writer.name}", sites))


def _written(state: State, writer: Writer, count: int) -> tuple[Ints, pl.Series]:
    """Return the next ``count`` rows of a writer's source, or fewer, and what the writer makes of them."""
    source = writer.settings.source
    rows = state.draw(source, count, writer.name)
    content = state.reservoirs[source].rows(rows)
    if writer.population in state.choices:
        content = observed(content, state.choices[writer.population], state.reservoirs[source])
    return rows, content


def write_with_ai(state: State, step: Step) -> None:
    """Let models write for the writers who use AI, one request to each trainer, and draft the documents."""
    for population, counts in step.assisted.items():
        choice = state.scenario.writers[population].choice
        assert choice is not None
        trainers = ready_trainers(state, choice.uses)
        if not trainers:
            state.note(f"the writers of {population} who use AI published nothing: {why_none(state, choice.uses)}")
            continue
        used = trainer_used(state, population, [writer.number for writer in counts], len(trainers))
        for place, trainer in enumerate(trainers):
            own = {writer: n for (writer, n), u in zip(counts.items(), used.tolist(), strict=True) if u == place}
            if own:
                _draft_assisted(state, step, trainer, own, choice)


def _draft_assisted(
    state: State, step: Step, trainer: Trainer, counts: Mapping[Writer, int], choice: ChoiceSpec
) -> None:
    """Draft the documents of the writers who use one trainer's model."""
    [content] = generated(state, step, [(trainer, sum(counts.values()), "assist")])
    first = 0
    for writer, count in counts.items():
        own, first = content[first : first + count], first + count
        origin: dict[str, object] = {}
        share = np.ones(count)
        if choice.ai_share < 1:
            rows, human = _written(state, writer, count)
            noise = state.stream(f"writers/{writer.name}/mix").uniform(np.arange(len(rows)))
            share = np.full(len(rows), choice.ai_share)
            own, share = mixed(own.head(len(rows)), human, share, choice.mix, noise)
            origin = {"source": writer.settings.source, "row": rows}
        if own.is_empty():
            continue
        place = {"site": writer.place(own.len()), "author": f"writers/{writer.name}"}
        step.drafts.append(assisted_drafts(own, share, trainer, **place, **origin))
