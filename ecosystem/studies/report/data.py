"""A study being reported: its tables, what they say in sentences, and the charts drawn so far."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError
from ecosystem.formats import number
from ecosystem.report import charts
from ecosystem.report.charts import ChartTheme
from ecosystem.report.findings import listed, signed
from ecosystem.report.html import Figure
from ecosystem.studies import analysis
from ecosystem.studies.analysis import Row
from ecosystem.studies.object_store import open_run
from ecosystem.studies.results import Results
from ecosystem.studies.spec.measure import Measure
from ecosystem.studies.spec.study import BRANCH_STEP, Study

SENTENCES = 6  # arms, at most, that get a sentence of their own
EVENTS = 2  # of a run, at most, that a sentence quotes
AGREE = 0.9  # a correlation from which on pairing would have helped, did arms vary alike
HELPED = 2.0  # a paired interval is to be this many times narrower than the unpaired one


@dataclass
class StudyReportData:
    """A study being reported: its tables, what they say, and the charts drawn so far."""

    results: Results
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def study(self) -> Study:
        """The study itself."""
        return self.results.study

    @cached_property
    def effects(self) -> list[Row]:
        """All comparisons with the base arm."""
        return analysis.compare_arms(self.results) if self.study.compares else []

    @cached_property
    def rankings(self) -> pl.DataFrame:
        """All rankings."""
        return analysis.rankings(self.results)

    @cached_property
    def arms(self) -> list[str]:
        """All arms, in the order of their colours."""
        return list(self.study.levers())

    @property
    def worlds(self) -> list[str]:
        """All worlds; one without a name where nothing is uncertain."""
        return list(self.study.settings())

    def theme(self, last: int = 0) -> ChartTheme:
        """Return what charts share: the arms' colours, and a line where each policy starts."""
        return ChartTheme(self.arms, last, 0, sorted(self.starts.items()))

    @cached_property
    def starts(self) -> dict[int, str]:
        """First step of each policy that does not hold from the beginning → the arms that it is of."""
        common, starts = self.study.branch.step if self.study.branch is not None else None, dict[int, list[str]]()
        for arm, lever in self.study.levers().items():
            step = lever.get(BRANCH_STEP, common)
            if step is not None and lever:
                starts.setdefault(step + 1, []).append(arm)
        return {step: listed(arms) for step, arms in starts.items() if step > 1}

    def rows_of(self, measure: Measure, world: str) -> list[Row]:
        """Return the comparisons of one measure in one world."""
        return [row for row in self.effects if (row.measure, row.world) == (measure.name, world)]

    def untrained_in_some_world(self, arm: str, of: str | None) -> str:
        """Return which trainers of an arm did not train, in the first world in which there are any; "" if all did."""
        found = (self.results.untrained(arm, world, of) for world in self.worlds)
        return next((told for told in found if told), "")

    def untrained_findings(self) -> list[str]:
        """Say in which arms trainers had nothing to train on, so that what is measured there is an older model."""
        alike: dict[str, list[str]] = {}
        for arm in self.arms:
            for world in self.worlds:
                if training := self.results.untrained(arm, world):
                    where = f" in world **{world}**" if world else ""
                    alike.setdefault(training, []).append(f"**{arm}**{where}")
        return [
            f"Trainers had nothing to train on in {_few(arms)} ({training}): what is measured of them is the model "
            "that they had before, which says nothing of training under these policies, wherever the arm ranks."
            for training, arms in alike.items()
        ]

    def missing_findings(self) -> list[str]:
        """Say which measures have no value in some of the runs that did not fail, and how many failed."""
        failed, told = self.results.runs["error"].is_not_null().sum(), []
        for measure in self.study.measures:
            values = self.results.values.filter(pl.col("measure") == measure.name)["value"]
            lacking = values.len() - int((values.is_not_null() & values.is_finite()).fill_null(False).sum())
            if lacking:
                told.append(
                    f"{measure.name} has no finite value in {lacking} of {values.len()} runs, which are left out: "
                    f"it was not measured at its step{self._why(measure)}."
                )
        if failed:
            told.append(f"{failed} of {self.results.runs.height} runs failed and are left out (see Runs).")
        return told + self._uncompared()

    def _why(self, measure: Measure) -> str:
        """Return what the first run without a value of a measure tells of the last step of which it tells anything."""
        values = self.results.values.filter(pl.col("measure") == measure.name)
        lacking = values.filter(~(pl.col("value").is_not_null() & pl.col("value").is_finite()).fill_null(False))
        runs = lacking.join(self.results.runs, on=["arm", "world", "seed"], how="inner", maintain_order="left")
        for arm, world, seed, run in runs.drop_nulls("run").select("arm", "world", "seed", "run").head(1).iter_rows():
            with suppress(EcosystemError):
                told = open_run(run).events
                last = max((step for step, _ in told), default=0)
                events = [event for step, event in told if step == last]
                if events:
                    more = f" and {len(events) - EVENTS} more" if len(events) > EVENTS else ""
                    who = f"{arm}{f' in {world}' if world else ''}, seed {seed}"
                    return f" (step {last} of {who}: {'; '.join(events[:EVENTS])}{more})"
        return ""

    def _uncompared(self) -> list[str]:
        """Say which arms are not compared with the base arm in a measure, since too few of their runs have a value."""
        told = []
        for measure in self.study.measures if self.study.compares else []:
            for world in self.worlds:
                compared = {row.arm for row in self.rows_of(measure, world)}
                left = [arm for arm in self.arms if arm not in compared and arm != self.study.base_arm]
                if left:
                    where = f" in world {world}" if world else ""
                    told.append(
                        f"{measure.name}{where}: {listed(left)} cannot be compared with {self.study.base_arm}, since "
                        "fewer than two seeds have a value in both."
                    )
        return told

    def figure(self, name: str, chart: Any, *, full: bool = False) -> Figure:
        """Keep a chart and return its place on the page."""
        self.specs[name] = charts.specification(chart)
        return Figure.of(name, self.specs[name], full=full)


