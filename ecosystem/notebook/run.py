"""``ecosystem.Run``: a stored run, with a card, charts and tables for notebooks."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import polars as pl

from ecosystem.cards import Grid, card
from ecosystem.errors import EcosystemError, nearest
from ecosystem.report import summaries
from ecosystem.runs.run import Run as StoredRun
from ecosystem.runs.run import require_run_folder

if TYPE_CHECKING:
    import pandas as pd

    from ecosystem.notebook.run_plots import RunPlots

RunTable = Literal["metrics", "costs", "documents", "ledger", "events"]
_SHOWN = (
    "cross_entropy",
    "perplexity",
    "distinct_2",
    "mean_error",
    "variance",
    "gini_simpson",
    "accuracy",
)  # on a card


class Run(StoredRun):
    """A stored run. Notebooks show its card; :attr:`plot` has its charts, and :meth:`to_pandas` its tables."""

    def __init__(self, path: str | Path) -> None:
        """Raise StoreError if ``path`` is not a run folder."""
        require_run_folder(path)
        super().__init__(path)

    def __repr__(self) -> str:
        return f"<Run {self.path}: step {self.last_step} of {self.scenario.steps}>"

    def _repr_html_(self) -> str:
        scenario, metrics = self.scenario, self.store.table("metrics")
        share = summaries.series(metrics, "web", "synthetic_share")
        documents = summaries.series(metrics, "web", "documents")
        facts = {
            "folder": str(self.path),
            "steps": f"{self.last_step} of {scenario.steps}",
            "dates": None if self.calendar is None else self.calendar.span(0, self.last_step),
            "seed": self.seed,
            "documents": int(documents["value"][-1]) if documents.height else None,
            "synthetic share": f"{share['value'][-1]:.1%} of the web" if share.height else None,
            "computed": f"{self.seconds:,.0f} s on {self.environment.get('device_name', 'cpu')}",
            "report": str(self.path / "report.html") if (self.path / "report.html").is_file() else None,
        }
        events = [(scenario.step_name(step), event) for step, event in self.events]
        return card(
            f"Run of {scenario.name}",
            scenario.description,
            facts,
            self._last_figures(metrics),
            Grid("Events", ["at", "event"], events),
        )

    def _last_figures(self, metrics: pl.DataFrame) -> Grid:
        """Return the mean of each population at its last measurement."""
        means = {metric: summaries.means(summaries.members(metrics, metric)) for metric in _SHOWN}
        shown = [metric for metric, frame in means.items() if not frame.is_empty()]
        rows = []
        for population, spec in self.scenario.trainers.items():
            last = [summaries.at(means[metric], population) for metric in shown]
            rows.append((population, spec.count, *(None if value is None else value[0] for value in last)))
        return Grid("Trainers at their last measurement", ["population", "trainers", *shown], rows)

    @cached_property
    def plot(self) -> RunPlots:
        """The charts of this run as Altair objects: ``run.plot.quality()``, ``run.plot["refusals"]``."""
        from ecosystem.notebook.run_plots import RunPlots

        return RunPlots(self)

    def to_pandas(self, table: RunTable = "metrics") -> pd.DataFrame:
        """Return a table as a pandas data frame.

        ``table``: ``metrics`` (a row for every measurement), ``costs``, ``documents`` (every document and its content),
        ``ledger`` (every candidate and its verdict) or ``events``. Columns are those of :attr:`metrics`,
        :meth:`costs`, :attr:`documents` and :attr:`ledger`; ``events`` has step and event. Raises EcosystemError for
        another name.
        """
        if table == "metrics":
            frame = self.metrics
        elif table == "costs":
            frame = self.costs()
        elif table == "documents":
            frame = self.documents.collect()
        elif table == "ledger":
            frame = self.ledger.collect()
        elif table == "events":
            frame = pl.DataFrame(self.events, schema={"step": pl.Int64, "event": pl.String}, orient="row")
        else:
            names = ("metrics", "costs", "documents", "ledger", "events")
            raise EcosystemError(
                f'there is no table "{table}"{nearest(str(table), names)}; choose from {", ".join(names)}.'
            )
        return frame.to_pandas()
