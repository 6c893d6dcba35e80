"""The world as a Mesa model: a step runs the phases, and a run folder stores the snapshots.

A world is built from a scenario and a seed, and stepped. It is never saved itself: its snapshots
(:meth:`World.snapshot`) are. A fresh world restored from a snapshot continues the run bit for bit. Everything that a
step reads and changes is in :class:`~ecosystem.simulation.state.State`, which knows nothing of Mesa.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import mesa
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.cache import cache_folder
from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.schema import History, Snapshot
from ecosystem.corpus.web import Web
from ecosystem.errors import EcosystemError, path_argument, whole_number
from ecosystem.families.base import CohortBuilder, Progress, TakesNotes, build_cohort, silent
from ecosystem.interpreter import require_threads
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Curator, Trainer, Writer
from ecosystem.simulation.build import OpeningStore, build_state, open_web, populate, set_references
from ecosystem.simulation.choices.strategies import Choices
from ecosystem.simulation.collector import collector, world_card, world_line
from ecosystem.simulation.measurement import costs
from ecosystem.simulation.measurement.measure import measure_opening
from ecosystem.simulation.phases import PHASES
from ecosystem.simulation.services import Cohorts
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step
from ecosystem.simulation.transitions.conditions import apply_conditions, plain_conditions, restore_conditions
from ecosystem.simulation.transitions.laboratories import change_trainers
from ecosystem.simulation.transitions.web_life import change_web, repeat_life, settle
from ecosystem.sources.base import Truth
from ecosystem.streams import Stream, Streams

_DEVICES = ("cpu", "cuda", "mps")


class World(mesa.Model):
    """A web with its writers, trainers and curators; ``step()`` advances it by one step.

    ``state`` holds everything that a step reads and changes, ``current_scenario`` is the scenario in force (timed
    changes applied; also ``spec``), ``t`` the number of the last step begun, ``snapshot()`` the results of that step,
    ``datacollector`` the main series of its steps. Building a world reads the sources and pre-trains (or loads) the
    foundations.
    """

    def __init__(
        self,
        scenario: Scenario,
        seed: int | None = None,
        *,
        base: Path = Path(),
        cache: str | Path | None = None,
        device: str = "cpu",
        threads: int = 1,
        parts: Mapping[str, int] | None = None,
        progress: Progress = silent,
        models: bool = True,
        documents: bool = True,
        opening: OpeningStore | None = None,
        scratch: Path | None = None,
        build_cohort: CohortBuilder = build_cohort,
    ) -> None:
        """Open the sources, lay out the web with its initial documents and build every agent and model.

        ``base`` is the folder that relative paths of the scenario are resolved against (after the current one); the
        seed of the scenario is used if ``seed`` is None. ``models=False`` builds a model only on first
        use, for a world that is read and never stepped; ``documents=False`` publishes no initial documents, for a world
        that is restored. ``opening`` keeps the batches of a large opening, and ``scratch`` is a folder for documents
        that do not fit into memory (default: a temporary one; it is deleted with the world). ``build_cohort`` decides
        where models are, and ``parts`` how many tokens of a batch some of them compute at once. ``cache`` is the folder
        of foundations and tokenizers (default: :func:`~ecosystem.cache.cache_folder`). Raises EcosystemError for
        arguments of other types, DataError if sources or checkpoints cannot be used, EcosystemError in a process forked
        from one that has computed.
        """
        _check_arguments(scenario, device, cache)
        threads, base = whole_number(threads, "threads", 1), Path(path_argument(base, "base"))
        require_threads()
        streams = Streams(scenario.seed if seed is None else whole_number(seed, "seed"))
        # Mesa insists on a generator of its own; nothing here draws from it.
        super().__init__(rng=streams.at("mesa").integer() % 2**32)
        self.state, initial = build_state(
            scenario,
            streams,
            base=base,
            cache=cache_folder(cache),
            device=device,
            threads=threads,
            parts=parts or {},
            progress=progress,
            scratch=scratch,
            build_cohort=build_cohort,
        )
        populate(self.state, self)
        with self.state.clock.phase("foundations"):
            if models:
                self.state.cohorts.build(scenario.models)
            self.state.progress("measuring of the references", 0, 0)
            set_references(self.state, initial.sample)
        with self.state.clock.phase("opening"):
            self._opening = open_web(self.state, initial, opening) if documents else Step(0)
        self._latest: Snapshot | None = None
        self.datacollector = collector(self)

    def __repr__(self) -> str:
        return world_line(self)

    def _repr_html_(self) -> str:
        return world_card(self)

    @property
    def t(self) -> int:
        """The number of the last step begun; 0 is the opening of the web."""
        return self.state.t

    @property
    def current_scenario(self) -> Scenario:
        """The scenario in force: timed changes applied."""
        return self.state.scenario

    @property
    def spec(self) -> Scenario:
        """The scenario in force, by its shorter name."""
        return self.state.scenario

    @property
    def base_scenario(self) -> Scenario:
        """The scenario that the world was built from; steps to come follow its timed changes."""
        return self.state.base_scenario

    @base_scenario.setter
    def base_scenario(self, scenario: Scenario) -> None:
        self.state.base_scenario = scenario

    @property
    def web(self) -> Web:
        """The graph of sites."""
        return self.state.web

    @property
    def corpus(self) -> Corpus:
        """Every document ever published."""
        return self.state.corpus

    @property
    def cohorts(self) -> Cohorts:
        """The models of the trainers, by the name of their entry in the scenario."""
        return self.state.cohorts

    @property
    def trainers(self) -> list[Trainer]:
        """The trainers that are there at this step, in the order of the scenario."""
        return self.state.trainers

    @property
    def writers(self) -> list[Writer]:
        """All writers, in the order of the scenario."""
        return self.state.writers

    @property
    def curators(self) -> list[Curator]:
        """All curators, in the order of the scenario."""
        return self.state.curators

    @property
    def measured(self) -> dict[tuple[str, str, str], float]:
        """The measurements of the last step by scope, id and metric; empty before the opening is measured."""
        return self.state.measured

    @property
    def truth(self) -> Truth | None:
        """The distribution that models of vectors and categories are compared with; None for text."""
        return self.state.truth

    def stream(self, name: str) -> Stream:
        """Return the named stream at the current step."""
        return self.state.stream(name)

    def fluency(self, model: str, docs: pl.Series) -> NDArray[np.float64]:
        """Return the standardised fluency of documents (by id) under a model's starting weights, [documents]."""
        return self.state.services.models.fluency(model, docs, self.state.references.initial[model])

    def step(self) -> None:
        """Advance by one step: apply the timed changes, then run the phases in order."""
        # The opening is measured before anything changes. Weights may be large, and are not needed any more.
        before = self._latest = replace(self.snapshot(), weights={})
        self.running = False  # stays false if a phase fails: Mesa would silently skip later steps
        state = self.state
        state.t += 1
        state.scenario = self.base_scenario.at(self.t)
        with state.clock.phase("changes"):
            apply_conditions(state, before.metrics, before.t)
            change_trainers(state)
            change_web(state)
        step = Step(self.t)
        for phase in PHASES:
            state.progress(phase.__name__, 0, 0)
            with state.clock.phase(phase.__name__):
                phase(state, step)
        self._latest = self._take_snapshot(step)
        self.running = True

    def snapshot(self) -> Snapshot:
        """Return the snapshot of the last step (or of the opening of the web, step 0).

        The opening is measured on first use, so that a restored world does not measure it again.
        """
        if self._latest is None:
            with self.state.clock.phase("measure"):
                measure_opening(self.state, self._opening)
            self._latest = self._take_snapshot(self._opening)
        return self._latest

    def _take_snapshot(self, step: Step) -> Snapshot:
        state = self.state
        metrics = pl.concat(step.metrics)
        for cohort in state.cohorts.values():
            if isinstance(cohort, TakesNotes):
                state.events += cohort.take_notes()
        state.measured = _by_metric(metrics)
        self.datacollector.collect(self)
        snapshot = Snapshot(
            t=self.t,
            segment=step.segment,
            changes=state.corpus.take_changes(),
            ledger=step.ledger,
            metrics=metrics,
            archive=state.archive,
            state=_plain(state),
            weights={name: cohort.state() for name, cohort in state.cohorts.items()},
            timings=state.clock.take(),
        )
        state.events = []
        return snapshot

    def restore(self, history: History) -> None:
        """Restore a stored run as it was after its last step."""
        state, past = self.state, history.latest
        state.t = past.t
        state.scenario = self.base_scenario.at(past.t)
        repeat_life(state.web, self.base_scenario, past.t)
        segments = _reported(history.segments, history.files, state.progress)
        state.corpus.restore(segments, history.changes)
        state.archive = past.archive
        state.drawn = dict(past.state["drawn"])
        state.purchases = costs.read_purchases(past.state.get("bought", {}))
        restore_conditions(state, past.state)
        state.web.restore([(int(a), int(b), float(w)) for a, b, w in past.state["endorsements"]])
        for trainer in state.all_trainers:
            trainer.restore(past.state["trainers"][trainer.name])
        state.trainers = [trainer for trainer in state.all_trainers if trainer.present]
        settle(state)
        for writer in state.writers:
            writer.has_left = writer.name in past.state.get("left", [])
        for name, stored in past.state.get("choices", {}).items():
            state.choices[name] = Choices.read(stored)
        state.measured = _by_metric(past.metrics)
        for name, arrays in past.weights.items():
            state.cohorts[name].load(arrays)
        self._latest, state.events = past, []
        state.clock.take()  # that of building this world belongs to no step


