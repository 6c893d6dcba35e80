"""The collapse profile of many runs: in how many of each arm a definition of collapse holds, and which signs lead.

Runs of one scenario over seeds have populations in place of arms.

Early-warning signals are compared over seeds: the change since the first measurement in standard deviations over seeds
(Cohen's d), and the paired t test with Holm's correction over all signals and steps of an arm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl
from markupsafe import Markup

from ecosystem.calendar import Calendar, step_name
from ecosystem.metrics.estimates import wilson_interval
from ecosystem.metrics.intervals import standardised, standardised_interval
from ecosystem.report.html import Cell, Cells, Column, Table, render, tinted
from ecosystem.report.panels.profile import conditions, definitions, in_order
from ecosystem.report.profile import DEFINITIONS
from ecosystem.report.profile.signals import SIGNALS, ordered
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.results import Results
from ecosystem.studies.spec.measure import WEB
from ecosystem.studies.statistics import holm, p_value
from ecosystem.types import Floats

LARGE = 0.8  # least size of d for a signal to have left its baseline: a large effect (Cohen 1988)
FEWEST_SEEDS = 3
LEVEL = 0.05
DEPARTURES = {
    "signal": pl.String,
    "step": pl.Int64,  # null: never
    "effect": pl.Float64,  # d at that step, or at the last
    "low": pl.Float64,
    "high": pl.Float64,
    "p_holm": pl.Float64,
    "seeds": pl.Int64,
}


@dataclass(frozen=True)
class ProfilePart:
    """A profile under a heading: shares of runs by arm, the order of signals, and their effects."""

    heading: str
    shares: Table
    order: Table | None
    effects: Sequence[tuple[Cell, Table]]


def profile_section(parts: Sequence[ProfilePart], columns: int, arms: str = "") -> Markup:
    """Return the parts as HTML, with what every definition demands; ``arms`` names the ``columns`` in the text."""
    return render("study/profile.html", PAGES, parts=parts, conditions=conditions(columns), arms=arms)


def profile_parts(results: Results, arms: list[str]) -> list[ProfilePart]:
    """Return the profile of each population that the measures are of (or of all) in each world."""
    of = {measure.of for measure in results.study.measures}
    found = results.profile["population"].unique(maintain_order=True).to_list()
    chosen = found if of & {None, WEB} else [population for population in found if population in of]
    parts = []
    for world in results.study.settings():
        for population in chosen:
            here = (pl.col("world") == world) & (pl.col("population") == population)
            heading = f"{population}, world {world}" if world else population
            verdicts, changes = results.profile.filter(here), results.signals.filter(here)
            parts.append(profile_part(heading, verdicts, changes, arms, results.calendar))
    return parts


def profile_part(
    heading: str,
    verdicts: pl.DataFrame,
    changes: pl.DataFrame,
    arms: Sequence[str],
    calendar: Calendar | None,
    kind: str = "arm",
) -> ProfilePart:
    """Return the profile of arms beside each other; ``kind`` is what a table calls them.

    ``verdicts``: arm, definition, holds and step of every run. ``changes``: arm, seed, signal, step and change.
    """
    departures = {
        arm: left(changes.filter(pl.col("arm") == arm).select("seed", "signal", "step", "change")) for arm in arms
    }
    return ProfilePart(
        heading=heading,
        shares=_shares(verdicts, arms, calendar),
        order=_order(departures, arms, calendar, kind),
        effects=[(tinted(arms, arm), _effects(rows, calendar)) for arm, rows in departures.items() if rows.height],
    )


def _shares(verdicts: pl.DataFrame, arms: Sequence[str], calendar: Calendar | None) -> Table:
    """Return in how many of its runs a definition holds, by arm, with Wilson's interval and the median step."""
    cells = [
        [_share(verdicts.filter((pl.col("definition") == key) & (pl.col("arm") == arm)), calendar) for arm in arms]
        for key in DEFINITIONS
    ]
    return definitions(arms, cells)


def _share(verdicts: pl.DataFrame, calendar: Calendar | None) -> Cell:
    judged = verdicts.drop_nulls("holds")
    if judged.is_empty():
        return Cell("–", soft=True)
    holding, steps = int(judged["holds"].sum()), judged["step"].drop_nulls().to_list()
    low, high = wilson_interval(holding, judged.height)
    since = f"; step {float(np.median(steps)):g}" if steps else ""
    if steps and calendar is not None:
        since += f" ({calendar.shown(round(float(np.median(steps))))})"
    small = f"{100 * low:.0f}–{100 * high:.0f}\u00a0%{since}"
    return Cell(f"{holding} of {judged.height}", small=small, bold=holding > 0)


def left(changes: pl.DataFrame) -> pl.DataFrame:
    """Return when each signal left its baseline (columns of DEPARTURES), the earliest first.

    ``changes``: seed, signal, step, change of one arm. A signal has left its baseline at the first step at which d is
    at least LARGE and p, corrected by Holm over all signals and steps, is below 5 %. Fewer than FEWEST_SEEDS seeds give
    no rows.
    """
    samples: dict[tuple[str, int], Floats] = {
        (str(signal), int(step)): group["change"].to_numpy()
        for (signal, step), group in changes.sort("step", "seed").group_by("signal", "step", maintain_order=True)
        if group.height >= FEWEST_SEEDS
    }
    corrected = dict(zip(samples, holm([p_value(x) for x in samples.values()]), strict=True))
    rows = []
    for signal in dict.fromkeys(name for name, _ in samples):
        keys = [key for key in samples if key[0] == signal]
        gone = [key for key in keys if corrected[key] < LEVEL and abs(standardised(samples[key])) >= LARGE]
        key = (gone or keys[::-1])[0]
        interval = standardised_interval(samples[key])
        effect = (interval.mean, interval.low, interval.high)
        rows.append((signal, key[1] if gone else None, *effect, corrected[key], samples[key].size))
    return ordered(pl.DataFrame(rows, schema=DEPARTURES, orient="row"), pl.col("effect"))


def _order(
    departures: dict[str, pl.DataFrame], arms: Sequence[str], calendar: Calendar | None, kind: str
) -> Table | None:
    rows: list[Cells] = []
    for arm, found in departures.items():
        if found.height:
            never = f"{found['step'].null_count()} of {found.height}"
            rows.append([tinted(arms, arm), in_order(found, calendar), never])
    return Table([kind, "signals that left their baseline", "never left"], rows, left=(0, 1)) if rows else None


def _effects(found: pl.DataFrame, calendar: Calendar | None) -> Table:
    head: list[Column | str] = [
        "signal",
        "left at step",
        Column("d", "then, or at the last step"),
        "95 % interval",
        "p (Holm)",
        "seeds",
    ]
    rows: list[Cells] = [
        [
            Cell(SIGNALS[signal], small=signal),
            "never" if step is None else step_name(step, calendar).removeprefix("step "),
            _d(effect) if np.isfinite(effect) else "no spread",
            f"{_d(low)} to {_d(high)}" if np.isfinite(effect) else "–",
            f"{p:.2g}",
            str(seeds),
        ]
        for signal, step, effect, low, high, p, seeds in found.iter_rows()
    ]
    return Table(head, rows)


def _d(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")
