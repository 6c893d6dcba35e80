"""The report over the seeds of one scenario: curves with intervals, final figures, effect sizes, collapse profile."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from markupsafe import Markup

from ecosystem.formats import counted
from ecosystem.metrics.limits import limits
from ecosystem.report import charts, publish
from ecosystem.report.charts import ChartLabels, ChartTheme
from ecosystem.report.findings import bold, listed, plus_minus, share, signed
from ecosystem.report.html import Cell, Cells, Column, Figure, Source, Table, environment, hue, tinted
from ecosystem.report.panels.contrasts import size_cell
from ecosystem.report.run_charts import metric_labels, metric_title, metric_unit
from ecosystem.report.sections import record_section
from ecosystem.report.tables import FINAL
from ecosystem.runs.store import Store
from ecosystem.studies.comparison.seeds import CONTAMINATION, Seeds
from ecosystem.studies.report.profile import profile_part, profile_section
from ecosystem.studies.results import write_table
from ecosystem.studies.statistics import Effect

PAGES = environment(Path(__file__).with_name("templates"))
APART = ("isolated", "islands")  # kinds of webs whose populations do not read each other
CHARTS = 12  # at most, of metrics of models
COLUMNS = 12  # at most, of the table of final figures
QUOTED = 3  # populations that are compared with the first in a sentence, at most
_POPULATIONS = 24  # above this many, their comparisons are those of the first metric alone
SHOWN = "mean over seeds; bands: 95 % interval of the mean; thin lines: single seeds"


@dataclass(frozen=True)
class SeedLink:
    """A run of the scenario: its seed, its report relative to the page ("": none), its last step and wall time."""

    seed: int
    report: str
    steps: int
    seconds: str


def write_seeds(seeds: Seeds, folder: Path) -> Path:
    """Write the page, its charts, and its tables as Parquet and CSV; return the path of the page."""
    specs: dict[str, dict[str, Any]] = {}
    figures = []
    for name, chart in _charts(seeds).items():
        specs[name] = charts.specification(chart)
        figures.append(Figure.of(name, specs[name], Source(folder.resolve().name)))
    contrasts = seeds.contrasts(seeds.metrics if len(seeds.populations) <= _POPULATIONS else seeds.metrics[:1])
    scenario, populations = seeds.group.scenario, seeds.populations
    context = {
        "title": f"{scenario.name}, {counted(seeds.number, 'seed')}",
        "name": scenario.name,
        "description": scenario.description,
        "facts": _facts(seeds),
        "populations": [tinted(populations, name) for name in populations],
        "findings": _findings(seeds, contrasts),
        "figures": figures,
        "final": _final(seeds),
        "contrasts": _contrasts(seeds, contrasts),
        "compared": len(populations) > 1,
        "base": populations[0] if populations else "",
        "n": seeds.number,
        "shared": scenario.web.graph not in APART,
        "profile": _profile(seeds),
        "every": _every(seeds),
        "runs": _runs(seeds, folder),
        "record": record_section(seeds.readers[0], seeds.group.runs),
    }
    store = Store(folder)
    with store.lock():
        write_table(store, "over_seeds", seeds.summary)
        write_table(store, "profile", seeds.verdicts)
        if contrasts:
            write_table(store, "contrasts", contrast_table(contrasts))
        return publish(store, "seeds.html", context, specs, len(populations), PAGES)


def contrast_table(contrasts: Sequence[Effect]) -> pl.DataFrame:
    """Return the comparisons of populations: metric, population, base, difference, low, high, g and others."""
    rows = [
        {
            "metric": effect.measure,
            "population": effect.arm,
            "seeds": effect.seeds,
            "base": effect.base_mean,
            "difference": effect.paired.mean,
            "low": effect.paired.low,
            "high": effect.paired.high,
            "size": effect.size.mean if effect.size else None,
            "size_low": effect.size.low if effect.size else None,
            "size_high": effect.size.high if effect.size else None,
            "p": effect.p,
            "p_holm": effect.holm,
        }
        for effect in contrasts
    ]
    return pl.DataFrame(rows, infer_schema_length=None)


def _facts(seeds: Seeds) -> dict[str, object]:
    scenario = seeds.group.scenario
    numbers = [run.seed for run in seeds.group.runs]
    facts = {
        "seeds": f"{listed([str(n) for n in numbers])} (n = {len(numbers)})",
        "steps": f"{seeds.last} of {scenario.steps}" if seeds.last < scenario.steps else str(seeds.last),
        "dates": None if scenario.calendar is None else scenario.calendar.span(0, seeds.last),
        "populations": len(seeds.populations) or None,
    }
    return {label: value for label, value in facts.items() if value is not None}


def _findings(seeds: Seeds, contrasts: Sequence[Effect]) -> list[str]:
    """State what the numbers over seeds show at the last step."""
    when = seeds.group.scenario.step_name(seeds.last)
    sentences = [f"Figures are means over {counted(seeds.number, 'seed')} at {when}, ± one standard error over seeds."]
    if (web := seeds.final("synthetic_share", "web", "web")) is not None:
        sentences.append(f"The synthetic share of the web is {share(*web[:2])}.")
    first = seeds.metrics[0] if seeds.metrics else ""
    for effect in [effect for effect in contrasts if effect.measure == first][:QUOTED]:
        size = f"g = {signed(effect.size.mean, 1)}, " if effect.size else ""
        sentences.append(
            f"{metric_title(first)}: {bold(effect.arm)} minus {bold(seeds.populations[0])} is "
            f"{' '.join([_difference(effect), metric_unit(first)]).rstrip()} (95 % interval {_ends(effect)}; {size}"
            f"{_p(effect)}; paired over {counted(effect.seeds, 'seed')})."
        )
    return sentences


def _p(effect: Effect) -> str:
    """State the p-value, with Holm's correction where that changes it; the interval has none."""
    corrected = f", {effect.holm:.2g} after Holm's correction" if effect.holm != effect.p else ""
    return f"p = {effect.p:.2g}{corrected}"


