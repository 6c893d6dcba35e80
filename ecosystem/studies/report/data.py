"""The data of a study's report: tables, findings in sentences, and chart specifications."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl

from ecosystem.calendar import step_at, step_name
from ecosystem.errors import DataError, EcosystemError
from ecosystem.formats import counted, number
from ecosystem.report import charts
from ecosystem.report.charts import ChartTheme
from ecosystem.report.findings import listed, signed
from ecosystem.report.html import Figure, Source
from ecosystem.runs.remote.places import open_run
from ecosystem.studies import analysis
from ecosystem.studies.analysis import Row
from ecosystem.studies.law_fit import FittedLaw, fit_law
from ecosystem.studies.origins import MixedCell, Survival, mixed_cells, survivals
from ecosystem.studies.posterior_worlds import PosteriorEffect, pooled, posterior_effects
from ecosystem.studies.report.origin_findings import fit_findings, mixture_findings, survival_findings
from ecosystem.studies.results import Results
from ecosystem.studies.spec.measure import Measure
from ecosystem.studies.spec.study import BRANCH_STEP, Study

LISTED_ARMS = 6  # at most, in a sentence
QUOTED_EVENTS = 2  # at most, of a run
HIGH_CORRELATION = 0.9  # above it, a small gain from pairing is due to unequal variances of the arms
USEFUL_GAIN = 2.0  # the report explains a smaller ratio of unpaired to paired interval width


@dataclass
class StudyReportData:
    """The tables and findings of a study, and the specifications of the charts drawn so far."""

    results: Results
    specs: dict[str, dict[str, Any]] = field(default_factory=dict)
    by_world: Results | None = None  # of a study over a posterior: the results before draws were pooled
    folder: str = ""  # name of the folder of the report, for the code of its charts

    @classmethod
    def of(cls, results: Results, folder: str = "") -> StudyReportData:
        """Return the data of a study; those of a study over a posterior have one world, and draws in place of seeds."""
        if not results.study.has_posterior:
            return cls(results, folder=folder)
        return cls(pooled(results), by_world=results, folder=folder)

    @cached_property
    def posterior_effects(self) -> list[PosteriorEffect]:
        """The effects over worlds drawn from a posterior; none for other studies."""
        return [] if self.by_world is None else posterior_effects(self.by_world)

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
    def _fit(self) -> tuple[FittedLaw | None, str]:
        if self.study.fit is None:
            return None, ""
        try:
            return fit_law(self.study.fit, self.results.points), ""
        except DataError as error:
            return None, str(error)

    @property
    def fitted(self) -> FittedLaw | None:
        """The fitted law; None if the study has none, or too few points for it."""
        return self._fit[0]

    @property
    def fit_problem(self) -> str:
        """Why the law of the study cannot be fitted; "" if it can."""
        return self._fit[1]

    @cached_property
    def mixed(self) -> list[MixedCell]:
        """What machine text does in each cell that a law was fitted to."""
        return mixed_cells(self.fitted) if self.fitted is not None else []

    @cached_property
    def survivals(self) -> list[Survival]:
        """The shares of human and machine text that each filter keeps."""
        return survivals(self.results.survival)

    @cached_property
    def arms(self) -> list[str]:
        """All arms, in the order of their colours."""
        return list(self.study.levers())

    @property
    def worlds(self) -> list[str]:
        """All worlds; a study without uncertainties has one, with an empty name."""
        return list(self.study.settings())

    def theme(self, last: int = 0) -> ChartTheme:
        """Return the common theme of all charts: the arms' colours, and a line where each policy starts."""
        return ChartTheme(self.arms, last, 0, sorted(self.starts.items()), self.results.calendar)

    @cached_property
    def starts(self) -> dict[int, str]:
        """First steps of the policies that start after step 1 → the arms that they belong to."""
        common, starts = self.study.branch.step if self.study.branch is not None else None, dict[int, list[str]]()
        for arm, lever in self.study.levers().items():
            step = lever.get(BRANCH_STEP, common)
            step = None if step is None else step_at(step, self.results.calendar)
            if step is not None and lever:
                starts.setdefault(step + 1, []).append(arm)
        return {step: listed(arms) for step, arms in starts.items() if step > 1}

    def rows_of(self, measure: Measure, world: str) -> list[Row]:
        """Return the comparisons of one measure in one world."""
        return [row for row in self.effects if (row.measure, row.world) == (measure.name, world)]

    def untrained_in_some_world(self, arm: str, of: str | None) -> str:
        """Describe which trainers of an arm did not train, in the first world with any; "" if all trained."""
        notes = (self.results.untrained(arm, world, of) for world in self.worlds)
        return next((note for note in notes if note), "")

    def untrained_findings(self) -> list[str]:
        """State in which arms trainers had nothing to train on, so that their measures are those of older models."""
        arms_by_note: dict[str, list[str]] = {}
        for arm in self.arms:
            for world in self.worlds:
                if note := self.results.untrained(arm, world):
                    where = f" in world **{world}**" if world else ""
                    arms_by_note.setdefault(note, []).append(f"**{arm}**{where}")
        return [
            f"Trainers had nothing to train on in {_shortened(arms)} ({note}). Their measures are those of their "
            "previous models and do not show the effect of training under these policies, whatever the rank of the arm."
            for note, arms in arms_by_note.items()
        ]

    def missing_findings(self) -> list[str]:
        """State which measures lack values, how many runs failed, and which arms are therefore not compared."""
        failed, sentences = self.results.runs["error"].is_not_null().sum(), []
        for measure in self.study.measures:
            values = self.results.values.filter(pl.col("measure") == measure.name)["value"]
            missing = values.len() - int((values.is_not_null() & values.is_finite()).fill_null(False).sum())
            if missing:
                sentences.append(
                    f"{measure.name} has no finite value in {missing} of {values.len()} runs, which are left out: "
                    f"it was not measured at its step{self._last_events(measure)}."
                )
        if failed:
            sentences.append(f"{failed} of {self.results.runs.height} runs failed and are left out (see Runs).")
        return sentences + self._uncompared()

    def _last_events(self, measure: Measure) -> str:
        """Quote the events of the last step with any, from the first run without a value of a measure; or return ""."""
        values = self.results.values.filter(pl.col("measure") == measure.name)
        missing = values.filter(~(pl.col("value").is_not_null() & pl.col("value").is_finite()).fill_null(False))
        runs = missing.join(self.results.runs, on=["arm", "world", "seed"], how="inner", maintain_order="left")
        for arm, world, seed, run in runs.drop_nulls("run").select("arm", "world", "seed", "run").head(1).iter_rows():
            with suppress(EcosystemError):
                all_events = open_run(run).events
                last = max((step for step, _ in all_events), default=0)
                events = [event for step, event in all_events if step == last]
                if events:
                    more = f" and {len(events) - QUOTED_EVENTS} more" if len(events) > QUOTED_EVENTS else ""
                    label = f"{arm}{f' in {world}' if world else ''}, seed {seed}"
                    when = step_name(last, self.results.calendar)
                    return f" ({when} of {label}: {'; '.join(events[:QUOTED_EVENTS])}{more})"
        return ""

    def _uncompared(self) -> list[str]:
        """State which arms are not compared with the base arm in a measure, for lack of runs with a value."""
        sentences = []
        for measure in self.study.measures if self.study.compares else []:
            for world in self.worlds:
                compared = {row.arm for row in self.rows_of(measure, world)}
                uncompared = [arm for arm in self.arms if arm not in compared and arm != self.study.base_arm]
                if uncompared:
                    where = f" in world {world}" if world else ""
                    sentences.append(
                        f"{measure.name}{where}: {listed(uncompared)} cannot be compared with {self.study.base_arm}, "
                        "since fewer than two seeds have a value in both."
                    )
        return sentences

    def figure(self, name: str, chart: Any, *, full: bool = False) -> Figure:
        """Store a chart's specification and return the figure that shows it on the page."""
        self.specs[name] = charts.specification(chart)
        return Figure.of(name, self.specs[name], Source(self.folder), full=full)


