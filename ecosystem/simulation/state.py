"""The state of a world: everything that a step reads and changes, without Mesa."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.corpus import Corpus
from ecosystem.corpus.life.pages import PageLives
from ecosystem.corpus.schema import ARCHIVE, empty
from ecosystem.corpus.web import Web
from ecosystem.families.base import Progress, silent
from ecosystem.policies.base import Context, Policy, gate
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.agents import Curator, Trainer, Writer
from ecosystem.simulation.choices.strategies import Choices
from ecosystem.simulation.classifiers import Classifiers
from ecosystem.simulation.clock import Clock
from ecosystem.simulation.references import References
from ecosystem.simulation.services import Cohorts, Services
from ecosystem.sources.base import Reservoir, Truth
from ecosystem.streams import Stream, Streams

Purchases = dict[str, dict[str, set[int]]]
"""Rows of sources that have been paid for, by policy and source."""


@dataclass
class State:
    """The state of a web with its writers, trainers and curators.

    ``scenario`` is the one in force (timed changes applied), ``base_scenario`` the one that was read. ``drawn`` counts
    the documents that people have drawn from each source. ``choices`` holds the strategies of every population of
    writers with a choice, and ``measured`` the values of the last step by scope, id and metric. ``archive`` holds the
    archives of trainers (columns of ``schema.ARCHIVE``), and ``events`` the sentences to store with the step.
    """

    streams: Streams
    base_scenario: Scenario
    scenario: Scenario
    reservoirs: dict[str, Reservoir]
    corpus: Corpus
    web: Web
    cohorts: Cohorts
    services: Services
    progress: Progress = silent
    clock: Clock = field(default_factory=Clock)
    threads: int = 1
    t: int = 0
    writers: list[Writer] = field(default_factory=list)
    curators: list[Curator] = field(default_factory=list)
    trainers: list[Trainer] = field(default_factory=list)  # those that are there at this step
    all_trainers: list[Trainer] = field(default_factory=list)
    drawn: dict[str, int] = field(default_factory=dict)
    choices: dict[str, Choices] = field(default_factory=dict)
    measured: dict[tuple[str, str, str], float] = field(default_factory=dict)
    pages: PageLives | None = None  # on a web with types: when each document dies
    archive: pl.DataFrame = field(default_factory=lambda: empty(ARCHIVE))
    purchases: Purchases = field(default_factory=dict)
    shortfalls: dict[str, list[tuple[int, int]]] = field(
        default_factory=dict
    )  # at this step, per path of an adder or of a share of what a trainer reads: (wanted, given)
    events: list[str] = field(default_factory=list)
    in_force: set[str] = field(default_factory=set)  # policies with a condition that holds
    unmeasured: set[str] = field(default_factory=set)  # those whose condition could not be decided; paths of choices
    classifiers: Classifiers = field(init=False)
    references: References = field(init=False)  # for models of text
    truth: Truth | None = None  # for models of vectors and categories

    def __post_init__(self) -> None:
        self.classifiers = Classifiers(self)

    def stream(self, name: str) -> Stream:
        """Return the named stream at the current step."""
        return self.streams.at(name, self.t)

    def note(self, event: str) -> None:
        """Record an event (a source ran dry, a trainer starved); it is stored with the step."""
        self.events.append(event)

    def refusing(self) -> NDArray[np.bool_] | None:
        """Return whether each site refuses crawlers at this step, [sites]; None if there is no such setting."""
        types, sites = self.scenario.web.types, self.web.population
        if types is None or sites is None or all(entry.refuses is None for entry in types.values()):
            return None
        return sites.refusing(types, self.t)

    def draw(self, source: str, n: int, who: str) -> NDArray[np.int64]:
        """Take the next ``n`` rows of a source for people; fewer, with a recorded event, if it runs dry."""
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
        indexed = rows.with_row_index("place")
        parts: list[pl.DataFrame] = []
        for (source,), group in indexed.group_by("source", maintain_order=True):
            if source is None:
                content = self.corpus.contents(group["document"])
            else:
                content = self.reservoirs[str(source)].rows(group["document"].to_numpy())
            parts.append(group.select("place").with_columns(content=content))
        return pl.concat(parts).sort("place")["content"]

    def policies(self, names: Sequence[str]) -> list[tuple[str, Policy]]:
        """Return (name, policy) pairs from the scenario in force."""
        return [(name, self.scenario.policies[name]) for name in names]

    def enforced(self, names: Sequence[str]) -> list[tuple[str, Policy]]:
        """Return (name, policy) pairs without the policies whose condition does not hold at this step."""
        return [(name, policy) for name, policy in self.policies(names) if policy.when is None or name in self.in_force]

    def context(self, reader: str) -> Callable[[str], Context]:
        """Return a function from policy name to its context at a gate of ``reader`` (a trainer, or "web")."""

        def context_of(policy: str) -> Context:
            path = f"policies.{policy}"
            return Context(
                policy=policy,
                reader=reader,
                t=self.t,
                stream=self.stream(f"policies/{policy}/{reader}"),
                static_stream=self.streams.at(f"policies/{policy}"),
                corpus=self.services.corpus,
                sources=self.services.sources,
                models=self.services.models,
                classifiers=self.classifiers,
                truth=self.services.labels(self.truth),
                report_shortfall=lambda wanted, given: self.shortfalls.setdefault(path, []).append((wanted, given)),
                refused_by=lambda other, docs: self._refused_by(other, docs, context_of),
            )

        return context_of

    def _refused_by(self, policy: str, docs: pl.Series, context: Callable[[str], Context]) -> NDArray[np.bool_]:
        """Return which documents a filter of the scenario would refuse, if it were alone at this gate."""
        rows = self.corpus.rows(docs.to_numpy()).drop("verdict", "reason").with_columns(weight=pl.lit(1.0))
        return gate(rows, self.policies([policy]), context)["verdict"].is_not_null().to_numpy()