def _reported(segments: Iterable[pl.DataFrame], files: int, progress: Progress) -> Iterator[pl.DataFrame]:
    for number, segment in enumerate(segments):
        progress("restoring of the web", number, files)
        yield segment
    progress("restoring of the web", files, files)


def _check_arguments(scenario: object, device: object, cache: object) -> None:
    """Raise EcosystemError for arguments from Python that are not of the right type."""
    if not isinstance(scenario, Scenario):
        raise EcosystemError(f"World: give a Scenario (see Scenario.load), not {scenario!r:.80}.")
    if not isinstance(device, str) or device.partition(":")[0] not in _DEVICES:
        raise EcosystemError(f"device: choose from {', '.join(_DEVICES)}, not {device!r}.")
    if cache is not None:
        path_argument(cache, "cache")


def _by_metric(metrics: pl.DataFrame) -> dict[tuple[str, str, str], float]:
    return {(scope, who, metric): value for _, scope, who, metric, value, _ in metrics.iter_rows()}


def _plain(state: State) -> dict[str, Any]:
    """Return the JSON values that a resume needs besides tables and weights."""
    trainers = {trainer.name: trainer.plain() for trainer in state.all_trainers}
    left = [writer.name for writer in state.writers if writer.has_left]
    return {
        "t": state.t,
        "drawn": state.drawn,
        "trainers": trainers,
        "endorsements": state.web.endorsements(),
        "events": state.events,
        **({"left": left} if left else {}),
        **plain_conditions(state),
        **({"choices": {name: c.plain() for name, c in state.choices.items()}} if state.choices else {}),
        **({"bought": costs.plain_purchases(state.purchases)} if state.purchases else {}),
    }
