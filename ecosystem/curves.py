"""Values that vary in time: a field of type :class:`Curve` accepts a number, or a table with a law.

The laws are those by which technologies and habits spread: ``saturating`` (exponential approach to a limit),
``logistic`` (Verhulst 1838; Griliches 1957, Econometrica 25) and ``points`` (linear between given values).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import (
    AfterValidator,
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from ecosystem.spec import PLAIN, Spec, plain_or_table
from ecosystem.times import Instant, PerStep, Steps, steps_in

Law = Literal["constant", "saturating", "logistic", "points"]

_NEEDED: dict[str, tuple[str, ...]] = {
    "constant": ("value",),
    "saturating": ("limit", "time", "start"),
    "logistic": ("limit", "time", "midpoint"),
    "points": ("points",),
}
_OPTIONAL: dict[str, tuple[str, ...]] = {"saturating": ("base",), "logistic": ("base",)}


class Curve(Spec):
    """A value that varies in time: a number, or one of these laws.

    ``saturating``: ``base + (limit - base) (1 - exp(-(t - from) / time))`` after ``from``, ``base`` before.
    ``logistic``: ``base + (limit - base) / (1 + exp(-(t - midpoint) / time))``. ``points``: linear between
    ``[[when, value], …]``, constant outside.
    """

    _constants: ClassVar[tuple[type, ...]] = (int, float)
    _described: ClassVar[str] = "a number"

    law: Law = Field(description="saturating, logistic or points; constant is what a plain number means")
    value: float | None = plain_or_table("for constant: the value")
    limit: float | None = Field(None, description="for saturating and logistic: the value that is approached")
    base: float | None = Field(None, description="for saturating and logistic: the value at first; absent: 0")
    time: Steps | None = Field(
        None, description="for saturating and logistic: time constant, in steps or as a duration such as 0.83 years"
    )
    start: Instant | None = Field(
        None, alias="from", description="for saturating: when the rise begins: a step, a date, or a time after step 0"
    )
    midpoint: Instant | None = Field(
        None, description="for logistic: when half of the way is covered: a step, a date, or a time after step 0"
    )
    points: list[tuple[Instant, float]] | None = Field(
        None, description="for points: times, ascending, each with its value"
    )

    @model_validator(mode="before")
    @classmethod
    def _number(cls, value: Any) -> Any:
        """Take a plain number for a constant, and lists of files for pairs."""
        if isinstance(value, Curve):
            return value
        if isinstance(value, cls._constants) and not isinstance(value, bool):
            return {"law": "constant", PLAIN: value}
        if not isinstance(value, dict):
            raise ValueError(f"must be {cls._described}, or a table with a law, not {value!r}")
        if isinstance(value.get("points"), list):
            pairs = [tuple(pair) if isinstance(pair, list) else pair for pair in value["points"]]
            return {**value, "points": pairs}
        return value

    @model_validator(mode="after")
    def _complete(self) -> Curve:
        needed, optional = _NEEDED[self.law], _OPTIONAL.get(self.law, ())
        for name, field in type(self).model_fields.items():
            given = getattr(self, name) is not None
            key = field.alias or name
            if name in needed and not given:
                raise ValueError(f'{key}: is required for law = "{self.law}"')
            if given and name not in ("law", *needed, *optional):
                keys = ", ".join(type(self).model_fields[n].alias or n for n in (*needed, *optional))
                raise ValueError(f'{key}: has no meaning for law = "{self.law}", which has {keys}; remove it')
        times = [when for when, _ in self.points or []]
        if self.law == "points" and (not times or any(b <= a for a, b in pairwise(times))):
            raise ValueError("points: give one or more [time, value], with ascending times")
        return self

    @model_serializer(mode="wrap")
    def _plain(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """Return the number of a constant; other curves are tables."""
        table = serialize(self)
        return table["value"] if self.law == "constant" else table

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of a constant or a table."""
        table = handler.resolve_ref_schema(handler(schema))
        constants = [part for part in table["properties"]["value"]["anyOf"] if part.get("type") != "null"]
        return {"anyOf": [*constants, {**table, "type": "object"}]}

    def at(self, t: float) -> float:
        """Return the value at a time in steps."""
        if self.law == "constant":
            assert self.value is not None
            return self.value
        if self.points is not None:
            times, values = zip(*self.points, strict=True)
            return float(np.interp(t, np.asarray(times, np.float64), np.asarray(values, np.float64)))
        assert self.limit is not None and self.time is not None
        base = self.base or 0.0
        return base + (self.limit - base) * self._progress(t)

    def _progress(self, t: float) -> float:
        """Return the share of the way from ``base`` to ``limit`` that is covered at a time."""
        assert self.time is not None
        if self.start is not None:
            return -math.expm1(-max(t - self.start, 0.0) / self.time)
        assert self.midpoint is not None
        z = (t - self.midpoint) / self.time
        return 1 / (1 + math.exp(-z)) if z >= 0 else math.exp(max(z, -745.0)) / (1 + math.exp(max(z, -745.0)))

    def extremes(self, steps: int | None = None) -> tuple[float, float]:
        """Return the smallest and the largest value from step 0 to ``steps``; None: at any time."""
        if steps is None:
            values = [v for _, v in self.points] if self.points is not None else self._ends()
        else:  # laws are monotone between these times
            inner = [float(when) for when, _ in self.points or [] if 0 < when < steps]
            values = [self.at(t) for t in (0.0, *inner, float(steps))]
        return min(values), max(values)

    def _ends(self) -> list[float]:
        if self.law == "constant":
            return [self.at(0)]
        assert self.limit is not None
        return [self.base or 0.0, self.limit]


class RateOverTime(Curve):
    """A number per step that varies in time: a number, a rate such as ``"2 per month"``, or a law with such values."""

    _constants: ClassVar[tuple[type, ...]] = (int, float, str)
    _described: ClassVar[str] = 'a number or a rate such as "2 per month"'

    value: PerStep | None = plain_or_table("for constant: the value")
    limit: PerStep | None = Field(None, description="for saturating and logistic: the value that is approached")
    base: PerStep | None = Field(None, description="for saturating and logistic: the value at first; absent: 0")
    points: list[tuple[Instant, PerStep]] | None = Field(
        None, description="for points: times, ascending, each with its value"
    )


@dataclass(frozen=True)
class _Within:
    """Check that a curve stays within limits at all steps of the scenario."""

    low: float
    high: float

    def __call__(self, curve: Curve, info: ValidationInfo) -> Curve:
        """Return the curve; raise ValueError with a sentence if it leaves the limits."""
        steps = steps_in(info)
        smallest, largest = curve.extremes(steps)
        if smallest < self.low or largest > self.high:
            worst, word, limit = (
                (smallest, "at least", self.low) if smallest < self.low else (largest, "at most", self.high)
            )
            if curve.law == "constant":
                raise ValueError(f"must be {word} {limit:g}, not {worst:g}")
            during = "" if steps is None else f" within the {steps} steps of the run"
            raise ValueError(f"must be {word} {limit:g} at all times, but reaches {worst:.6g}{during}")
        return curve


def within(low: float, high: float = math.inf) -> AfterValidator:
    """Return the annotation of a curve that stays between ``low`` and ``high`` at all steps of the scenario."""
    return AfterValidator(_Within(low, high))


ShareCurve = Annotated[Curve, within(0, 1)]
"""A share that varies in time."""
FactorCurve = Annotated[Curve, within(0, 1e6)]
"""A factor of 0 or more that varies in time."""
RateCurve = RateOverTime
"""A number per step, 0 or more, that varies in time."""
