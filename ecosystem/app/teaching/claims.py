"""What a story says that its reader will observe, as comparisons of metrics that the page checks."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import ScenarioError
from ecosystem.formats import number
from ecosystem.metrics.catalogue import name_of
from ecosystem.metrics.conditions import NUMBER, WEB, Comparison, measured
from ecosystem.report import summaries
from ecosystem.scenario.entries.theory import TheorySpec
from ecosystem.scenario.measured import unmeasured
from ecosystem.scenario.scenario import Scenario
from ecosystem.theory.laws import predict_variance

WITHIN = 3.0  # standard errors between a mean and its closed form
WORLDS = ("first", "second")
FORM = (
    "write NAME.METRIC, one of < <= > >=, and a number or another NAME.METRIC, perhaps multiplied (labs.cross_entropy "
    "< 0.9 * labs.cross_entropy@3), or NAME.METRIC follows law; NAME is web or a population of trainers, @3 a step, "
    "and first: or second: before NAME one of two worlds"
)
_TERM = r"(?:(first|second):)?([A-Za-z0-9][\w-]*)(?:/(\d{1,9}))?\.([a-z][a-z0-9_]*)(?:@(\d{1,9}))?"
_ALONE = re.compile(_TERM, re.ASCII)
_COMPARED = re.compile(rf"\s*({_TERM})\s*(<=|>=|<|>)\s*(?:({NUMBER})\s*\*\s*)?({_TERM}|{NUMBER})\s*", re.ASCII)
_TENTH = re.compile(r"vocabulary_kept_(10|[1-9])")
_TENTHS = ("most frequent", *["second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"], "rarest")
_LAW = re.compile(rf"\s*({_TERM})\s+follows\s+law\s*", re.ASCII)


@dataclass(frozen=True)
class Term:
    """A metric of a world, at a step or (None) at the last one of the scene."""

    world: int
    of: str
    number: int | None
    metric: str
    step: int | None

    @classmethod
    def read(cls, text: str) -> Term:
        """Read a term that the pattern has matched."""
        world, of, who, metric, step = _ALONE.fullmatch(text).groups()  # type: ignore[union-attr]
        place = WORLDS.index(world) if world else 0
        return cls(place, of, None if who is None else int(who), name_of(metric), None if step is None else int(step))

    def at(self, step: int) -> int:
        """Return the step of the term in a scene that ends at this one."""
        return step if self.step is None else self.step

    def value(self, views: Sequence[RunView], step: int) -> float | None:
        """Return the value in these worlds; None if it was not measured, or the step was not made."""
        if self.world >= len(views) or views[self.world].last < self.at(step):
            return None
        rows = views[self.world].metrics.filter(pl.col("step") == self.at(step))
        return measured(rows, self._comparison())

    def problem(self, scenario: Scenario, step: int, worlds: int) -> str:
        """Return why there is no such value at the end of a scene; "" if there is one."""
        if self.world >= worlds:
            return "there is no second world before a fork"
        if self.at(step) > step:
            return f"step {self.step} comes after the scene, which ends at step {step}"
        compared, counts = self._comparison(), {name: trainer.count for name, trainer in scenario.trainers.items()}
        if problem := compared.problem(counts) or unmeasured(scenario, compared):
            return problem
        if self.of != WEB and self.at(step) == 0:
            return f"{compared.name} is measured from step 1 on, when trainers have trained"
        return ""

    def shown(self, step: int, worlds: int) -> str:
        """Return the term in words."""
        who = self.of if self.number is None else f"{self.of}/{self.number}"
        where = f" in the {WORLDS[self.world]} world" if worlds > 1 else ""
        what = self.metric.replace("_", " ")
        if found := _TENTH.fullmatch(self.metric):
            what = f"share kept of the {_TENTHS[int(found[1]) - 1]} tenth of words"
        return f"{what}, {who}, at step {self.at(step)}{where}"

    def _comparison(self) -> Comparison:
        return Comparison(self.of, self.number, self.metric, "<", 0.0)


@dataclass(frozen=True)
class Outcome:
    """What came out: whether a claim ``holds`` (None: not known yet), and the figures as a sentence."""

    holds: bool | None
    figures: str


@dataclass(frozen=True)
class Claim:
    """A term compared with a number, with ``factor`` times another term or (sign "law") with its closed form."""

    term: Term
    sign: str
    factor: float
    other: Term | None

    @classmethod
    def parse(cls, text: str) -> Claim:
        """Read a claim; raise ScenarioError, with a sentence without a full stop, if it is none."""
        if found := _LAW.fullmatch(text):
            return cls(Term.read(found[1]), "law", 1.0, None)
        found = _COMPARED.fullmatch(text)
        if found is None:
            raise ScenarioError(f"{text!r} is no claim: {FORM}")
        left, sign, factor, right = found[1], found[7], found[8], found[9]
        if not math.isfinite(float(factor or 1)) or (re.fullmatch(NUMBER, right) and not math.isfinite(float(right))):
            raise ScenarioError(f"{text[:40]!r} … is no claim: its number is too large")
        if _ALONE.fullmatch(right) and not re.fullmatch(NUMBER, right):
            return cls(Term.read(left), sign, float(factor or 1), Term.read(right))
        if factor is not None:
            raise ScenarioError(f"{text!r} is no claim: multiply the numbers; {FORM}")
        return cls(Term.read(left), sign, float(right), None)

    def problem(self, scenario: Scenario, step: int, worlds: int) -> str:
        """Return why the claim cannot be checked at the end of a scene; "" if it can."""
        for term in (self.term, self.other):
            if term is not None and (problem := term.problem(scenario, step, worlds)):
                return problem
        if self.sign == "law" and not self._laws(scenario):
            return f"the world has no [[theory]] for {self.term.metric} of {self.term.of}"
        return ""

    def outcome(self, views: Sequence[RunView], step: int) -> Outcome:
        """Compare what came out in these worlds, for a scene that ends at a step."""
        value = self.term.value(views, step)
        name = self.term.shown(step, len(views))
        if value is None:
            return Outcome(None, f"{name}: not measured yet")
        if self.sign == "law":
            return self._beside_law(views[self.term.world], name, value, step)
        limit = self.factor if self.other is None else self.other.value(views, step)
        if limit is None:
            return Outcome(None, f"{self.other.shown(step, len(views))}: not measured yet")  # type: ignore[union-attr]
        bound = limit * self.factor if self.other is not None else limit
        digits = _digits(value, bound, limit)
        told = f"{name}: {number(value, digits)}"
        if self.other is not None:
            told += f"; {self.other.shown(step, len(views))}: {number(limit, digits)}"
        if self.other is None or self.factor != 1:
            told += f" (to be {_WORDS[self.sign]} {number(bound, digits)})"
        return Outcome(Comparison("", None, "", self.sign, bound).holds(value), told)

    def _beside_law(self, view: RunView, name: str, value: float, step: int) -> Outcome:
        own = pl.col("population") == self.term.of
        when = pl.col("step") == self.term.at(step)
        rows = summaries.means(summaries.members(view.metrics, self.term.metric)).filter(own & when)
        expected = view.report_data.laws(self.term.metric).filter(own & when)["value"]
        if expected.is_empty() or not rows.height:
            return Outcome(None, f"{name}: no closed form to compare with")
        known = self._error_of_law(view, self.term.at(step), rows["members"][0])
        error = rows["error"][0] if known is None else known
        if error is None or not math.isfinite(error):
            return Outcome(None, f"{name}: its standard error is not known")
        digits = _digits(value, expected[0], error)
        error_told, shown, closed = (number(each, digits) for each in (error, value, expected[0]))
        told = f"{shown}; closed form: {closed} ± {error_told}"
        if known is None:
            told = f"{shown} ± {error_told}; closed form: {closed}"
        return Outcome(abs(value - expected[0]) <= WITHIN * error, f"{name}: {told}")

    def _error_of_law(self, view: RunView, step: int, members: int) -> float | None:
        """Return the standard error of a mean under the law, if that is known.

        It does not depend on what came out. The spread of a few skewed values is too small whenever their mean is.
        """
        law = self._laws(view.scenario)[0]
        variance = predict_variance(law.law, np.array([step + law.first]), law.parameters, view.report_data.truth)
        return None if variance is None else math.sqrt(variance[0] / members)

    def _laws(self, scenario: Scenario) -> list[TheorySpec]:
        return [law for law in scenario.theory if (law.metric, law.population) == (self.term.metric, self.term.of)]


def _digits(value: float, *others: float) -> int:
    """Return decimals, from 2 to 8, with which a value differs from the others unless it equals them."""
    different = [other for other in others if other != value]
    return next((n for n in range(2, 8) if all(number(value, n) != number(other, n) for other in different)), 8)


_WORDS = {"<": "below", "<=": "at most", ">": "above", ">=": "at least"}
