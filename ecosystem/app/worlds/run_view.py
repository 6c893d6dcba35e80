"""Read a run folder for display, step by step, during the run or afterwards.

All panels draw from here, so that a live world and a stored run look alike. Nothing is recomputed: metrics and document
columns are read once per step, contents on demand.
"""

from __future__ import annotations

import math
import threading
from functools import cached_property

import networkx as nx
import numpy as np
import polars as pl

from ecosystem.corpus.schema import INDEX, INDEX_CHANGE, METRICS, empty
from ecosystem.corpus.web import Web
from ecosystem.report.data import RunReportData
from ecosystem.report.panels.site_map import layout, lines
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.streams import Streams

COLUMNS = ("doc", "t", "site", "synthetic", "depth", "author", "retired_at", "verdict")


class RunView:
    """The committed steps of a run folder as tables in memory; :meth:`refresh` reads new steps.

    ``scenario`` is that of the run, or the current one of a live world. ``metrics`` and ``events`` cover all steps
    read. ``documents`` holds every document ever published (COLUMNS), with its state after the last of these steps.
    """

    def __init__(self, run: Run, scenario: Scenario | None = None, *, through: int | None = None) -> None:
        self._through = through  # the last step to read; None: all
        self.run, self.scenario, self.last = run, scenario or run.scenario, -1
        self.metrics = empty(METRICS)
        self.documents = empty({name: INDEX[name] for name in COLUMNS})
        self.events: list[tuple[int, str]] = []
        self.most = 1  # largest number of documents on a site at any step: scales the areas of sites
        self._changes = empty(INDEX_CHANGE)
        self._report_data: tuple[Scenario, RunReportData] | None = None  # and the scenario that it was made for
        self._reading = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read the steps committed since the last call; raise StoreError if one is damaged."""
        with self._reading:
            store = self.run.store
            last = store.last() if self._through is None else self._through
            if last == self.last:
                return
            new = range(self.last + 1, last + 1)
            self.metrics = pl.concat([self.metrics, store.table("metrics", new)])
            changes = store.table("index", new)
            self._changes = pl.concat([self._changes, changes]).unique("doc", keep="last", maintain_order=True)
            documents = pl.concat([self.documents, store.table("corpus", new, COLUMNS)])
            self.documents = documents.update(self._changes.drop("weight"), on="doc", how="left")
            self.events += [(t, event) for t in new for event in store.state(t)["events"]]
            self._report_data, self.last = None, last
            self.most = max(self.most, *(int(self._on_sites(t)["documents"].max() or 1) for t in new))  # type: ignore[arg-type]

    @property
    def store(self) -> Store:
        """The run folder."""
        return self.run.store

    @property
    def report_data(self) -> RunReportData:
        """The data of the report's charts; axes extend to the scenario's last step."""
        scenario = self.scenario
        if self._report_data is None or self._report_data[0] is not scenario:
            data = RunReportData.of(self.run, self.metrics, scenario, max(scenario.steps, self.last))
            self._report_data = scenario, data
        return self._report_data[1]

    @property
    def called(self) -> str:
        """Name and seed, for file names."""
        return f"{self.run.scenario.name}-{self.run.seed}"

    @property
    def scale(self) -> float:
        """Documents of the largest dot: ``most``, rounded up so that the scale of a growing web seldom changes."""
        return math.exp(math.ceil(4 * math.log(self.most)) / 4)

    @cached_property
    def web(self) -> Web:
        """The initial site graph, without endorsements."""
        return Web(self.scenario.web, Streams(self.run.seed), self.run.base)

    @cached_property
    def places(self) -> pl.DataFrame:
        """The position of each site (site, name, x, y, curated), the same at every step."""
        graph = nx.Graph([(a, b) for a, b, _ in self.web.links()])
        graph.add_nodes_from(range(self.web.sites))
        at = dict(zip(graph.nodes, layout(graph).round(4).tolist(), strict=True))
        homes = [
            self.web.homes(f"curators/{name}/{number}", population.sites)
            for name, population in self.scenario.curators.items()
            for number in range(population.count)
        ]
        sites = range(self.web.sites)
        return pl.DataFrame(
            {
                "site": pl.Series(sites, dtype=pl.Int32),
                "name": self.web.labels(),
                "x": [at[site][0] for site in sites],
                "y": [at[site][1] for site in sites],
                "curated": np.isin(sites, np.concatenate([np.array([], np.int64), *homes])),
            }
        )

    @cached_property
    def links(self) -> pl.DataFrame:
        """The links to draw (x, y, x2, y2), each once; a sample if there are many."""
        once = sorted({(min(a, b), max(a, b)) for a, b, _ in self.web.links()})
        return lines(np.array(once, np.int64), self.places.select("x", "y").to_numpy())

    def live(self, step: int) -> pl.DataFrame:
        """Return the documents on the web after a step (COLUMNS)."""
        gone = pl.col("retired_at") <= step
        return self.documents.filter((pl.col("t") <= step) & pl.col("verdict").is_null() & ~gone.fill_null(value=False))

    def sites(self, step: int) -> pl.DataFrame:
        """Return ``places`` with the number of ``documents`` on each site after a step and their synthetic share.

        The share is the column ``value``, null for an empty site.
        """
        sites = self.places.join(self._on_sites(step), on="site", how="left", maintain_order="left")
        return sites.with_columns(pl.col("documents").fill_null(0))

    def _on_sites(self, step: int) -> pl.DataFrame:
        return self.live(step).group_by("site").agg(documents=pl.len(), value=pl.col("synthetic").mean())
