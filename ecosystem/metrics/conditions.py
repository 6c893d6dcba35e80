"""Conditions on measured metrics, such as ``web.synthetic_share > 0.4``: parsing, checking and evaluation."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import polars as pl

from ecosystem.errors import ScenarioError, nearest
from ecosystem.metrics.catalogue import definitions, name_of

WEB = "web"
WEB_METRICS = (
    "synthetic_share",
    "depth",
    "documents",
    "held_out_overlap",
    "crawl_refused_share",
    "read_synthetic_share",
)
"""Metrics of scope ``web``."""
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
NUMBER = r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d{1,3})?"
"""Pattern of a number in a condition or a claim; it may be too large for a float."""
_COMPARISON = re.compile(
    r"\s*(?P<of>[A-Za-z0-9][\w-]*)(/(?P<number>\d{1,9}))?\.(?P<metric>[a-z][a-z0-9_]*)"
    rf"\s*(?P<sign><=|>=|<|>)\s*(?P<limit>{NUMBER})\s*",
    re.ASCII,
)
FORM = (
    "write NAME.METRIC, one of < <= > >=, and a number, such as web.synthetic_share > 0.4; NAME is web, a population "
    "of trainers (their mean) or one trainer (labs/0); join several by and, or"
)


@dataclass(frozen=True)
class Comparison:
    """A metric compared with a number."""

    of: str
    """``web`` or a population of trainers."""
    number: int | None
    """Number of one trainer of the population; None: the mean over its trainers."""
    metric: str
    sign: str
    limit: float

    @property
    def name(self) -> str:
        """The metric as it is written in a condition."""
        return f"{self.of}.{self.metric}" if self.number is None else f"{self.of}/{self.number}.{self.metric}"

    def holds(self, value: float) -> bool:
        """Compare a value."""
        return _COMPARE[self.sign](value, self.limit)

    def problem(self, populations: Mapping[str, int]) -> str:
        """Return why this cannot be measured, given the trainers of each population; "" if it can."""
        choices, metrics = [WEB, *populations], definitions()
        if self.of not in choices:
            return (
                f'there is no population of trainers "{self.of}"{nearest(self.of, choices)}; '
                f"choose from {', '.join(choices)}"
            )
        if self.metric not in metrics:
            return f'there is no metric "{self.metric}"{nearest(self.metric, metrics)}; see `ecosystem list metrics`'
        if self.of == WEB and (self.metric not in WEB_METRICS or self.number is not None):
            return f"the web has no {self.name.removeprefix('web').lstrip('.')}; choose from {', '.join(WEB_METRICS)}"
        if self.number is not None and self.number >= populations[self.of]:
            return f"there is no trainer {self.of}/{self.number}; the numbers are 0 to {populations[self.of] - 1}"
        return ""


@dataclass(frozen=True)
class Condition:
    """Comparisons joined by ``and`` and ``or``; ``and`` binds more tightly."""

    alternatives: tuple[tuple[Comparison, ...], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse a condition; raise ScenarioError, with a sentence without a full stop, for any other text."""
        return cls(
            tuple(
                tuple(_comparison(part, text) for part in re.split(r"\s+and\s+", alternative))
                for alternative in re.split(r"\s+or\s+", text)
            )
        )

    def comparisons(self) -> Iterator[Comparison]:
        """Yield every comparison, in order."""
        for alternative in self.alternatives:
            yield from alternative

    def holds(self, values: Mapping[Comparison, float]) -> bool:
        """Return whether the condition holds, given the measured value of every comparison."""
        return any(all(part.holds(values[part]) for part in alternative) for alternative in self.alternatives)


def _comparison(part: str, text: str) -> Comparison:
    found = _COMPARISON.fullmatch(part)
    if found is None or not math.isfinite(float(found["limit"])):
        raise ScenarioError(f"{text!r} is not a condition: {FORM}")
    number = None if found["number"] is None else int(found["number"])
    return Comparison(found["of"], number, name_of(found["metric"]), found["sign"], float(found["limit"]))


def measured(metrics: pl.DataFrame, comparison: Comparison) -> float | None:
    """Return the value of a comparison in the metrics of one step (columns of ``schema.METRICS``); None without one.

    A value of trainers is one of their training sets if trainers do not have the metric.
    """
    rows = metrics.filter((pl.col("metric") == comparison.metric) & pl.col("value").is_not_null())
    if comparison.of == WEB:
        values = rows.filter(pl.col("scope") == WEB)["value"].to_list()
        return values[0] if values else None
    name = pl.col("id") if comparison.number is not None else pl.col("id").str.replace("/[0-9]+$", "")
    who = comparison.of if comparison.number is None else f"{comparison.of}/{comparison.number}"
    for scope in ("trainer", "training_set"):
        values = rows.filter((pl.col("scope") == scope) & (name == who))["value"].to_list()
        if values:
            return float(sum(values) / len(values))
    return None


def same_values(when: Condition, ends: Condition) -> str:
    """Return a value for which both conditions hold, if each is one comparison of the same metric; "" if none does.

    Comparisons in the same direction may both hold, such as > 1 and > 5, unless the second holds whenever the first
    does: then nothing ever begins.
    """
    first, second = ([*condition.comparisons()] for condition in (when, ends))
    if len(first) != 1 or len(second) != 1 or first[0].name != second[0].name:
        return ""
    (one,), (other,) = first, second
    low, high = sorted((one.limit, other.limit))
    step = (high - low) or 1.0
    begun = [value for value in (low - step, low, low + step / 2, high, high + step) if one.holds(value)]
    both = [value for value in begun if other.holds(value)]
    may_begin = one.sign[0] == other.sign[0] and both != begun
    return f"{both[0]:g}" if both and not may_begin else ""
