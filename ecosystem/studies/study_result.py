"""The result of a study: its tables, its report, and its card and charts for notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl

from ecosystem.cards import Grid, card
from ecosystem.errors import EcosystemError, nearest
from ecosystem.studies import analysis
from ecosystem.studies.results import Results
from ecosystem.studies.spec.study import Study

if TYPE_CHECKING:
    import pandas as pd

    from ecosystem.studies.report.plots import StudyPlots

StudyTable = Literal["effects", "runs", "values", "series", "costs"]


@dataclass(frozen=True)
class StudyResult:
    """The result of a study: its tables, its folder, its report and its duration."""

    results: Results
    folder: Path
    report: Path
    seconds: float
    run_seconds: float  # sum over all runs

    @property
    def study(self) -> Study:
        """The study itself."""
        return self.results.study

    @property
    def effects(self) -> pl.DataFrame:
        """The effects of all arms (columns: the fields of :class:`analysis.Row`)."""
        return analysis.effect_table(analysis.compare_arms(self.results))

    @cached_property
    def plot(self) -> StudyPlots:
        """The charts of this study as Altair objects: ``result.plot.effects()``, ``result.plot["cost_…"]``."""
        from ecosystem.studies.report.plots import StudyPlots

        return StudyPlots(self.results)

    def to_pandas(self, table: StudyTable = "effects") -> pd.DataFrame:
        """Return a table as a pandas data frame.

        ``table``: ``effects`` (arms against the base arm), ``runs``, ``values`` (a measure of every run), ``series``
        (metrics over steps) or ``costs``. Raises EcosystemError for another name.
        """
        if table not in get_args(StudyTable):
            names = get_args(StudyTable)
            raise EcosystemError(
                f'there is no table "{table}"{nearest(str(table), names)}; choose from {", ".join(names)}.'
            )
        frame: pl.DataFrame = self.effects if table == "effects" else getattr(self.results, table)
        return frame.to_pandas()

    def __repr__(self) -> str:
        return f"<StudyResult {self.study.name}: {self.results.runs.height} runs, report {self.report}>"

    def _repr_html_(self) -> str:
        failed = int(self.results.runs["error"].is_not_null().sum())
        facts = {"runs": self.results.runs.height, "failed": failed or None, "report": str(self.report)}
        columns = ["measure", "world", "arm", "seeds", "base_mean", "effect", "low", "high", "p_holm"]
        rows = self.effects.select(columns).rows() if self.study.compares else []
        grid = Grid(f"Arms against {self.study.base_arm if self.study.compares else ''}", columns, rows)
        return card(f"Study {self.study.name}", self.study.description, facts, grid)

    def summary(self) -> dict[str, Any]:
        """Return a machine-readable summary."""
        failed = self.results.runs.filter(self.results.runs["error"].is_not_null())
        return {
            "study": str(self.folder),
            "report": str(self.report),
            "runs": self.results.runs.height,
            "failed": failed.select("arm", "world", "seed", "error").to_dicts(),
            "untrained": self.results.training.filter(pl.col("never") + pl.col("stopped") > 0).to_dicts(),
            "profile": self.results.profile.to_dicts(),
            "seconds": round(self.seconds, 1),
            "seconds_of_runs": round(self.run_seconds, 1),
        }
