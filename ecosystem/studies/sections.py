"""The sections of a study's report: charts, and the table behind each of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError
from ecosystem.metrics.estimates import error_of_mean
from ecosystem.report import charts, page
from ecosystem.report.charts import Words
from ecosystem.report.findings import plus_minus, signed
from ecosystem.report.page import escape
from ecosystem.runs.formats import number
from ecosystem.studies import analysis
from ecosystem.studies.analysis import Row
from ecosystem.studies.sheet import Sheet, interval
from ecosystem.studies.statistics import mean_interval
from ecosystem.studies.study import Measure


def _heading(measure: Measure, world: str) -> str:
    return measure.name + (f", world {world}" if world else "")


def _idle(training: str) -> str:
    """Return a mark for an arm whose trainers did not train, to stand behind its name."""
    return f" <small>({escape(training)})</small>" if training else ""


def _key(*parts: str) -> str:
    """Return a name for a chart's file from names that may hold anything."""
    return "_".join("".join(c if c.isalnum() else "-" for c in part) for part in parts if part)[:80]


def effects(sheet: Sheet) -> str:
    """Return the paired effects of all arms."""
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
            page.tinted(sheet.arms, r.arm) + _idle(r.training),
            str(r.seeds),
            number(r.base_mean, 4),
            f"<b>{signed(r.effect, 4)}</b>",
            interval(r.low, r.high, 4),
            interval(r.bootstrap_low, r.bootstrap_high, 4),
            interval(r.unpaired_low, r.unpaired_high, 4),
            number(r.correlation) if np.isfinite(r.correlation) else "–",
            f"{number(r.narrower, 1)} ×" if np.isfinite(r.narrower) and r.saved is not None else "–",
            "–" if r.saved is None else str(r.saved),
            f"<b>{r.p_holm:.2g}</b>" if r.settled else f"{r.p_holm:.2g}",
        ]
        for r in rows
    ]
    return page.table(head, body)


def maps(sheet: Sheet) -> str:
    """Return two axes of a grid as maps of each measure."""
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


def sensitivity(sheet: Sheet) -> str:
    """Return how much each axis matters."""
    study = sheet.study
    if study.compares:
        return ""
    morris, parts = study.design.method == "morris", []
    names = ("mu*: mean size of its effects", "sigma: their spread") if morris else ("alone", "with its interactions")
    for measure in study.measures:
        for world in sheet.worlds:
            try:
                found = analysis.indices_of(study, sheet.results, measure, world)
            except EcosystemError as problem:
                parts.append(f'<p class="note">{escape(_heading(measure, world))}: {escape(problem)}</p>')
                continue
            rows: list[dict[str, Any]] = [
                {
                    "row": i.axis,
                    "index": name,
                    "value": v,
                    "low": v - (0.0 if np.isnan(h) else h),
                    "high": v + (0.0 if np.isnan(h) else h),
                    "half": h,
                }
                for i in sorted(found, key=lambda i: -i.total if not morris else -i.main)
                for name, v, h in ((names[0], i.main, i.main_half), (names[1], i.total, i.total_half))
            ]
            words = Words(
                f"{_heading(measure, world)}: {'elementary effects' if morris else 'shares of its variance'}",
                "95 % bootstrap intervals where the method gives one; means over seeds",
                measure.axis if morris else "share of the variance",
                ".3~g",
            )
            parts.append(
                sheet.figure(
                    _key("index", measure.name, world), charts.bars(pl.DataFrame(rows).drop("half"), words), full=True
                )
            )
            table = [
                [
                    escape(r["row"]),
                    escape(r["index"]),
                    f"{r['value']:.4g}",
                    "–" if np.isnan(r["half"]) else f"± {r['half']:.2g}",
                ]
                for r in rows
            ]
            parts.append(page.table(["axis", "index", "value", "half interval"], table, left=(0, 1)))
    return "".join(parts)


def rankings(sheet: Sheet) -> str:
    """Return the arms from best to worst, ties as ties."""
    if not sheet.study.compares:
        return ""
    parts = []
    for measure in sheet.study.measures:
        for world in sheet.worlds:
            ranking = sheet.places.filter((pl.col("measure") == measure.name) & (pl.col("world") == world))
            rows = [
                [
                    str(place) if tied == 1 else f"{place}–{place + tied - 1} (tie)",
                    page.tinted(sheet.arms, arm) + _idle(training),
                    number(mean, 4),
                ]
                for place, tied, arm, mean, training in ranking.select(
                    "place", "tied", "arm", "mean", "training"
                ).iter_rows()
            ]
            if rows:
                parts.append(f"<h3>{escape(_heading(measure, world))}</h3>")
                parts.append(page.table(["place", "arm", f"mean ({escape(measure.unit)})"], rows, left=(0, 1)))
    note = (
        '<p class="note">Best first. Arms that cannot be told from the best of their group (paired, Holm over all '
        "pairs) share its place. Which trainers had nothing to train on stands behind an arm.</p>"
    )
    return note + "".join(parts) if parts else ""


def worlds(sheet: Sheet) -> str:
    """Return how arms fare over uncertain worlds."""
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
                page.tinted(sheet.arms, r.arm) + _idle(sheet.idle_somewhere(r.arm, measure.of)),
                number(r.mean, 4),
                number(r.mean_regret, 4),
                number(r.worst_regret, 4),
                escape(r.worst_world) if r.worst_regret > 0 else "–",
            ]
            for r in analysis.regrets(sheet.study, sheet.results, measure)
        ]
        if rows:
            parts.append(f"<h3>{escape(measure.name)}</h3>")
            parts.append(
                page.table(["arm", "mean over worlds", "mean regret", "worst regret", "in world"], rows, left=(0, 4))
            )
    return "".join(parts)


def course(sheet: Sheet) -> str:
    """Return every measured metric over steps."""
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
                error=error_of_mean("value"),
                members=pl.len(),
            )
            frame = frame.rename({"arm": "population"}).sort("step", maintain_order=True)
            whose = f"{measure.of}, " if measure.of else ""
            words = Words(
                f"{whose}{measure.metric}" + (f", world {world}" if world else ""),
                f"{measure.unit if measure.unit != '1' else 'a pure number'}; mean over seeds ± one standard error",
                measure.axis,
                ".3~g",
            )
            last = int(rows["step"].max())  # type: ignore[arg-type]
            chart = charts.over_steps(frame, sheet.look(last), words, size=charts.WIDE)
            parts.append(sheet.figure(_key("course", measure.of or "", measure.metric, world), chart, full=True))
    return "".join(parts)


def cost(sheet: Sheet) -> str:
    """Return what arms cost, quality against cost, and ways to spend at equal cost."""
    study, costs = sheet.study, sheet.results.costs
    if costs.is_empty() or not study.compares:
        return ""
    kinds = costs["cost"].unique(maintain_order=True).to_list()
    means = costs.group_by("arm", "cost", maintain_order=True).agg(
        pl.col("amount").mean(), error=error_of_mean("amount")
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
        measure.axis,
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
    return note + (
        page.table(head, rows, left=(0, 2)) if rows else '<p class="empty">No cost was reached by two ways.</p>'
    )


def runs(sheet: Sheet) -> str:
    """Return every run, or why there is none."""
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
    table = page.table(
        ["arm", "seed", "run, or why there is none", "attempts", "seconds of its steps"], rows, left=(0, 2)
    )
    return f'{note}<details class="block"><summary>All {len(rows)} runs</summary>{table}</details>'
