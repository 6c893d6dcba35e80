"""The world: a Mesa model whose step is the row of phases, and everything the phases share.

A world is built from a scenario and a seed, stepped, and photographed (:meth:`World.snapshot`); it is never
saved itself. A stored snapshot restored into a fresh world continues exactly as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import mesa
import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem import costs
from ecosystem.agents import Curator, Trainer, Writer
from ecosystem.cache import cache_folder
from ecosystem.corpus.documents import Corpus
from ecosystem.corpus.labelled import right
from ecosystem.corpus.schema import ARCHIVE, Snapshot, empty
from ecosystem.corpus.sources import Reservoir, Truth
from ecosystem.corpus.web import Web
from ecosystem.errors import DataError, ScenarioError
from ecosystem.families.base import Cohort, MarkingCohort, Progress, ScoreRequest, Surroundings, silent
from ecosystem.judges import Judges
from ecosystem.marks import Mark
from ecosystem.measure import References, measure_opening, truth_of
from ecosystem.phases import PHASES, Step, human_drafts
from ecosystem.policies.base import Context, Policy
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.policies.watermark import Watermark
from ecosystem.scenario import Scenario
from ecosystem.streams import Stream, Streams

SERIES = {  # what a notebook plots first, of each kind of document
    "text": ("cross_entropy", "distinct_2"),
    "vector": ("mean_error", "variance", "w2"),
    "category": ("gini_simpson", "support", "entropy"),
}


class World(mesa.Model):
    """A web with its people, trainers and curators; ``step()`` lets one unit of time pass.

    ``spec`` is the scenario in force (timed changes applied), ``t`` the world's own clock, ``snapshot()`` what
    the last step left behind, ``datacollector`` the main series of its steps. Building a world reads the sources and
    pre-trains (or loads) the foundations.
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
        progress: Progress = silent,
        models: bool = True,
    ) -> None:
        """Open the sources, lay out the web with its initial documents and build every agent and model.

        ``base`` is the folder that relative paths of the scenario are sought in (after the current one); the
        seed of the scenario is used if ``seed`` is None. ``cache`` is the folder of foundations and tokenizers
        (default: :func:`~ecosystem.cache.cache_folder`). ``models`` False builds a model only when something asks
        for it, for a world that is looked at and never stepped.
        """
        if seed is not None and seed < 0:
            raise ScenarioError(f"seed = {seed}: give a whole number of at least 0.")
        self.streams = Streams(scenario.seed if seed is None else seed)
        # Mesa insists on a generator of its own; nothing here draws from it.
        super().__init__(rng=self.streams.at("mesa").integer() % 2**32)
        self.scenario_read, self.spec, self.t = scenario, scenario, 0
        self.progress = progress
        self.archive = empty(ARCHIVE)
        self.reservoirs: dict[str, Reservoir] = {
            name: source.open(name, self.streams, base) for name, source in scenario.sources.items()
        }
        self.corpus = Corpus(_content_type(self.reservoirs))
        self.drawn = dict.fromkeys(self.reservoirs, 0)  # documents that people have taken from each source
        self.web = Web(scenario.web, self.streams, base)
        self.truth: Truth | None = None  # of vectors and categories; texts have references
        self.bought: costs.Bought = {}  # what adders with a price have paid for
        self.shortfalls: dict[str, list[tuple[int, int]]] = {}  # at this step, by adder: asked for, given
        self._events: list[str] = []
        self._scores: dict[str, dict[int, tuple[float, int]]] = {}
        self._found: dict[tuple[str, Mark], dict[int, tuple[float, int]]] = {}
        self._near: dict[tuple[int, int, float], NearDuplicates] = {}
        self.judges = Judges(self)
        self._latest: Snapshot | None = None

        initial = self._initial_drafts()
        self.writers = self._populate(Writer, scenario.writers)
        self.curators = self._populate(Curator, scenario.curators)
        self.trainers: list[Trainer] = []
        around = Surroundings(initial["content"], self.streams, device, threads, cache_folder(cache), progress)
        counts = dict.fromkeys(scenario.models, 0)
        for population, recipe in scenario.trainers.items():
            for number in range(recipe.count):
                homes = self.web.homes(f"trainers/{population}/{number}", recipe.sites)
                self.trainers.append(Trainer(self, population, number, homes, counts[recipe.model]))
                counts[recipe.model] += 1
        self.cohorts = _Cohorts(lambda name: scenario.models[name].cohort(name, max(1, counts[name]), around))
        for name in scenario.models if models else ():
            self.cohorts[name]
        self._open_web(initial)
        self._measured: dict[tuple[str, str, str], float] = {}  # of the last step: scope, id, metric
        self.datacollector = self._collector()

    def _collector(self) -> mesa.DataCollector:
        """Return Mesa's collector of the main series: of the web, of all trainers on average, and of each trainer.

        It has a row for every step that this world made itself; the run folder has all that was measured.
        """
        of_trainers = SERIES[self.spec.modality]

        def of_web(metric: str) -> Callable[[World], float | None]:
            return lambda world: world._measured.get(("web", "web", metric))

        def on_average(metric: str) -> Callable[[World], float | None]:
            def mean(world: World) -> float | None:
                known = [world._measured.get(("trainer", t.name, metric)) for t in world.trainers]
                found = [value for value in known if value is not None]
                return sum(found) / len(found) if found else None

            return mean

        def of_one(scope: str, metric: str) -> Callable[[Trainer], float | None]:
            return lambda trainer: trainer.model._measured.get((scope, trainer.name, metric))

        each = {metric: of_one("trainer", metric) for metric in of_trainers}
        each |= {f"training_set_{metric}": of_one("training_set", metric) for metric in ("synthetic_share", "depth")}
        return mesa.DataCollector(
            model_reporters={
                "t": "t",
                **{f"web_{metric}": of_web(metric) for metric in ("documents", "synthetic_share", "depth")},
                **{metric: on_average(metric) for metric in of_trainers},
            },
            agenttype_reporters={Trainer: {"name": "name", **each}} if self.trainers else {},
        )

    def _populate(self, kind: type[Any], populations: dict[str, Any]) -> list[Any]:
        return [
            kind(self, name, number, self.web.homes(f"{kind.section}/{name}/{number}", recipe.sites))
            for name, recipe in populations.items()
            for number in range(recipe.count)
        ]

    def _initial_drafts(self) -> pl.DataFrame:
        """Return what people had written before the first step, spread evenly over the sites."""
        initial = self.spec.web.initial
        if initial is None:
            nothing = pl.Series([], dtype=self.corpus.content)
            return human_drafts(nothing, "", np.array([], np.int64), "", np.array([], np.int64))
        rows = self.draw(initial.source, initial.documents, "the initial web")
        sites = self.web.places("web/initial/place", rows)
        return human_drafts(self.reservoirs[initial.source].rows(rows), initial.source, rows, "initial", sites)

    def _open_web(self, drafts: pl.DataFrame) -> None:
        self._opening = Step(0, segment=self.corpus.prepare(drafts, 0))
        self.corpus.publish(self._opening.segment)
        if self.spec.modality == "text":
            self.references = References.of(self, drafts["content"])
        else:
            self.truth = truth_of(self, drafts["content"])

    def step(self) -> None:
        """Let one step pass: apply the timed changes, then run the phases in order."""
        self.snapshot()  # the opening is measured before anything changes
        self.running = False  # stays so if a phase fails, since Mesa would silently skip later steps
        self.t += 1
        self.spec = self.scenario_read.at(self.t)
        step = Step(self.t)
        for phase in PHASES:
            phase(self, step)
        self._latest = self._photograph(step)
        self.running = True

    def snapshot(self) -> Snapshot:
        """Return what the last step (or the opening of the web, step 0) left behind.

        The opening is measured when it is first asked for, so that a restored world need not do it again.
        """
        if self._latest is None:
            measure_opening(self, self._opening)
            self._latest = self._photograph(self._opening)
        return self._latest

    def _photograph(self, step: Step) -> Snapshot:
        events, self._events = self._events, []
        metrics = pl.concat(step.metrics)
        self._measured = {(scope, who, metric): v for _, scope, who, metric, v, _ in metrics.iter_rows()}
        self.datacollector.collect(self)
        state = {
            "t": self.t,
            "drawn": self.drawn,
            "trainers": {
                t.name: {"depth": t.depth, "has_model": t.has_model, "collapsed_at": t.collapsed_at}
                for t in self.trainers
            },
            "endorsements": self.web.endorsements(),
            "events": events,
            **({"left": left} if (left := [w.name for w in self.writers if w.has_left]) else {}),
            **({"bought": costs.plain(self.bought)} if self.bought else {}),
        }
        return Snapshot(
            t=self.t,
            segment=step.segment,
            changes=self.corpus.take_changes(),
            ledger=step.ledger,
            metrics=metrics,
            archive=self.archive,
            state=state,
            weights={name: cohort.state() for name, cohort in self.cohorts.items()},
        )

    def restore(self, past: Snapshot) -> None:
        """Continue from a stored past: its segment and changes are those of all steps up to ``past.t``."""
        self.t = past.t
        self.spec = self.scenario_read.at(past.t)
        self.corpus = Corpus(self.corpus.content)
        self.corpus.restore(past.segment, past.changes)
        self.archive = past.archive
        self.drawn = dict(past.state["drawn"])
        self.bought = costs.known(past.state.get("bought", {}))
        self.web.restore([(int(a), int(b), float(w)) for a, b, w in past.state["endorsements"]])
        for trainer in self.trainers:
            known = past.state["trainers"][trainer.name]
            trainer.depth, trainer.has_model = known["depth"], known["has_model"]
            trainer.collapsed_at = known.get("collapsed_at")
        for writer in self.writers:
            writer.has_left = writer.name in past.state.get("left", [])
        for name, arrays in past.weights.items():
            self.cohorts[name].load(arrays)
        self._latest, self._events = past, []

    # What the phases ask of the world.

    def stream(self, name: str) -> Stream:
        """Return the named stream at the present step."""
        return self.streams.at(name, self.t)

    def note(self, event: str) -> None:
        """Record something worth telling (a source ran dry, a trainer starved); it is stored with the step."""
        self._events.append(event)

    def draw(self, source: str, n: int, who: str) -> NDArray[np.int64]:
        """Take the next ``n`` rows of a source for people's use; fewer, with a recorded event, if it runs dry."""
        first, size = self.drawn[source], self.reservoirs[source].size
        last = first + n if size is None else min(first + n, size)
        self.drawn[source] = last
        if last - first < n:
            self.note(f'the source "{source}" ran dry: {who} wanted {n} documents and got {last - first}')
        return np.arange(first, last, dtype=np.int64)

    def contents(self, rows: pl.DataFrame) -> pl.Series:
        """Return the contents of ledger rows (web documents by id, injected ones by source and row)."""
        if rows["source"].null_count() == rows.height:
            return self.corpus.contents(rows["document"])
        where = rows.with_row_index("place")
        parts: list[pl.DataFrame] = []
        for (source,), group in where.group_by("source", maintain_order=True):
            if source is None:
                content = self.corpus.contents(group["document"])
            else:
                content = self.reservoirs[str(source)].rows(group["document"].to_numpy())
            parts.append(group.select("place").with_columns(content=content))
        return pl.concat(parts).sort("place")["content"]

    def policies(self, names: Sequence[str]) -> list[tuple[str, Policy]]:
        """Return policies by name as they are in force now."""
        return [(name, self.spec.policies[name]) for name in names]

    def context(self, reader: str) -> Callable[[str], Context]:
        """Return what makes the context of each policy at a gate that stands for ``reader``."""

        def of(policy: str) -> Context:
            return Context(
                policy=policy,
                reader=reader,
                t=self.t,
                stream=self.stream(f"policies/{policy}/{reader}"),
                lasting=self.streams.at(f"policies/{policy}"),
                contents=self.corpus.contents,
                score=self._score,
                near_duplicate=self._near_duplicate,
                source_rows=lambda source: self.reservoirs[source].size,
                right=lambda docs: self.right(self.corpus.contents(docs)),
                judge=self.judges.ask,
                live=lambda: self.corpus.live()["doc"],
                drawn=self._drawn,
                watermark=self.watermark,
                source_contents=lambda source, rows: self.reservoirs[source].rows(rows),
                fell_short=lambda wanted, given: self.shortfalls.setdefault(policy, []).append((wanted, given)),
            )

        return of

    def right(self, docs: pl.Series) -> NDArray[np.bool_]:
        """Return whether each document's label is right by the truth of the initial source.

        Raises DataError where no label is right or wrong.
        """
        if self.truth is None or self.truth.plane is None:
            raise DataError(
                "no label is right or wrong here: what is right is said by the source of the initial documents, which "
                "must be of kind labelled."
            )
        return right(docs, self.truth.plane)

    def marks(self) -> dict[str, Mark]:
        """Return by name the trainers who watermark their text at this step, and with what.

        Of those whose decoding names one policy the share that complies does, the ones with the smallest numbers; these
        never change, so that who complies at some share complies at every larger one.
        """
        naming: dict[str, list[str]] = {}
        for trainer in self.trainers:
            if trainer.recipe.decoding.watermark is not None:
                naming.setdefault(trainer.recipe.decoding.watermark, []).append(trainer.name)
        found: dict[str, Mark] = {}
        for name, trainers in naming.items():
            policy = cast(Watermark, self.spec.policies[name])
            luck = {t: self.streams.at(f"policies/{name}/compliance/{t}").uniform(0)[0] for t in trainers}
            complying = int(policy.compliance * len(trainers) + 0.5)
            found |= dict.fromkeys(sorted(trainers, key=luck.__getitem__)[:complying], policy.mark)
        return found

    def watermark(self, model: str, mark: Mark, docs: pl.Series) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Look for a mark in documents (by id): z-scores and numbers of scored tokens, [documents] each."""
        cohort = cast(MarkingCohort, self.cohorts[model])
        known = self._found.setdefault((model, mark), {})
        return _once(known, docs, lambda new: cohort.watermark(self.corpus.contents(new), mark))

    def _score(self, model: str, docs: pl.Series) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Score documents under a model's starting weights, each document once in the life of the world."""

        def score(new: pl.Series) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
            [found] = self.cohorts[model].score([ScoreRequest("initial", self.corpus.contents(new))])
            return found.per_document()

        return _once(self._scores.setdefault(model, {}), docs, score)

    def _drawn(self, source: str, t: int) -> int:
        """Return how many of a source's first rows people had drawn by the end of step ``t``."""
        return self.corpus.index.filter((pl.col("source") == source) & (pl.col("t") <= t)).height

    def fluency(self, model: str, docs: pl.Series) -> NDArray[np.float64]:
        """Return each document's mean log-likelihood per token under a model's starting weights, standardised.

        The mean and the standard deviation are those of the held-out documents, which those weights have never seen
        either, so that a document's fluency depends on no other and never changes. Raises DataError where they are all
        equally fluent, or impossible.
        """
        known, tokens = self.references.initial[model].per_document()
        deviation = (known / tokens).std()
        if not deviation > 0:
            raise DataError(f'model "{model}" is no judge: it finds held-out documents equally fluent, or impossible.')
        nats, units = self._score(model, docs)
        z: NDArray[np.float64] = np.clip(((known / tokens).mean() - nats / units) / deviation, -1e6, 1e6)
        return z

    def _near_duplicate(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return each document's earliest near-duplicate among all that were ever published (or null)."""
        index = self._near.setdefault((num_perm, shingle, threshold), NearDuplicates(num_perm, shingle, threshold))
        last = self.corpus.last_id
        if len(index) <= last:
            ids = pl.Series(np.arange(len(index), last + 1))
            index.add(ids, self.corpus.contents(ids))
        return index.earliest(docs)


class _Cohorts(dict[str, Cohort]):
    """Cohorts by the name of their model; one that is asked for and not there is built."""

    def __init__(self, build: Callable[[str], Cohort]) -> None:
        super().__init__()
        self._build = build

    def __missing__(self, name: str) -> Cohort:
        self[name] = cohort = self._build(name)
        return cohort


def _once(
    known: dict[int, tuple[float, int]],
    docs: pl.Series,
    ask: Callable[[pl.Series], tuple[NDArray[np.float64], NDArray[np.int64]]],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what is known of documents; what is not is asked for, and known from then on."""
    new = docs.filter(~docs.is_in(list(known))) if known else docs
    if new.len():
        values, counts = ask(new)
        known.update(zip(new.to_list(), zip(values.tolist(), counts.tolist(), strict=True), strict=True))
    found = [known[doc] for doc in docs.to_list()]
    return np.array([f[0] for f in found], dtype=np.float64), np.array([f[1] for f in found], dtype=np.int64)


def _content_type(reservoirs: Mapping[str, Reservoir]) -> pl.DataType:
    """Return the type of all sources' documents; raise DataError if they are vectors of different lengths."""
    types = {name: reservoir.held_out.dtype for name, reservoir in reservoirs.items()}
    if len(set(types.values())) > 1:
        told = ", ".join(f"{name}: {kind}" for name, kind in types.items())
        raise DataError(f"the documents of all sources must be of one type, but they are {told}.")
    return next(iter(types.values()), pl.String())