def findings(data: StudyReportData) -> list[str]:
    """Return the findings of the study in sentences, derived from its numbers alone."""
    study, sentences = data.study, data.untrained_findings()
    if not study.compares:
        return [
            *sentences,
            f"{counted(len(study.seeds), 'seed')} at each of {len(data.arms)} points: the indices below show how much "
            "each axis matters.",
        ]
    sentences += _over_posterior(data)
    for measure in study.measures:
        for world in data.worlds:
            rows = data.rows_of(measure, world)
            if rows:
                sentences += _comparisons(measure, world, rows, study.base_arm)
        paired = [row for row in data.effects if row.measure == measure.name and row.saved is not None]
        if any(np.isfinite(row.narrower) for row in paired):
            sentences.append(pairing_gain(measure, paired))
    if study.fit is not None:
        sentences += fit_findings(study.fit, data.fitted) if data.fitted is not None else [data.fit_problem]
    sentences += [*mixture_findings(data.mixed), *survival_findings(data.survivals), *data.missing_findings()]
    sentences += [
        f"{name} is a mean over all trainers, but not all arms measured the same populations: differences may be due "
        "to the populations included. Set the population of this measure in the study (of)."
        for name in data.results.mixed
    ]
    return sentences


def _over_posterior(data: StudyReportData) -> list[str]:
    """State the effect of each arm with what is unknown of the parameters, and how often it is better."""
    return [
        f"{e.measure}: **{e.arm}** changes it by {signed(e.effect, 3)} (in a world of the posterior "
        f"{interval(e.low, e.high)}, with 95 % probability) and is better than **{data.study.base_arm}** in "
        f"{round(e.better * e.draws)} of {e.draws} draws."
        for e in data.posterior_effects
    ]


