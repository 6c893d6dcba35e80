"""Build the state of a world from a scenario: sources, initial web, agents, models and references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.web import Web
from ecosystem.errors import DataError
from ecosystem.families.base import BuildContext, Progress
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Curator, Host, Trainer, Writer
from ecosystem.simulation.references import References, true_distribution, unsuited_checkpoints
from ecosystem.simulation.services import Cohorts, Services
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step, human_drafts
from ecosystem.sources.base import Reservoir
from ecosystem.streams import Streams


def build_state(
    scenario: Scenario, streams: Streams, *, base: Path, cache: Path, device: str, threads: int, progress: Progress
) -> tuple[State, pl.DataFrame]:
    """Open the sources and lay out the web; return the state, without agents, and the initial drafts.

    Models are built on first use (``State.cohorts``). Raises DataError if the sources cannot be read or are
    incompatible.
    """
    reservoirs = {name: source.open(name, streams, base) for name, source in scenario.sources.items()}
    corpus = Corpus(_content_type(reservoirs))
    members = dict.fromkeys(scenario.models, 0)
    for settings in scenario.trainers.values():
        members[settings.model] += settings.count

    def build(name: str) -> Any:
        return scenario.models[name].beside(base).cohort(name, max(1, members[name]), context)

    cohorts = Cohorts(build)
    state = State(
        streams=streams,
        base_scenario=scenario,
        scenario=scenario,
        reservoirs=reservoirs,
        corpus=corpus,
        web=Web(scenario.web, streams, base),
        cohorts=cohorts,
        services=Services(corpus, reservoirs, cohorts),
        progress=progress,
        drawn=dict.fromkeys(reservoirs, 0),
    )
    drafts = _initial_drafts(state)
    context = BuildContext(drafts["content"], streams, device, threads, cache, progress)
    return state, drafts


def populate(state: State, world: Host) -> None:
    """Create the writers, curators and trainers of the scenario as agents of ``world``."""
    scenario = state.scenario
    state.writers = _agents(state, world, Writer, scenario.writers)
    state.curators = _agents(state, world, Curator, scenario.curators)
    members = dict.fromkeys(scenario.models, 0)
    for population, settings in scenario.trainers.items():
        for number in range(settings.count):
            homes = state.web.homes(f"trainers/{population}/{number}", settings.sites)
            state.trainers.append(Trainer(world, population, number, homes, members[settings.model]))
            members[settings.model] += 1


def _agents(state: State, world: Host, kind: type[Any], populations: Mapping[str, Any]) -> list[Any]:
    return [
        kind(world, name, number, state.web.homes(f"{kind.section}/{name}/{number}", settings.sites))
        for name, settings in populations.items()
        for number in range(settings.count)
    ]


def _initial_drafts(state: State) -> pl.DataFrame:
    """Return the initial human documents, spread evenly over the sites."""
    initial = state.scenario.web.initial
    if initial is None:
        no_documents = pl.Series([], dtype=state.corpus.content)
        return human_drafts(no_documents, "", np.array([], np.int64), "", np.array([], np.int64))
    rows = state.draw(initial.source, initial.documents, "the initial web")
    sites = state.web.places("web/initial/place", rows)
    return human_drafts(state.reservoirs[initial.source].rows(rows), initial.source, rows, "initial", sites)


def open_web(state: State, drafts: pl.DataFrame) -> Step:
    """Publish the initial documents, set the references for measurement, and return step 0."""
    opening = Step(0, segment=state.corpus.prepare(drafts, 0))
    state.corpus.publish(opening.segment)
    if state.scenario.modality == "text":
        state.references = References.of(
            drafts["content"], state.scenario, state.reservoirs, state.cohorts, state.streams
        )
        for sentence in unsuited_checkpoints(state.references, state.scenario, state.cohorts):
            state.note(sentence)
    else:
        state.truth = true_distribution(drafts["content"], state.scenario, state.reservoirs)
    return opening


def _content_type(reservoirs: Mapping[str, Reservoir]) -> pl.DataType:
    """Return the data type of the sources' documents; raise DataError if the sources differ."""
    types = {name: reservoir.held_out.dtype for name, reservoir in reservoirs.items()}
    if len(set(types.values())) > 1:
        listed = ", ".join(f"{name}: {kind}" for name, kind in types.items())
        raise DataError(f"sources: the documents of all sources must have the same type, but they are {listed}.")
    return next(iter(types.values()), pl.String())
