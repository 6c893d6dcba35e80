"""Drafts of writers who choose: people's own documents, those of the models that they use, and mixtures of the two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import polars as pl

from ecosystem.families.base import TextCohort
from ecosystem.families.requests import GenerateRequest, WriteRecord
from ecosystem.scenario.entries.choices import ChoiceSpec
from ecosystem.simulation.agents import Trainer, Writer
from ecosystem.simulation.choices.mixing import mixed
from ecosystem.simulation.choices.strategies import SILENT, USE_AI, WRITE, revise
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step, draft_table, human_drafts
from ecosystem.simulation.writing.knowledge import learn, observed
from ecosystem.types import Ints


def revise_choices(state: State) -> None:
    """Let every population with a choice revise its strategies, given what was measured at the last step."""
    for name, choices in state.choices.items():
        settings = state.scenario.writers[name]
        assert settings.choice is not None
        if settings.choice.novelty is not None and settings.rate:
            learn(state, name, settings, choices, ready_trainers(state, settings.choice))
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
    if state.t > 1 and ready_trainers(state, choice) and path not in state.unmeasured:
        state.unmeasured.add(path)
        state.note(
            f"{path}: {choice.falls_with} of {choice.uses} was not measured at step {state.t - 1}, so the benefit of "
            "AI does not fall"
        )
    return float("nan")


def ready_trainers(state: State, choice: ChoiceSpec) -> list[Trainer]:
    """Return the trainers whose models the users of AI can use now."""
    return [trainer for trainer in state.trainers if trainer.population == choice.uses and trainer.has_model]


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
        trainers = ready_trainers(state, choice)
        if not trainers:
            there = any(trainer.population == choice.uses for trainer in state.trainers)
            why = f"{choice.uses} have no model yet" if there else f"{choice.uses} is not there"
            state.note(f"the writers of {population} who use AI published nothing: {why}")
            continue
        # A writer uses the same trainer at every step, unless others get their first models.
        noise = state.streams.at(f"writers/{population}/uses").uniform([writer.number for writer in counts])
        used = (noise * len(trainers)).astype(np.int64)
        for place, trainer in enumerate(trainers):
            own = {writer: n for (writer, n), u in zip(counts.items(), used.tolist(), strict=True) if u == place}
            if own:
                _draft_assisted(state, step, trainer, own, choice)


def _draft_assisted(
    state: State, step: Step, trainer: Trainer, counts: Mapping[Writer, int], choice: ChoiceSpec
) -> None:
    """Draft the documents of the writers who use one trainer's model."""
    content = _generated(state, step, trainer, sum(counts.values()))
    first = 0
    for writer, count in counts.items():
        own, first = content[first : first + count], first + count
        source, rows, share = None, np.zeros(0, np.int64), np.ones(count)
        if choice.ai_share < 1:
            source = writer.settings.source
            rows, human = _written(state, writer, count)
            own, share = mixed(own.head(len(rows)), human, choice, state.stream(f"writers/{writer.name}/mix"))
        if own.is_empty():
            continue
        sites = writer.place(own.len())
        origin = {} if source is None else {"source": source, "row": rows}
        drafts = draft_table(
            own,
            site=sites,
            author=f"writers/{writer.name}",
            synthetic=share > 0,
            depth=share * (1.0 + trainer.depth),
            **origin,
        )
        assisted, people = pl.col("synthetic"), pl.lit(pl.Series(share)) < 1
        step.drafts.append(
            drafts.with_columns(
                model=pl.when(assisted).then(pl.lit(trainer.settings.model)),
                assistant=pl.when(assisted).then(pl.lit(trainer.name)),
                source=pl.when(people).then("source"),
                row=pl.when(people).then("row"),
                ai_share=pl.Series(share),
            )
        )


def _generated(state: State, step: Step, trainer: Trainer, n: int) -> pl.Series:
    """Return ``n`` unprompted documents of a trainer's model, whose cost is the trainer's."""
    decoding = trainer.settings.decoding.model_copy(update={"prompt": None})
    stream = state.stream(f"trainers/{trainer.name}/assist")
    request = GenerateRequest(trainer.member, n, decoding, None, stream, step.marks.get(trainer.name))
    cohort = state.cohorts[trainer.settings.model]
    [written] = cohort.generate([request], state.progress)
    amount = cohort.written[0] if isinstance(cohort, TextCohort) else n
    step.written[trainer.name] = _together(step.written.get(trainer.name), amount)
    return written


def _together(earlier: WriteRecord | int | None, later: WriteRecord | int) -> WriteRecord | int:
    """Add up what a trainer's model has written in one step; its own publications come first."""
    if isinstance(earlier, WriteRecord) and isinstance(later, WriteRecord):
        drawn, read = ([getattr(part, name) for part in (earlier, later)] for name in ("drawn", "read"))
        return WriteRecord(np.concatenate(drawn), np.concatenate(read))
    if isinstance(earlier, int) and isinstance(later, int):
        return earlier + later
    return later
