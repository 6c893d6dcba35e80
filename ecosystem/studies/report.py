"""The report of a study: one page that works offline, with the table behind every picture and the methods in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem import charts
from ecosystem.charts import Look, Words
from ecosystem.errors import EcosystemError
from ecosystem.report import page, publish
from ecosystem.report.findings import listed, number, plus_minus, signed
from ecosystem.report.page import escape
from ecosystem.store import Store
from ecosystem.studies import analysis, sensitivity
from ecosystem.studies.analysis import Row
from ecosystem.studies.compare import mean_interval
from ecosystem.studies.results import Results, write_table
from ecosystem.studies.spec import FORK, Measure, Study

SENTENCES = 6  # arms, at most, that get a sentence of their own
HELPED = 2.0  # a paired interval is to be this many times narrower than the unpaired one


@dataclass
class Sheet:
    """A study being reported: its tables, what they say, and the charts drawn so far."""

    study: Study
    results: Results
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @cached_property
    def effects(self) -> list[Row]:
        """All comparisons with the base arm."""
        return analysis.compared(self.study, self.results) if self.study.compares else []

    @cached_property
    def arms(self) -> list[str]:
        """All arms, in the order of their colours."""
        return list(self.study.levers())

    @property
    def worlds(self) -> list[str]:
        """All worlds; one without a name where nothing is uncertain."""
        return list(self.study.settings())

    def look(self, last: int = 0) -> Look:
        """Return what charts share: the arms' colours, and a line where each policy starts."""
        return Look(self.arms, last, 0, sorted(self.starts.items()))

    @cached_property
    def starts(self) -> dict[int, str]:
        """First step of each policy that does not hold from the beginning → the arms that it is of."""
        common, starts = self.study.branch.step if self.study.branch is not None else None, dict[int, list[str]]()
        for arm, lever in self.study.levers().items():
            step = lever.get(FORK, common)
            if step is not None and lever:
                starts.setdefault(step + 1, []).append(arm)
        return {step: listed(arms) for step, arms in starts.items() if step > 1}

    def of(self, measure: Measure, world: str) -> list[Row]:
        """Return the comparisons of one measure in one world."""
        return [row for row in self.effects if (row.measure, row.world) == (measure.name, world)]

    def figure(self, name: str, chart: Any, *, full: bool = False) -> str:
        """Keep a chart and return its place on the page."""
        self.specs[name] = charts.specification(chart)
        return page.figure(name, self.specs[name], full=full)


def write_study(study: Study, results: Results, store: Store) -> Path:
    """Write the tables of what a study says and its report into the study's folder; return the page's path."""
    sheet = Sheet(study, results)
    write_table(store, "effects", analysis.table(sheet.effects))
    sections: dict[str, tuple[str, Callable[[Sheet], str]]] = {
        "effects": ("What each arm changes", _effects),
        "map": ("Two axes together", _maps),
        "sensitivity": ("How much each axis matters", _sensitivity),
        "ranking": ("Ranking", _rankings),
        "worlds": ("Over uncertain worlds", _worlds),
        "course": ("Over time", _course),
        "cost": ("What it costs", _cost),
        "runs": ("Runs", _runs),
        "methods": ("Methods", _methods),
    }
    bodies = {key: (title, draw(sheet)) for key, (title, draw) in sections.items()}
    shown = {key: (title, body) for key, (title, body) in bodies.items() if body}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
    legend = "".join(page.tinted(sheet.arms, arm) for arm in sheet.arms[:8])
    more = f"<span>and {len(sheet.arms) - 8} more</span>" if len(sheet.arms) > 8 else ""
    told = "".join(f"<li>{page.prose(sentence)}</li>" for sentence in findings(sheet))
    body = (
        f'{_header(sheet)}<nav><div>{links}</div><div class="legend">{legend}{more}</div></nav><main>'
        f'<h2 id="findings">Findings</h2><ul class="findings">{told}</ul>'
        + "".join(f'<section><h2 id="{key}">{title}</h2>{body}</section>' for key, (title, body) in shown.items())
        + "</main><footer>Written by ecosystem. This page loads nothing from anywhere.</footer>"
    )
    return publish(store, study.name, body, sheet.specs, len(sheet.arms))


