"""The numbers of one scenario over several seeds: final figures, populations compared, and the collapse profile."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import polars as pl

from ecosystem.metrics.catalogue import plugged_in
from ecosystem.report import run_charts, summaries
from ecosystem.report.data import RunReportData
from ecosystem.report.profile import signals
from ecosystem.report.tables import FINAL
from ecosystem.studies.comparison.groups import WEB, Group, over_seeds
from ecosystem.studies.statistics import Effect, effects, holm

CONTAMINATION = ("synthetic_share", "depth")
_KEY = {name: pl.lit("") for name in ("group", "scope", "metric")}


@dataclass(frozen=True)
class Seeds:
    """Runs of one scenario with several seeds, up to the last step that all of them have."""

    group: Group
    last: int
    series: pl.DataFrame  # of courses
    summary: pl.DataFrame  # of over_seeds

    @property
    def number(self) -> int:
        """The number of seeds."""
        return len(self.group.runs)

    @property
    def populations(self) -> list[str]:
        """Populations of trainers, in the order of their colours."""
        return list(self.group.scenario.trainers)

    @cached_property
    def readers(self) -> list[RunReportData]:
        """What the report of each run reads, up to the last common step."""
        tables = [run.store.table("metrics").filter(pl.col("step") <= self.last) for run in self.group.runs]
        return [
            RunReportData.of(run, metrics, last=self.last) for run, metrics in zip(self.group.runs, tables, strict=True)
        ]

    @cached_property
    def metrics(self) -> list[str]:
        """The metrics of models that are reported, those of most interest first."""
        text = self.group.scenario.modality == "text"
        predicted = [theory.metric for theory in self.group.scenario.theory]
        names = [*run_charts.QUALITY, *FINAL, *run_charts.TEXT] if text else run_charts.PARAMETERS
        measured = set(self.series.filter(pl.col("scope").is_in(["trainer", "community"]))["metric"].unique())
        return [m for m in dict.fromkeys([*predicted, *names, *plugged_in()]) if m in measured]

    def by_seed(self, metric: str, scope: str = "trainer") -> pl.DataFrame:
        """Return a metric of each population in each run: population, trainer (the seed), step, value, error.

        Metrics of quality begin with the initial weights, as in the report of a run.
        """
        if metric in run_charts.QUALITY and scope == "trainer":
            return pl.concat(list(self._from_start(metric)))
        rows = self.series.filter((pl.col("scope") == scope) & (pl.col("metric") == metric))
        return rows.select("step", "value", "error", population="of", trainer=_seed(pl.col("of"), pl.col("seed")))

    def _from_start(self, metric: str) -> Iterator[pl.DataFrame]:
        for run, data in zip(self.group.runs, self.readers, strict=True):
            means = summaries.means(summaries.from_start(data.metrics, metric, data.started))
            seed = _seed(pl.col("population"), pl.lit(run.seed))
            yield means.select("step", "value", "error", "population", trainer=seed)

    def over_seeds_of(self, single: pl.DataFrame) -> pl.DataFrame:
        """Return mean, half of its 95 % interval and number of seeds of a table of :meth:`by_seed`, for a chart."""
        rows = single.select("step", "value", "error", of="population", **_KEY)
        means = over_seeds(rows).sort("step", maintain_order=True)
        half = (pl.col("high") - pl.col("low")) / 2
        return means.select("step", population="of", value="mean", error=half, members="seeds")

    def final(self, metric: str, of: str, scope: str = "trainer") -> tuple[float, float | None, int] | None:
        """Return mean, standard error over seeds and number of seeds of a metric at the last step; None: not there."""
        key = {"scope": scope, "of": of, "metric": metric}
        rows = self._final.filter(*(pl.col(name) == value for name, value in key.items()))
        return rows.select("mean", "error", "seeds").row(0) if rows.height else None

    @cached_property
    def _final(self) -> pl.DataFrame:
        return self.summary.filter(pl.col("step") == self.last)

    def contrasts(self, metrics: Sequence[str]) -> list[Effect]:
        """Compare every population with the first one, seed by seed, at the last step, in each of these metrics.

        Holm's correction is over the populations of a metric. Metrics and populations with fewer than two common seeds
        are left out.
        """
        final = self.series.filter((pl.col("step") == self.last) & (pl.col("scope") == "trainer"))
        found: list[Effect] = []
        for metric in metrics:
            values = {
                name: final.filter((pl.col("metric") == metric) & (pl.col("of") == name)).select("seed", "value")
                for name in self.populations
            }
            pairs = list(self._pairs(metric, values))
            corrected = holm([effect.p for effect in pairs])
            found += [replace(effect, holm=p) for effect, p in zip(pairs, corrected, strict=True)]
        return found

    def _pairs(self, metric: str, values: Mapping[str, pl.DataFrame]) -> Iterator[Effect]:
        base, *others = values
        for name in others:
            both = values[base].join(values[name], on="seed", suffix="_other").sort("seed")
            if both.height > 1:
                yield effects(metric, both["value"].to_numpy(), {name: both["value_other"].to_numpy()})[0]

    @cached_property
    def verdicts(self) -> pl.DataFrame:
        """The collapse profile of every run: population, definition, holds, …, and the seed."""
        runs = zip(self.group.runs, self.readers, strict=True)
        return pl.concat([data.profile.with_columns(seed=pl.lit(run.seed, pl.Int64)) for run, data in runs])

    @cached_property
    def changes(self) -> pl.DataFrame:
        """The changes of the early-warning signals of every run: population, signal, step, change, seed."""
        runs = zip(self.group.runs, self.readers, strict=True)
        parts = [
            signals.changes(data.metrics).with_columns(seed=pl.lit(run.seed, pl.Int64)).rename({"value": "change"})
            for run, data in runs
        ]
        return pl.concat(parts)

    def web(self, metric: str) -> pl.DataFrame:
        """Return a metric of the web, mean over seeds: step, value, error."""
        rows = self.summary.filter((pl.col("scope") == WEB) & (pl.col("metric") == metric)).sort("step")
        return rows.select("step", "error", value="mean")


def _seed(of: pl.Expr, seed: pl.Expr) -> pl.Expr:
    return pl.format("{}, seed {}", of, seed)
