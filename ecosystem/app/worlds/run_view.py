"""Read a run folder for display, step by step, during the run or afterwards.

All panels draw from here, so that a live world and a stored run look alike. Nothing is recomputed: metrics and document
columns are read once per step, contents on demand.
"""

from __future__ import annotations

import math
import threading
from functools import cache
from pathlib import Path

import polars as pl

from ecosystem.app.worlds.site_map import SiteMap
from ecosystem.corpus.schema import INDEX, INDEX_CHANGE, LEFT, METRICS, empty
from ecosystem.report.data import RunReportData
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario

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
        explained = self.run.scenario.web.types is not None  # whether it is stored why documents left
        self._reasons = LEFT if explained else {}
        self.documents = empty({name: INDEX[name] for name in COLUMNS} | self._reasons)
        self.events: list[tuple[int, str]] = []
        self.most = 1  # largest number of documents on a site at any step: scales the areas of sites
        self._changes = empty(INDEX_CHANGE | self._reasons)
        self._map: tuple[object, SiteMap] | None = None  # and what it was made of
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
            published = store.table("corpus", new, COLUMNS)
            published = published.with_columns(pl.lit(None, dtype).alias(name) for name, dtype in self._reasons.items())
            documents = pl.concat([self.documents, published])
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

    @property
    def map(self) -> SiteMap:
        """The site graph with a position for each site, and every link and site of the run until its last step.

        It changes only if the web that is to be drawn changes.
        """
        through = 0 if self.scenario.web.types is None else max(self.scenario.steps, self.last)
        changed = [(c.at, p, v) for c in self.scenario.changes for p, v in c.set.items() if p.startswith("web.")]
        made_of = through, self.scenario.web, changed
        if self._map is None or self._map[0] != made_of:
            self._map = made_of, SiteMap.of(self.scenario, self.run, through)
        return self._map[1]

    @property
    def places(self) -> pl.DataFrame:
        """The position of each site (site, name, x, y, curated), the same at every step."""
        return self.map.places

    @property
    def links(self) -> pl.DataFrame:
        """The links to draw (x, y, x2, y2), each once; a sample if there are many."""
        return self.map.links

    def live(self, step: int) -> pl.DataFrame:
        """Return the documents on the web after a step (COLUMNS)."""
        gone = pl.col("retired_at") <= step
        return self.documents.filter((pl.col("t") <= step) & pl.col("verdict").is_null() & ~gone.fill_null(value=False))

    def sites(self, step: int) -> pl.DataFrame:
        """Return ``places`` with the number of ``documents`` on each site after a step and their synthetic share.

        The share is the column ``value``, null for an empty site. A site that is not born yet, or dead, has no x and y.
        """
        sites = self.places.join(self._on_sites(step), on="site", how="left", maintain_order="left")
        there = pl.lit(pl.Series(self.map.there(step)))
        return sites.with_columns(pl.col("documents").fill_null(0), pl.when(there).then(pl.col("x", "y")))

    def links_at(self, step: int) -> pl.DataFrame:
        """Return ``links``, in which those of sites that are not born yet, or dead, have no ends."""
        there = self.map.there(step)[self.map.pairs].all(axis=1)
        return self.links.select(pl.when(pl.lit(pl.Series(there))).then(pl.all()))

    def _on_sites(self, step: int) -> pl.DataFrame:
        return self.live(step).group_by("site").agg(documents=pl.len(), value=pl.col("synthetic").mean())


@cache
def stored(path: Path) -> RunView:
    """Read a stored run and lay out its web; cached for all tabs."""
    view = RunView(Run.open(path))
    _ = view.places, view.links
    return view
