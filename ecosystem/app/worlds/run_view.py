"""A run folder read for display, step by step, while it is being written or afterwards.

Everything that a panel shows comes from here, so that a live world and a stored run look alike. Nothing is recomputed:
a step's metrics and the documents' columns are read once, contents when they are opened.
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
    """The committed steps of a run folder, as tables in memory; :meth:`refresh` reads what has been added.

    ``scenario`` is that of the run, or the one that a live world is at now. ``metrics`` and ``events`` are those of all
    steps read, ``documents`` every document ever published (COLUMNS), with its state after the last of them.
    """

    def __init__(self, run: Run, scenario: Scenario | None = None, *, through: int | None = None) -> None:
        self._through = through  # the last step that is of interest
        self.run, self.scenario, self.last = run, scenario or run.scenario, -1
        self.metrics = empty(METRICS)
        self.documents = empty({name: INDEX[name] for name in COLUMNS})
        self.events: list[tuple[int, str]] = []
        self.most = 1  # documents that any site had at any step: the scale of the areas of sites
        self._changes = empty(INDEX_CHANGE)
        self._report_data: tuple[Scenario, RunReportData] | None = None  # and the scenario that it was made for
        self._reading = threading.Lock()
        self.refresh()

    def refresh(self) -> None:
        """Read the steps that were committed since the last call; raise StoreError where one is damaged."""
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
        """What the charts that a report has are drawn from; its axes reach to the scenario's last step."""
        scenario = self.scenario
        if self._report_data is None or self._report_data[0] is not scenario:
            data = RunReportData.of(self.run, self.metrics, scenario, max(scenario.steps, self.last))
            self._report_data = scenario, data
        return self._report_data[1]

    @property
    def called(self) -> str:
        """Name and seed, as a file may be called."""
        return f"{self.run.scenario.name}-{self.run.seed}"

    @property
    def scale(self) -> float:
        """Documents of the largest dot: ``most``, rounded up so that a growing web seldom gets another scale."""
        return math.exp(math.ceil(4 * math.log(self.most)) / 4)

    @cached_property
    def web(self) -> Web:
        """The site graph as it was laid out, without endorsements."""
        return Web(self.scenario.web, Streams(self.run.seed), self.run.base)

    @cached_property
    def places(self) -> pl.DataFrame:
        """Where each site is drawn: site, name, x, y, curated; the same at every step."""
        graph = nx.Graph([(a, b) for a, b, _ in self.web.links()])
        graph.add_nodes_from(range(self.web.sites))
        at = dict(zip(graph.nodes, layout(graph).round(4).tolist(), strict=True))
        homes = [
            self.web.homes(f"curators/{name}/{number}", recipe.sites)
            for name, recipe in self.scenario.curators.items()
            for number in range(recipe.count)
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
        """The links that are drawn, each once: x, y, x2, y2; of many, some."""
        once = sorted({(min(a, b), max(a, b)) for a, b, _ in self.web.links()})
        return lines(np.array(once, np.int64), self.places.select("x", "y").to_numpy())

    def live(self, step: int) -> pl.DataFrame:
        """Return the documents that were on the web after a step, with COLUMNS."""
        gone = pl.col("retired_at") <= step
        return self.documents.filter((pl.col("t") <= step) & pl.col("verdict").is_null() & ~gone.fill_null(value=False))

    def sites(self, step: int) -> pl.DataFrame:
        """Return what is on every site after a step: the columns of ``places``, documents, and their synthetic share.

        The share is called ``value`` and is null where a site is empty.
        """
        sites = self.places.join(self._on_sites(step), on="site", how="left", maintain_order="left")
        return sites.with_columns(pl.col("documents").fill_null(0))

    def _on_sites(self, step: int) -> pl.DataFrame:
        return self.live(step).group_by("site").agg(documents=pl.len(), value=pl.col("synthetic").mean())