def _header(sheet: Sheet) -> str:
    study, runs = sheet.study, sheet.results.runs
    failed = runs["error"].is_not_null().sum()
    facts = {
        "base": study.base,
        "arms": len(sheet.arms),
        "worlds": len(sheet.worlds) if sheet.worlds != [""] else None,
        "seeds": len(study.seeds),
        "runs": f"{runs.height}, {failed} of them failed" if failed else runs.height,
    }
    shown = "".join(f"<li>{name} <b>{escape(value)}</b></li>" for name, value in facts.items() if value is not None)
    lead = f'<p class="lead">{escape(study.description)}</p>' if study.description else ""
    return f'<header><h1>{escape(study.name)}</h1>{lead}<ul class="facts">{shown}</ul></header>'


def findings(sheet: Sheet) -> list[str]:
    """Return what the study found, in sentences written from its numbers and from nothing else."""
    study, told = sheet.study, []
    if not study.compares:
        return [f"{len(study.seeds)} seed(s) at {len(sheet.arms)} points say how much each axis matters (below)."]
    for measure in study.measures:
        for world in sheet.worlds:
            rows = sheet.of(measure, world)
            if rows:
                told += _told(measure, world, rows, study.base_arm)
        paired = [row for row in sheet.effects if row.measure == measure.name]
        if any(np.isfinite(row.narrower) for row in paired):
            told.append(pairing(measure, paired))
    for measure in study.measures:
        values = sheet.results.values.filter(pl.col("measure") == measure.name)["value"]
        lacking = values.len() - int((values.is_not_null() & values.is_finite()).fill_null(False).sum())
        if lacking:
            told.append(
                f"{measure.name} has no finite value in {lacking} of {values.len()} runs, which are left out of it: it "
                "was not measured at its step (the events of those runs may say why)."
            )
    failed = sheet.results.runs["error"].is_not_null().sum()
    if failed:
        told.append(f"{failed} of {sheet.results.runs.height} runs failed and are left out (see Runs).")
    return told


def _told(measure: Measure, world: str, rows: Sequence[Row], base: str) -> list[str]:
    where = f" in world **{world}**" if world else ""
    settled = sorted((r for r in rows if r.settled), key=lambda r: r.effect * (1 if measure.lower_is_better else -1))
    better = [r for r in settled if r.better(measure)]
    worse = [r for r in settled if not r.better(measure)][::-1]
    rest = [r for r in rows if not r.settled]
    found = []
    for kind, group in (("better", better), ("worse", worse)):
        if group:
            arms = listed(
                [f"**{r.arm}** ({signed(r.effect, 3)}, {interval(r.low, r.high)})" for r in group[:SENTENCES]]
            )
            more = f" and {len(group) - SENTENCES} more" if len(group) > SENTENCES else ""
            found.append(f"{measure.name}{where}: {kind} than **{base}** are {arms}{more}.")
    if rest:
        few = listed([f"**{r.arm}**" for r in rest[:SENTENCES]])
        more = f" and {len(rest) - SENTENCES} more" if len(rest) > SENTENCES else ""
        found.append(f"{measure.name}{where}: {few}{more} cannot be told from **{base}**.")
    return found