def _difference(effect: Effect) -> str:
    return f"{effect.paired.mean:+.3g}".replace("-", "−")


def _ends(effect: Effect) -> str:
    return f"{effect.paired.low:+.3g} to {effect.paired.high:+.3g}".replace("-", "−")


def _charts(seeds: Seeds) -> dict[str, Any]:
    """Return the charts over steps by name: models, then what the web and training sets consist of.

    Metrics that are always zero, such as repetitions or collapses that do not occur, are not drawn.
    """
    scenario = seeds.group.scenario
    theme = ChartTheme(seeds.populations, seeds.last, calendar=scenario.calendar)
    drawn: dict[str, Any] = {}
    moving = seeds.series.filter(pl.col("value") != 0)["metric"].unique().to_list()
    for metric in [metric for metric in seeds.metrics if metric in moving][:CHARTS]:
        labels, log = metric_labels(metric, SHOWN)
        drawn[metric] = _over_steps(seeds, metric, theme, labels, laws=seeds.readers[0].laws(metric), log=log)
        if drawn[metric] is None:
            drawn[metric] = _over_steps(seeds, metric, theme, labels, scope="community")
    for metric in CONTAMINATION:
        labels, _ = metric_labels(metric, SHOWN)
        web = seeds.web(metric).with_columns(label=pl.lit("web"))
        drawn[metric] = _over_steps(seeds, metric, theme, labels, scope="training_set", web=web)
    return {name: chart for name, chart in drawn.items() if chart is not None}


def _over_steps(
    seeds: Seeds, metric: str, theme: ChartTheme, labels: ChartLabels, *, scope: str = "trainer", **more: Any
) -> Any:
    single = seeds.by_seed(metric, scope)
    if scope == "community":
        theme = ChartTheme(
            single["population"].unique(maintain_order=True).to_list(), seeds.last, 0, (), theme.calendar
        )
    means = seeds.over_seeds_of(single)
    if means.is_empty() and more.get("web", means).is_empty():
        return None
    return charts.over_steps(means, theme, labels, single=single, limits=limits(metric), **more)