def _comparisons(measure: Measure, world: str, rows: Sequence[Row], base: str) -> list[str]:
    where = f" in world **{world}**" if world else ""
    significant = sorted(
        (r for r in rows if r.significant), key=lambda r: r.effect * (1 if measure.lower_is_better else -1)
    )
    better = [r for r in significant if r.better(measure)]
    worse = [r for r in significant if not r.better(measure)][::-1]
    identical = [r for r in rows if r.low == r.high == 0]
    other = [r for r in rows if not r.significant and r not in identical]
    sentences = []
    for kind, group in (("better", better), ("worse", worse)):
        if group:
            arms = _shortened([f"**{r.arm}** ({signed(r.effect, 3)}, {interval(r.low, r.high)})" for r in group])
            sentences.append(f"{measure.name}{where}: {kind} than **{base}**: {arms}.")
    for group, verdict in (
        (other, f"no significant difference from **{base}**"),
        (identical, f"no effect (the same values as **{base}** at every seed)"),
    ):
        if group:
            sentences.append(f"{measure.name}{where}: {verdict}: {_shortened([f'**{r.arm}**' for r in group])}.")
    return sentences


def _shortened(names: Sequence[str]) -> str:
    """List the first LISTED_ARMS names and the number of the others."""
    more = f" and {len(names) - LISTED_ARMS} more" if len(names) > LISTED_ARMS else ""
    return listed(names[:LISTED_ARMS]) + more


def pairing_gain(measure: Measure, rows: Sequence[Row]) -> str:
    """State how much narrower common random numbers made the intervals of a measure, and why if the gain is small."""
    rows = [row for row in rows if row.low < row.high]  # without arms that have no effect
    ratios = np.array([row.narrower for row in rows if np.isfinite(row.narrower)])
    correlations = [row.correlation for row in rows if np.isfinite(row.correlation)]
    gain, r = float(np.median(ratios)), float(np.median(correlations)) if correlations else float("nan")
    saved = int(np.median([row.saved or 0 for row in rows]))
    unpaired = f"an unpaired comparison would have needed {counted(saved, 'more run')}"
    spread = f"{number(float(ratios.min()), 1)} to {number(float(ratios.max()), 1)}"
    if gain > 1:
        made = f"made intervals {number(gain, 1)} times narrower (median over comparisons, {spread})"
    else:
        made = f"did not make intervals narrower (ratio of widths: median {number(gain, 1)}, {spread})"
    sentence = f"{measure.name}: common random numbers {made}; {unpaired if saved else 'no run was saved'}."
    if gain >= USEFUL_GAIN:
        return sentence
    if r > HIGH_CORRELATION:
        return (
            f"{sentence} The factor is below {USEFUL_GAIN:g} although the arms correlate over seeds (median "
            f"{number(r, 2)}): they vary by different amounts, and the excess variance of one arm does not cancel."
        )
    if not correlations:
        return f"{sentence} In each comparison one arm has the same value at every seed, so pairing has no effect."
    return (
        f"{sentence} The factor is below {USEFUL_GAIN:g} because the arms correlate little over seeds (median "
        f"{number(r, 2)}): when an arm changes early what is read or written, its world diverges from that of the "
        "base arm, and little common randomness remains at the step that is measured."
    )


def interval(low: float, high: float, digits: int = 3) -> str:
    """Format an interval."""
    return f"{signed(low, digits)} to {signed(high, digits)}"