def pairing(measure: Measure, rows: Sequence[Row]) -> str:
    """Say what common random numbers gained for a measure: how much narrower intervals are, and why if it is little."""
    ratios = np.array([row.narrower for row in rows if np.isfinite(row.narrower)])
    correlations = [row.correlation for row in rows if np.isfinite(row.correlation)]
    typical, r = float(np.median(ratios)), float(np.median(correlations)) if correlations else float("nan")
    saved = int(np.median([row.saved for row in rows]))
    sentence = (
        f"{measure.name}: sharing luck between arms made intervals {number(typical, 1)} times narrower (median over "
        f"comparisons, {number(float(ratios.min()), 1)} to {number(float(ratios.max()), 1)}): a comparison of unpaired "
        f"runs would have needed {saved:,} more of them."
    )
    if typical >= HELPED:
        return sentence
    return (
        f"{sentence} That is less than {HELPED:g} times, since the arms' values agree little from seed to seed (median "
        f"correlation {number(r, 2)}): an arm that changes early what is read or written sends its world another way, "
        "and what is left of the shared luck does not carry to the step that counts."
    )


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval for reading."""
    return f"{signed(low, digits)} to {signed(high, digits)}"


def _heading(measure: Measure, world: str) -> str:
    return measure.name + (f", world {world}" if world else "")


def _axis(measure: Measure) -> str:
    """Return what stands beside the axis of a measure: its unit, or what it is if it has none."""
    return measure.unit if measure.unit != "1" else measure.metric


def _key(*parts: str) -> str:
    """Return a name for a chart's file from names that may hold anything."""
    return "_".join("".join(c if c.isalnum() else "-" for c in part) for part in parts if part)[:80]


def _effects(sheet: Sheet) -> str:
    if not sheet.effects:
        return ""
    parts = [
        '<p class="note">Each arm minus the base arm, seed by seed. The dark line is the 95 % interval of the paired '
        "difference, the broad pale one that of the same runs if they had not shared their luck.</p>"
    ]
    for measure in sheet.study.measures:
        for world in sheet.worlds:
            rows = sheet.of(measure, world)
            if not rows:
                continue
            frame = pl.DataFrame(
                {
                    "row": [r.arm for r in rows],
                    "population": [r.arm for r in rows],
                    **{
                        name: [getattr(r, name) for r in rows]
                        for name in ("effect", "low", "high", "unpaired_low", "unpaired_high")
                    },
                    "told": [f"{signed(r.effect, 3)} [{signed(r.low, 3)}, {signed(r.high, 3)}]" for r in rows],
                }
            )
            better = "lower" if measure.lower_is_better else "higher"
            words = Words(
                f"{_heading(measure, world)} against {sheet.study.base_arm}",
                f"{measure.unit if measure.unit != '1' else 'a pure number'}; {better} is better",
                "difference",
                "+.3~g",
            )
            parts.append(
                sheet.figure(_key("effect", measure.name, world), charts.forest(frame, sheet.look(), words), full=True)
            )
            parts.append(_effect_table(sheet, rows))
    return "".join(parts)


def _effect_table(sheet: Sheet, rows: Sequence[Row]) -> str:
    head = [
        *("arm", "seeds", "base", "effect", "95 % interval", "bootstrap", "unpaired", "correlation", "narrower"),
        *("runs saved", "p (Holm)"),
    ]
    body = [
        [
            page.tinted(sheet.arms, r.arm),
            str(r.seeds),
            number(r.base_mean, 4),
            f"<b>{signed(r.effect, 4)}</b>",
            interval(r.low, r.high, 4),
            interval(r.bootstrap_low, r.bootstrap_high, 4),
            interval(r.unpaired_low, r.unpaired_high, 4),
            number(r.correlation) if np.isfinite(r.correlation) else "–",
            f"{number(r.narrower, 1)} ×" if np.isfinite(r.narrower) else "–",
            str(r.saved),
            f"<b>{r.p_holm:.2g}</b>" if r.settled else f"{r.p_holm:.2g}",
        ]
        for r in rows
    ]
    return page.table(head, body)


