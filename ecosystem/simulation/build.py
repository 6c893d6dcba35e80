"""Build the state of a world from a scenario: sources, initial web, agents, models and references."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.life.pages import PageLives
from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.web import Web
from ecosystem.errors import DataError, each_line
from ecosystem.families.base import BuildContext, CohortBuilder, Progress
from ecosystem.scenario.entries.trainers import INITIAL
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Curator, Host, Trainer, Writer
from ecosystem.simulation.choices.strategies import Choices
from ecosystem.simulation.references import References, true_distribution, unsuited_checkpoints
from ecosystem.simulation.services import Cohorts, Services
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step, human_drafts
from ecosystem.simulation.transitions.web_life import home_sites
from ecosystem.sources.base import Reservoir
from ecosystem.streams import Streams
from ecosystem.version import __version__

LARGE = 1 << 18  # initial documents above which an opening is published and stored in batches
BATCH = 1 << 16  # documents of a batch


class OpeningStore(Protocol):
    """Keeps the batches of an opening, so that one that is killed goes on where it was."""

    def stored(self, identity: str) -> int:
        """Return how many batches are stored of the opening with this identity; forget those of another."""

    def read(self, batch: int) -> pl.DataFrame:
        """Return the segment of a stored batch."""

    def write(self, batch: int, segment: pl.DataFrame) -> None:
        """Store the segment of the next batch."""


@dataclass(frozen=True)
class InitialDocuments:
    """The human documents that the web begins with, made when they are needed.

    ``rows`` [documents] are their rows in the source, and ``sample`` the contents of the first ones, from which models
    and metrics learn.
    """

    source: str
    reservoir: Reservoir | None
    rows: NDArray[np.int64]
    sample: pl.Series

    def drafts(self, web: Web, first: int, last: int) -> pl.DataFrame:
        """Return drafts of the documents from ``first`` to ``last``, spread evenly over the sites."""
        rows = self.rows[first:last]
        if self.reservoir is None or last <= self.sample.len():
            content = self.sample[first:last]
        else:
            content = self.reservoir.rows(rows)
        return human_drafts(content, self.source, rows, INITIAL, web.places("web/initial/place", rows))


def build_state(
    scenario: Scenario,
    streams: Streams,
    *,
    base: Path,
    cache: Path,
    device: str,
    threads: int,
    parts: Mapping[str, int],
    progress: Progress,
    build_cohort: CohortBuilder,
    scratch: Path | None = None,
) -> tuple[State, InitialDocuments]:
    """Open the sources and lay out the web; return the state, without agents, and the initial documents.

    ``parts`` are the tokens of a batch that models compute at once, where they are not the model's own choice. Models
    are built on first use (``State.cohorts``). Raises DataError if the sources cannot be read or are incompatible.
    """
    progress("reading of the sources", 0, 0)
    for model in scenario.models.values():
        model.prepare(device)
    reservoirs = {name: source.open(name, streams, base) for name, source in scenario.sources.items()}
    files = Scratch(scratch)
    types, opening = scenario.web.types, scenario.web.initial
    corpus = Corpus(_content_type(reservoirs), files, scenario.has_assisted_writers, explained=types is not None)
    members = dict.fromkeys(scenario.models, 0)
    for settings in scenario.trainers.values():
        members[settings.model] += settings.count

    def build(name: str) -> Any:
        own = replace(context, part_tokens=parts.get(name))
        try:
            return build_cohort(scenario.models[name].beside(base), name, max(1, members[name]), own)
        except DataError as error:
            raise DataError(each_line(f"models.{name}", error)) from error

    cohorts = Cohorts(build)
    state = State(
        streams=streams,
        base_scenario=scenario,
        scenario=scenario,
        reservoirs=reservoirs,
        corpus=corpus,
        web=Web(scenario.web, streams, base),
        cohorts=cohorts,
        services=Services(corpus, reservoirs, cohorts, files, progress),
        progress=progress,
        threads=threads,
        drawn=dict.fromkeys(reservoirs, 0),
        pages=None if types is None else PageLives(types, opening.age if opening else None, streams),
    )
    initial = _initial_documents(state)
    context = BuildContext(initial.sample, streams, device, threads, cache, progress)
    return state, initial


def populate(state: State, world: Host) -> None:
    """Create the writers, curators and trainers of the scenario as agents of ``world``."""
    scenario = state.scenario
    state.writers = _agents(state, world, Writer, scenario.writers)
    state.choices = {
        name: Choices.at_first(settings, settings.choice)
        for name, settings in scenario.writers.items()
        if settings.choice is not None
    }
    state.curators = _agents(state, world, Curator, scenario.curators)
    members = dict.fromkeys(scenario.models, 0)
    for population, settings in scenario.trainers.items():
        for number in range(settings.count):
            homes = home_sites(state.web, f"trainers/{population}/{number}", settings)
            state.all_trainers.append(Trainer(world, population, number, homes, members[settings.model]))
            members[settings.model] += 1
    state.trainers = [trainer for trainer in state.all_trainers if trainer.present]


def _agents(state: State, world: Host, kind: type[Any], populations: Mapping[str, Any]) -> list[Any]:
    return [
        kind(world, name, number, home_sites(state.web, f"{kind.section}/{name}/{number}", settings))
        for name, settings in populations.items()
        for number in range(settings.count)
    ]


def _initial_documents(state: State) -> InitialDocuments:
    """Draw the initial documents from their source."""
    initial = state.scenario.web.initial
    if initial is None:
        return InitialDocuments("", None, np.array([], np.int64), pl.Series([], dtype=state.corpus.content))
    rows = state.draw(initial.source, initial.documents, "the initial web")
    reservoir = state.reservoirs[initial.source]
    sample = reservoir.rows(rows[: initial.learnt(state.scenario.modality)])
    return InitialDocuments(initial.source, reservoir, rows, sample)


def set_references(state: State, human: pl.Series) -> None:
    """Set what models are measured against, from ``human`` documents."""
    if state.scenario.modality == "text":
        state.references = References.of(human, state.scenario, state.reservoirs, state.cohorts, state.streams)
        state.services.held_out.documents = state.references.held_out
        for sentence in unsuited_checkpoints(state.references, state.scenario, state.cohorts):
            state.note(sentence)
    else:
        state.truth = true_distribution(human, state.scenario, state.reservoirs)


def open_web(state: State, initial: InitialDocuments, store: OpeningStore | None = None) -> Step:
    """Publish the initial documents, and return step 0.

    More than LARGE documents are published in batches, and the segment of step 0 is then empty. A ``store`` keeps the
    batches; one that it has kept already is read from there.
    """
    total = initial.rows.size
    if total <= LARGE:
        return Step(0, segment=_publish_initial(state, initial, 0, total))
    stored = 0 if store is None else store.stored(_identity(state))
    for batch, first in enumerate(range(0, total, BATCH)):
        state.progress("opening of the web", first, total)
        if store is not None and batch < stored:
            state.corpus.restore_segment(store.read(batch))
            continue
        segment = _publish_initial(state, initial, first, first + BATCH)
        if store is not None:
            store.write(batch, segment)
    state.progress("opening of the web", total, total)
    return Step(0)


def _publish_initial(state: State, initial: InitialDocuments, first: int, last: int) -> pl.DataFrame:
    segment = state.corpus.prepare(initial.drafts(state.web, first, last), 0)
    state.corpus.publish(segment)
    return segment


def _identity(state: State) -> str:
    """Return the hash of everything that the initial documents depend on."""
    parts = {
        "version": __version__,
        "scenario": state.scenario.fingerprint(),
        "seed": state.streams.seed,
        "sources": {name: reservoir.digest for name, reservoir in state.reservoirs.items()},
        "sites": state.web.sites,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _content_type(reservoirs: Mapping[str, Reservoir]) -> pl.DataType:
    """Return the data type of the sources' documents; raise DataError if the sources differ."""
    types = {name: reservoir.held_out.dtype for name, reservoir in reservoirs.items()}
    if len(set(types.values())) > 1:
        listed = ", ".join(f"{name}: {kind}" for name, kind in types.items())
        raise DataError(f"sources: the documents of all sources must have the same type, but they are {listed}.")
    return next(iter(types.values()), pl.String())
