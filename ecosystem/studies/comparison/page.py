"""The report of several runs: one page with tables and charts, the same tables as files, and a text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from ecosystem.formats import counted
from ecosystem.metrics.limits import limits
from ecosystem.report import charts, publish
from ecosystem.report.charts import ChartTheme
from ecosystem.report.html import Figure, Source, Table, environment, tinted
from ecosystem.report.over_seeds import add_link
from ecosystem.report.run_charts import metric_labels
from ecosystem.runs.store import Store
from ecosystem.studies.comparison.groups import Group, courses, differences, over_seeds, settings
from ecosystem.studies.comparison.seeds import Seeds
from ecosystem.studies.comparison.seeds_page import SHOWN, write_seeds
from ecosystem.studies.report.profile import profile_part, profile_section
from ecosystem.studies.results import write_table

PAGES = environment(Path(__file__).with_name("templates"))
DRAWN = ("cross_entropy", "perplexity", "synthetic_share", "distinct_2", "vocabulary_kept_1", "depth", "reward")
FIRST = ("cross_entropy", "synthetic_share", "distinct_2")  # of the terminal's table, which shows these alone
_MOST_CHARTS = 12


@dataclass(frozen=True)
class Comparison:
    """Groups of runs with their metrics over seeds up to the last common step, and differences to the first group."""

    groups: list[Group]
    last: int
    series: list[pl.DataFrame]  # of courses, one for each group
    summary: pl.DataFrame  # of over_seeds
    differences: pl.DataFrame
    settings: list[tuple[str, list[str]]]

    @classmethod
    def of(cls, groups: Sequence[Group]) -> Comparison:
        """Read the runs; raises StoreError if a file of one is damaged."""
        last = min(group.last_step for group in groups)
        series = [courses(group, last) for group in groups]
        compared = differences(series) if len(groups) > 1 else pl.DataFrame()
        return cls(list(groups), last, series, over_seeds(pl.concat(series)), compared, settings(groups))

    def seeds(self) -> Iterator[Seeds]:
        """Yield each scenario over its seeds."""
        for group, series in zip(self.groups, self.series, strict=True):
            yield Seeds(group, self.last, series, self.summary.filter(pl.col("group") == group.name))

    @property
    def final(self) -> pl.DataFrame:
        """The summary at the last common step."""
        return self.summary.filter(pl.col("step") == self.last)

    def plain(self) -> dict[str, Any]:
        """Return everything as data for JSON."""
        return {
            "groups": [
                {"name": g.name, "runs": [str(run.path) for run in g.runs], "seeds": [run.seed for run in g.runs]}
                for g in self.groups
            ],
            "step": self.last,
            "settings": [{"path": path, "values": values} for path, values in self.settings],
            "metrics": self.final.to_dicts(),
            "differences": self.differences.to_dicts(),
        }

    def text(self) -> str:
        """Return the tables for the terminal, of the most important metrics."""
        lines = [f"{g.name}: seeds {', '.join(str(run.seed) for run in g.runs)}" for g in self.groups]
        if len(self.groups) > 1:
            lines += ["", "settings that differ", *self._settings_text()]
        head = f"mean and 95 % interval over seeds at {self.groups[0].scenario.step_name(self.last)}"
        lines += ["", head, *_aligned([list(row) for row in self.rows(only=FIRST)])]
        if self.differences.height:
            lines += ["", f"difference to {self.groups[0].name}", *_aligned(self.difference_rows(only=FIRST))]
        return "\n".join(lines)

    def _settings_text(self) -> list[str]:
        rows = [["", *(group.name for group in self.groups)], *([path, *values] for path, values in self.settings)]
        return _aligned(rows) if self.settings else ["none"]

    def rows(self, only: Sequence[str] = ()) -> list[list[str]]:
        """Return group, population, metric, mean, interval and number of seeds of each metric at the last step."""
        return [
            [row["group"], row["of"], _title(row), f"{row['mean']:.4g}", _ends(row), str(row["seeds"])]
            for row in self.final.iter_rows(named=True)
            if not only or (row["metric"] in only and row["scope"] != "training_set")
        ]

    def difference_rows(self, only: Sequence[str] = ()) -> list[list[str]]:
        """Return group, population, metric, difference, interval, effect size, and how they were found."""
        return [
            [row["group"], row["of"], _title(row), f"{row['difference']:+.4g}", _ends(row), _size(row), _by(row)]
            for row in self.differences.iter_rows(named=True)
            if not only or (row["metric"] in only and row["scope"] != "training_set")
        ]


def write(comparison: Comparison, folder: Path, title: str) -> Path:
    """Write the page ``report.html``, its charts, and the tables as Parquet and CSV; return the path of the page.

    One scenario over its seeds has another page than several scenarios, and the reports of its runs link to it.
    """
    if len(comparison.groups) == 1:
        page = write_seeds(next(comparison.seeds()), folder)
        for run in comparison.groups[0].runs:
            add_link(run)
        return page
    groups, specs, figures = comparison.groups, {}, []
    names = [group.name for group in groups]
    store = Store(folder)
    for name, chart in _charts(comparison).items():
        specs[name] = charts.specification(chart)
        figures.append(Figure.of(name, specs[name], Source(folder.resolve().name)))
    head = ["setting", *names]
    different = [[path, *values] for path, values in comparison.settings]
    columns = ["runs", "of", "metric", "difference", "95 % interval", "g", "from"]
    differing = Table(columns, comparison.difference_rows(), (0, 1, 2, 6))
    columns = ["runs", "of", "metric", "mean", "95 % interval", "seeds"]
    tables = [
        ("Settings that differ", Table(head, different, tuple(range(len(head))))),
        (f"Differences to {names[0]}", differing),
        ("Over seeds", Table(columns, comparison.rows(), (0, 1, 2))),
    ]
    context = {
        "title": title,
        "description": "",
        "facts": {"step": comparison.last, "scenarios": len(names), "runs": sum(len(g.runs) for g in groups)},
        "titles": _titles([name for name, _ in tables]),
        "groups": [tinted(names, group.name, counted(len(group.runs), "seed")) for group in groups],
        "tables": tables,
        "figures": figures,
        "method": _method(comparison),
        "profile": _profile(comparison, names),
    }
    with store.lock():
        write_table(store, "over_seeds", comparison.summary)
        if comparison.differences.height:
            write_table(store, "differences", comparison.differences)
        return publish(store, "comparison.html", context, specs, len(names), PAGES)


def _titles(tables: Sequence[str]) -> dict[str, str]:
    first, *others = [(f"part-{i}", name) for i, name in enumerate(tables)]
    return dict([first, ("courses", "Over time"), *others, ("profile", "Collapse profile")])


def _profile(comparison: Comparison, names: Sequence[str]) -> Markup:
    """Return in how many runs of each scenario the definitions of collapse hold, for each population."""
    verdicts, changes = [], []
    for seeds in comparison.seeds():
        verdicts.append(seeds.verdicts.with_columns(arm=pl.lit(seeds.group.name)))
        changes.append(seeds.changes.with_columns(arm=pl.lit(seeds.group.name)))
    every, moved = pl.concat(verdicts), pl.concat(changes)
    calendar = comparison.groups[0].scenario.calendar
    parts = [
        profile_part(of, every.filter(population=of), moved.filter(population=of), names, calendar, "runs")
        for of in every["population"].unique(maintain_order=True)
    ]
    return profile_section(parts, len(names), "scenario")


def _charts(comparison: Comparison) -> dict[str, Any]:
    """Return a chart of the course of each important metric of each population, a line for each group, by name."""
    calendars = {group.scenario.calendar for group in comparison.groups}
    calendar = calendars.pop() if len(calendars) == 1 else None
    theme = ChartTheme([group.name for group in comparison.groups], comparison.last, calendar=calendar)
    drawn: dict[str, Any] = {}
    every = pl.concat(comparison.series)
    rows = comparison.summary.filter(pl.col("metric").is_in(DRAWN) & pl.col("scope").is_in(["trainer", "web"]))
    order = {metric: i for i, metric in enumerate(DRAWN)}
    parts = rows.partition_by("scope", "of", "metric", as_dict=True, maintain_order=True)
    for (_, of, metric), part in sorted(parts.items(), key=lambda item: order[str(item[0][2])])[:_MOST_CHARTS]:
        frame = part.select(
            population="group", step="step", value="mean", error=(pl.col("high") - pl.col("low")) / 2, members="seeds"
        ).sort("step", maintain_order=True)
        labels, log = metric_labels(str(metric), SHOWN)
        labels = replace(labels, title=f"{of}: {labels.title}")
        scope = part["scope"][0]
        single = every.filter(pl.col("scope") == scope, pl.col("of") == of, pl.col("metric") == metric)
        single = single.select(
            "step", "value", "error", population="group", trainer=pl.format("{}, seed {}", "group", "seed")
        )
        drawn[f"{metric}_{str(of).replace('/', '_')}"] = charts.over_steps(
            frame, theme, labels, single=single, log=log, limits=limits(str(metric))
        )
    return drawn


def _method(comparison: Comparison) -> str:
    text = (
        "Intervals over seeds are Student's (95 %). Trainers of a population are averaged first. "
        "Differences are paired by common seeds where there are two or more, since runs with one seed share their "
        "noise; otherwise they are from independent seeds (Welch), or of single runs with the errors of measurement "
        "alone, which leave out how much runs differ by chance. g is Hedges' g with its 95 % interval: the difference "
        "in standard deviations of the paired differences (Cohen's d_z), or pooled ones of independent seeds, without "
        "its bias in few seeds. "
    )
    if comparison.differences["seeds"].max() == 1:
        return text + "These are single runs: effect sizes need several seeds of each scenario (ecosystem run --seeds)."
    return text + "Effect sizes are left out below three seeds."


def _title(row: dict[str, Any]) -> str:
    return f"{row['metric']} (training set)" if row["scope"] == "training_set" else str(row["metric"])


def _ends(row: dict[str, Any]) -> str:
    return "–" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}"


def _size(row: dict[str, Any]) -> str:
    if row["size"] is None:
        return "–"
    return f"{row['size']:+.1f} ({row['size_low']:+.1f} to {row['size_high']:+.1f})"


def _by(row: dict[str, Any]) -> str:
    return f"{row['seeds']} {row['by']}" if row["seeds"] > 1 else str(row["by"])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