def _maps(sheet: Sheet) -> str:
    study = sheet.study
    if len(study.axes) != 2 or study.design.method != "grid":
        return ""
    levers, parts = study.levers(), []
    paths = tuple(study.axes)
    for measure in study.measures:
        for world in sheet.worlds:
            known = {row.arm: row for row in sheet.of(measure, world)}
            values = analysis.values_by_arm(sheet.results, measure, world)
            cells = [
                {
                    "x": _label(point[paths[0]]),
                    "y": _label(point[paths[1]]),
                    "value": float(np.mean(list(values[arm].values()))),
                    "settled": arm in known and known[arm].settled,
                    "told": f"{signed(known[arm].effect, 4)} [{interval(known[arm].low, known[arm].high, 4)}]"
                    if arm in known
                    else "the base arm",
                }
                for arm, point in levers.items()
                if arm in values
            ]
            if cells:
                words = Words(
                    _heading(measure, world),
                    f"mean over seeds; a dot marks what differs from {study.base_arm} (Holm, 5 %)",
                    measure.unit,
                    ".3~f",
                )
                chart = charts.heatmap(pl.DataFrame(cells), (paths[0], paths[1]), words)
                parts.append(sheet.figure(_key("map", measure.name, world), chart))
    return f'<div class="grid two">{"".join(parts)}</div>' if parts else ""


def _label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _sensitivity(sheet: Sheet) -> str:
    study = sheet.study
    if study.compares:
        return ""
    morris, parts = study.design.method == "morris", []
    names = ("mu*: mean size of its effects", "sigma: their spread") if morris else ("alone", "with its interactions")
    axes = list(study.axes)
    for measure in study.measures:
        for world in sheet.worlds:
            values = analysis.values_by_arm(sheet.results, measure, world)
            y = np.array([np.mean(list(values[arm].values())) if arm in values else np.nan for arm in sheet.arms])
            try:
                found = sensitivity.indices(axes, study.design, y)
            except EcosystemError as problem:
                parts.append(f'<p class="note">{escape(_heading(measure, world))}: {escape(problem)}</p>')
                continue
            rows: list[dict[str, Any]] = [
                {
                    "row": i.axis,
                    "index": name,
                    "value": v,
                    "low": v - (h if h == h else 0),
                    "high": v + (h if h == h else 0),
                }
                for i in sorted(found, key=lambda i: -i.total if not morris else -i.main)
                for name, v, h in ((names[0], i.main, i.main_half), (names[1], i.total, i.total_half))
            ]
            words = Words(
                f"{_heading(measure, world)}: {'elementary effects' if morris else 'shares of its variance'}",
                "95 % bootstrap intervals where the method gives one; means over seeds",
                _axis(measure) if morris else "share of the variance",
                ".3~g",
            )
            parts.append(
                sheet.figure(_key("index", measure.name, world), charts.bars(pl.DataFrame(rows), words), full=True)
            )
            table = [
                [escape(r["row"]), escape(r["index"]), f"{r['value']:.4g}", f"± {r['high'] - r['value']:.2g}"]
                for r in rows
            ]
            parts.append(page.table(["axis", "index", "value", "half interval"], table))
    return "".join(parts)


def _rankings(sheet: Sheet) -> str:
    if not sheet.study.compares:
        return ""
    parts = []
    for measure in sheet.study.measures:
        for world in sheet.worlds:
            groups = analysis.ranked(sheet.study, sheet.results, measure, world)
            rows, place = [], 1
            for group in groups:
                shown = str(place) if len(group) == 1 else f"{place}–{place + len(group) - 1} (tie)"
                rows += [[shown, page.tinted(sheet.arms, arm), number(mean, 4)] for arm, mean in group]
                place += len(group)
            if rows:
                parts.append(f"<h3>{escape(_heading(measure, world))}</h3>")
                parts.append(page.table(["place", "arm", f"mean ({escape(measure.unit)})"], rows))
    note = (
        '<p class="note">Best first. Arms that cannot be told from the best of their group (paired, Holm over all '
        "pairs) share its place.</p>"
    )
    return note + "".join(parts) if parts else ""


def _worlds(sheet: Sheet) -> str:
    if len(sheet.worlds) < 2 or not sheet.study.compares:
        return ""
    parts = [
        '<p class="note">A regret is how much worse an arm is than the best arm of the same world. The arm with the '
        "least worst regret is the choice that can be wrong by least; the one with the least mean regret is best if "
        "all worlds are equally likely.</p>"
    ]
    for measure in sheet.study.measures:
        rows = [
            [
                page.tinted(sheet.arms, r.arm),
                number(r.mean, 4),
                number(r.mean_regret, 4),
                number(r.worst_regret, 4),
                escape(r.worst_world),
            ]
            for r in analysis.regrets(sheet.study, sheet.results, measure)
        ]
        if rows:
            parts.append(f"<h3>{escape(measure.name)}</h3>")
            parts.append(page.table(["arm", "mean over worlds", "mean regret", "worst regret", "in world"], rows))
    return "".join(parts)