def _final(seeds: Seeds) -> Table | None:
    """Return mean ± standard error of each population at the last step."""
    shown = [m for m in ("cross_entropy", *FINAL) if m in seeds.metrics] or seeds.metrics
    shown = shown[:COLUMNS]
    head: list[Column | str] = [Column("population")]
    head += [FINAL[m][0] if m in FINAL else Column(metric_title(m), metric_unit(m)) for m in shown]
    head += [Column("synthetic share", "of the training set"), Column("depth", "of the training set")]
    rows: list[Cells] = []
    for of in seeds.populations:
        cells = [_estimate(seeds, seeds.final(m, of), FINAL[m][1] if m in FINAL else 3) for m in shown]
        sets = [
            (seeds.final(m, of, "training_set"), digits) for m, digits in zip(CONTAMINATION, (None, 2), strict=True)
        ]
        rows.append([tinted(seeds.populations, of), *cells, *(_estimate(seeds, value, d) for value, d in sets)])
    return Table(head, rows) if rows and shown else None


def _estimate(seeds: Seeds, value: tuple[float, float | None, int] | None, digits: int | None) -> Cell:
    if value is None:
        return Cell("–", soft=True)
    mean, error, number = value
    text = share(mean, error) if digits is None else plus_minus(mean, error, digits)
    return Cell(text, small="" if number == seeds.number else f"n = {number}")


def _contrasts(seeds: Seeds, contrasts: Sequence[Effect]) -> Table | None:
    rows: list[Cells] = [
        [
            metric_title(effect.measure),
            tinted(seeds.populations, effect.arm),
            Cell(_difference(effect), bold=effect.paired.significant),
            _ends(effect),
            size_cell(effect.size),
            f"{effect.p:.2g}",
            f"{effect.holm:.2g}",
            str(effect.seeds),
        ]
        for effect in contrasts
    ]
    head: list[Column | str] = [
        "metric",
        "population",
        "difference",
        "95 % interval",
        Column("g", "95 % interval"),
        "p",
        "p (Holm)",
        "n",
    ]
    return Table(head, rows, left=(0, 1)) if rows else None


def _profile(seeds: Seeds) -> Markup | None:
    """Return the share of seeds with each verdict, and the signals that left their baseline over seeds."""
    if not seeds.populations or seeds.verdicts.is_empty():
        return None
    part = profile_part(
        "",
        seeds.verdicts.rename({"population": "arm"}),
        seeds.changes.rename({"population": "arm"}),
        seeds.populations,
        seeds.group.scenario.calendar,
        "population",
    )
    return profile_section([part], len(seeds.populations))


def _every(seeds: Seeds) -> Table:
    """Return mean, standard error and interval of every metric at the last step."""
    rows: list[Cells] = [
        [
            Cell(row["of"], hue(seeds.populations, row["of"]) or None),
            row["metric"],
            row["scope"].replace("_", " "),
            f"{row['mean']:.4g}",
            "–" if row["error"] is None else f"{row['error']:.2g}",
            "–" if row["low"] is None else f"{row['low']:.4g} to {row['high']:.4g}",
            str(row["seeds"]),
        ]
        for row in seeds.summary.filter(pl.col("step") == seeds.last).iter_rows(named=True)
    ]
    return Table(["of", "metric", "scope", "mean", "standard error", "95 % interval", "n"], rows, left=(0, 1, 2))


def _runs(seeds: Seeds, folder: Path) -> list[SeedLink]:
    links = []
    for run in seeds.group.runs:
        report = run.path / "report.html"
        relative = Path(os.path.relpath(report, folder)).as_posix() if report.exists() else ""
        links.append(SeedLink(run.seed, relative, run.last_step, f"{run.seconds:,.0f}"))
    return links