def findings(data: StudyReportData) -> list[str]:
    """Return what the study found, in sentences written from its numbers and from nothing else."""
    study, told = data.study, data.untrained_findings()
    if not study.compares:
        return [
            *told,
            f"{len(study.seeds)} seed(s) at {len(data.arms)} points say how much each axis matters (below).",
        ]
    for measure in study.measures:
        for world in data.worlds:
            rows = data.rows_of(measure, world)
            if rows:
                told += _told(measure, world, rows, study.base_arm)
        paired = [row for row in data.effects if row.measure == measure.name and row.saved is not None]
        if any(np.isfinite(row.narrower) for row in paired):
            told.append(pairing(measure, paired))
    told += data.missing_findings()
    told += [
        f"{name} is a mean over all trainers, and not all arms have measured the same populations: differences may "
        "come from who is counted. Say in the study whose it is (of)."
        for name in data.results.mixed
    ]
    return told


def _told(measure: Measure, world: str, rows: Sequence[Row], base: str) -> list[str]:
    where = f" in world **{world}**" if world else ""
    settled = sorted(
        (r for r in rows if r.significant), key=lambda r: r.effect * (1 if measure.lower_is_better else -1)
    )
    better = [r for r in settled if r.better(measure)]
    worse = [r for r in settled if not r.better(measure)][::-1]
    same = [r for r in rows if r.low == r.high == 0]
    rest = [r for r in rows if not r.significant and r not in same]
    found = []
    for kind, group in (("better", better), ("worse", worse)):
        if group:
            arms = listed(
                [f"**{r.arm}** ({signed(r.effect, 3)}, {interval(r.low, r.high)})" for r in group[:SENTENCES]]
            )
            more = f" and {len(group) - SENTENCES} more" if len(group) > SENTENCES else ""
            found.append(f"{measure.name}{where}: {kind} than **{base}** are {arms}{more}.")
    for group, verdict in (
        (rest, f"cannot be told from **{base}**"),
        (same, f"had exactly the values of **{base}** at every seed: what sets them apart changes nothing here"),
    ):
        if group:
            found.append(f"{measure.name}{where}: {_few([f'**{r.arm}**' for r in group])} {verdict}.")
    return found


def _few(names: Sequence[str]) -> str:
    """Return the first of many names, and how many more there are."""
    more = f" and {len(names) - SENTENCES} more" if len(names) > SENTENCES else ""
    return listed(names[:SENTENCES]) + more


def pairing(measure: Measure, rows: Sequence[Row]) -> str:
    """Say what common random numbers gained for a measure: how much narrower intervals are, and why if it is little."""
    rows = [row for row in rows if row.low < row.high]  # arms that change nothing have nothing to pair
    ratios = np.array([row.narrower for row in rows if np.isfinite(row.narrower)])
    correlations = [row.correlation for row in rows if np.isfinite(row.correlation)]
    typical, r = float(np.median(ratios)), float(np.median(correlations)) if correlations else float("nan")
    saved = int(np.median([row.saved or 0 for row in rows]))
    sentence = (
        f"{measure.name}: sharing luck between arms made intervals {number(typical, 1)} times narrower (median over "
        f"comparisons, {number(float(ratios.min()), 1)} to {number(float(ratios.max()), 1)}): a comparison of unpaired "
        f"runs would have needed {saved:,} more of them."
    )
    if typical >= HELPED:
        return sentence
    if r > AGREE:
        return (
            f"{sentence} That is less than {HELPED:g} times although the arms agree from seed to seed (median "
            f"correlation {number(r, 2)}): they vary by different amounts, and what one varies more is not shared."
        )
    if not correlations:
        return f"{sentence} In each comparison one arm has the same value at every seed: there is nothing to pair."
    return (
        f"{sentence} That is less than {HELPED:g} times, since the arms' values agree little from seed to seed (median "
        f"correlation {number(r, 2)}): an arm that changes early what is read or written sends its world another way, "
        "and what is left of the shared luck does not carry to the step that counts."
    )


def interval(low: float, high: float, digits: int = 3) -> str:
    """Return an interval for reading."""
    return f"{signed(low, digits)} to {signed(high, digits)}"