def _course(sheet: Sheet) -> str:
    parts, drawn = [], set()
    for measure in sheet.study.measures:
        if (measure.of, measure.metric) in drawn or not sheet.study.compares:
            continue
        drawn.add((measure.of, measure.metric))
        for world in sheet.worlds:
            rows = sheet.results.series.filter(
                (pl.col("of") == (measure.of or ""))
                & (pl.col("metric") == measure.metric)
                & (pl.col("world") == world)
                & pl.col("value").is_finite()
            )
            if rows.is_empty():
                continue
            frame = rows.group_by("arm", "step", maintain_order=True).agg(
                pl.col("value").mean(),
                error=pl.col("value").std() / pl.len().sqrt(),
                members=pl.len(),
            )
            frame = frame.rename({"arm": "population"}).sort("step", maintain_order=True)
            whose = f"{measure.of}, " if measure.of else ""
            words = Words(
                f"{whose}{measure.metric}" + (f", world {world}" if world else ""),
                f"{measure.unit if measure.unit != '1' else 'a pure number'}; mean over seeds ± one standard error",
                _axis(measure),
                ".3~g",
            )
            last = int(rows["step"].max())  # type: ignore[arg-type]
            chart = charts.over_steps(frame, sheet.look(last), words, size=charts.WIDE)
            parts.append(sheet.figure(_key("course", measure.of or "", measure.metric, world), chart, full=True))
    return "".join(parts)


def _cost(sheet: Sheet) -> str:
    study, costs = sheet.study, sheet.results.costs
    if costs.is_empty() or not study.compares:
        return ""
    kinds = costs["cost"].unique(maintain_order=True).to_list()
    means = costs.group_by("arm", "cost", maintain_order=True).agg(
        pl.col("amount").mean(), error=pl.col("amount").std() / pl.len().sqrt()
    )
    known = {(arm, cost): (amount, error) for arm, cost, amount, error in means.iter_rows()}
    table = [
        [page.tinted(sheet.arms, arm)] + [_amount(*known[arm, kind]) if (arm, kind) in known else "–" for kind in kinds]
        for arm in sheet.arms
    ]
    parts = [
        '<p class="note">What a run of each arm took in all, mean over seeds (and worlds) ± standard error.</p>',
        page.table(["arm", *(escape(kind.replace("_", " ")) for kind in kinds)], table),
    ]
    if study.prices:
        parts += [_tradeoff(sheet, measure) for measure in study.measures]
        parts.append(_matched(sheet))
    return "".join(parts)


def _amount(amount: float, error: float | None) -> str:
    if not error:
        return f"{amount:,.0f}"
    return plus_minus(amount, error, 0) if amount < 1e6 else f"{amount:.3g} ± {error:.1g}"


def _tradeoff(sheet: Sheet, measure: Measure) -> str:
    study, world = sheet.study, sheet.worlds[0]
    spent = sheet.results.spending(study).filter(pl.col("world") == world)
    costs = {arm: g["cost"].to_numpy() for (arm,), g in spent.group_by("arm", maintain_order=True)}
    values = analysis.values_by_arm(sheet.results, measure, world)
    rows: list[dict[str, Any]] = []
    for arm in sheet.arms:
        if arm not in values or arm not in costs or len(values[arm]) < 2:
            continue
        quality, cost = mean_interval(np.array(list(values[arm].values()))), mean_interval(costs[arm])
        rows.append(
            {
                "population": arm,
                "cost": cost.mean,
                "cost_low": cost.low,
                "cost_high": cost.high,
                "value": quality.mean,
                "low": quality.low,
                "high": quality.high,
            }
        )
    if not rows:
        return ""
    sign = 1 if measure.lower_is_better else -1
    for row in rows:  # on the frontier: nobody is at least as cheap and better
        row["best"] = not any(
            other["cost"] <= row["cost"] and sign * other["value"] < sign * row["value"] for other in rows
        )
    prices = ", ".join(f"{price:g} a unit of {cost.replace('_', ' ')}" for cost, price in study.prices.items())
    words = Words(
        f"{measure.name} against cost",
        f"95 % intervals over seeds; the dashed line joins the arms that none beats in both; prices: {prices}",
        _axis(measure),
        ".3~g",
    )
    chart = charts.tradeoff(pl.DataFrame(rows), sheet.look(), words, "cost of a run")
    return sheet.figure(_key("cost", measure.name), chart, full=True)


def _matched(sheet: Sheet) -> str:
    found = analysis.matched(sheet.study, sheet.results)
    if sheet.study.equal_cost is None:
        return ""
    rows = [
        [
            escape(m.measure),
            number(m.cost, 0),
            f"{escape(m.way)} minus {escape(m.against)}",
            str(m.seeds),
            f"<b>{signed(m.difference, 4)}</b>",
            interval(m.low, m.high, 4),
        ]
        for m in found
    ]
    note = (
        '<p class="note">Ways to spend at equal cost: between its arms a way\'s measure is interpolated linearly, '
        "seed by seed. A cost that one of the ways did not reach is not compared.</p>"
    )
    head = ["measure", "spent more than in the base arm", "comparison", "seeds", "difference", "95 % interval"]
    return note + (page.table(head, rows) if rows else '<p class="empty">No cost was reached by two ways.</p>')


def _runs(sheet: Sheet) -> str:
    rows = [
        [
            page.tinted(sheet.arms, arm) + (f" <small>{escape(world)}</small>" if world else ""),
            str(seed),
            escape(error or run),
            str(attempts),
            "–" if seconds is None else number(seconds, 1),
        ]
        for arm, world, seed, run, error, attempts, seconds in sheet.results.runs.iter_rows()
    ]
    note = (
        '<p class="note">Every run is an ordinary run folder: <code>ecosystem report RUN</code> writes its own report. '
        "Attempts are those of the latest call; 0 means that the run was there already.</p>"
    )
    table = page.table(["arm", "seed", "run, or why there is none", "attempts", "seconds of its steps"], rows)
    return f'{note}<details class="block"><summary>All {len(rows)} runs</summary>{table}</details>'


def _methods(sheet: Sheet) -> str:
    study = sheet.study
    rows = "".join(
        f"<dt>{page.tinted(sheet.arms, arm)}</dt><dd>{escape(_paths(lever) or 'the base scenario as it is')}</dd>"
        for arm, lever in list(study.levers().items())[:64]
    )
    said = [
        f"The base scenario is {study.base}; every arm runs with the seeds {', '.join(map(str, study.seeds))}.",
        "All chance comes from streams named after who draws and when, so that what an arm does not change draws the "
        "same numbers in every arm (common random numbers), and a seed is a block.",
        "An effect is the mean over seeds of an arm's value minus the base arm's at the same seed; its 95 % interval "
        "is Student's, beside it the percentile bootstrap over seeds, widened for their small number. The unpaired "
        "interval is Welch's. Runs saved: how many more an unpaired comparison would need for the same standard error, "
        "both arms together.",
        "p values are of the paired t test and corrected by Holm's method for all comparisons of the measure; an arm "
        "counts as different below 0.05. With few seeds normality of the differences is assumed, not tested.",
        "Levers, which somebody can decide, and worlds, which nobody can, are crossed: every arm runs in every world.",
    ]
    if sheet.worlds != [""]:
        rows += "".join(
            f"<dt>world {escape(world)}</dt><dd>{escape(_paths(values))}</dd>"
            for world, values in study.settings().items()
        )
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in said) + f"<dl>{rows}</dl>"


def _paths(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in values.items())
