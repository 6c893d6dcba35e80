"""Settings that are numbers of steps, or numbers per step, and may be written as durations, rates or dates.

In a scenario with a :class:`~ecosystem.calendar.Calendar`, fields of the types :data:`Steps`, :data:`WholeSteps`,
:data:`PerStep`, :data:`Moment` and their like accept ``"18 months"``, ``"40 per month"`` or ``2024-03-01`` beside plain
numbers. Their values are numbers in steps that remember how they were written, so that a scenario with another length
of a step is the same scenario in time. Validators find the calendar in pydantic's validation context
(:func:`time_context`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date
from fractions import Fraction
from typing import Annotated, Any, Literal

from pydantic import Field, GetCoreSchemaHandler, GetJsonSchemaHandler, ValidationError, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from ecosystem.calendar import (
    AMOUNT,
    DATE,
    DURATION,
    Calendar,
    Duration,
    as_date,
    first_day,
    is_date,
    is_duration,
    step_length,
    unit_named,
)
from ecosystem.types import Count, Positive
from ecosystem.violations import sentence

_RATE = re.compile(rf"\s*{AMOUNT}\s+per\s+(?:{AMOUNT}\s+)?([A-Za-z]+)\s*")
_HOW = 'set start and step at the top of the file, such as start = 2022-06-01 and step = "1 month"'


class WrittenFloat(float):
    """A number of steps, or per step, that remembers how it was written."""

    written: Any


class WrittenInt(int):
    """A whole number of steps, or per step, that remembers how it was written."""

    written: Any


def plain_number(value: WrittenFloat | WrittenInt) -> float | int:
    """Return a number in steps without how it was written."""
    return int(value) if isinstance(value, WrittenInt) else float(value)


def as_written(value: Any) -> Any:
    """Return how a value was written in the file; a plain number is returned unchanged."""
    written = getattr(value, "written", value)
    return written.isoformat() if isinstance(written, date) else written


def time_context(data: Mapping[str, Any]) -> dict[str, Any]:
    """Return the validation context of a scenario: its calendar, or None, and its number of steps, if known.

    ``data`` are the tables of the file. Raises ValueError with a sentence if ``start`` or ``step`` is invalid.
    """
    start, step = data.get("start"), data.get("step")
    if (start is None) != (step is None):
        given, missing = ("start", "step") if step is None else ("step", "start")
        raise ValueError(f"{missing}: is missing, but {given} is set; {_HOW}, or neither")
    calendar = None
    if start is not None:
        calendar = Calendar(_of_field("start", first_day, start), _of_field("step", step_length, step))
    steps = data.get("steps")
    if isinstance(steps, str) and calendar is not None:
        try:
            steps = int(calendar.steps(Duration.parse(steps)))
        except ValueError:
            steps = None  # refused by the field itself
    known = isinstance(steps, int) and not isinstance(steps, bool) and 0 < steps <= 10**9
    if calendar is not None and known:
        _of_field("steps", calendar.date_of, steps)
    return {"calendar": calendar, "steps": steps if known else None}


def calendar_in(info: ValidationInfo) -> Calendar | None:
    """Return the calendar of the scenario that is being validated, or None."""
    calendar: Calendar | None = (info.context or {}).get("calendar")
    return calendar


def steps_in(info: ValidationInfo) -> int | None:
    """Return the number of steps of the scenario that is being validated, or None if it is unknown."""
    steps: int | None = (info.context or {}).get("steps")
    return steps


@dataclass(frozen=True)
class InTime:
    """Annotation of a numeric field in steps: it also accepts a duration, a rate or a date.

    It comes after the limits of the field, which apply to the number in steps.
    """

    sort: Literal["duration", "rate", "moment", "instant"]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Wrap the schema of the number."""
        schema = handler(source)
        return core_schema.with_info_wrap_validator_function(
            self._validate, schema, serialization=core_schema.plain_serializer_function_ser_schema(as_written)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of the number, or of text."""
        text = {"type": "string", "pattern": _PATTERNS[self.sort], "$comment": _FORMATS[self.sort]}
        return {"anyOf": [handler.resolve_ref_schema(handler(schema)), text]}

    def _validate(self, value: Any, limits: Callable[[Any], Any], info: ValidationInfo) -> Any:
        if isinstance(value, WrittenFloat | WrittenInt):
            value = value.written  # for another calendar, perhaps
        sorts = {"moment", "instant"} if is_date(value) else {"rate"} if _is_rate(value) else set()
        if is_duration(value):
            sorts = {"duration", "moment", "instant"}
        if not sorts:
            return limits(value)
        if self.sort not in sorts:
            raise ValueError(f"must be {_ACCEPTED[self.sort]}, not {_quoted(value)}")
        calendar = calendar_in(info)
        if calendar is None:
            raise ValueError(
                f"{_quoted(value)} needs a calendar, and the scenario has none; give a number {_IN[self.sort]}, or "
                f"{_HOW}"
            )
        return self._in_steps(as_date(value) if is_date(value) else value, calendar, limits)

    def _in_steps(self, value: Any, calendar: Calendar, limits: Callable[[Any], Any]) -> Any:
        """Return a date, duration or rate as a number that remembers how it was written."""
        number: Fraction | float
        if isinstance(value, date):
            number = calendar.step_of(value) if self.sort == "moment" else calendar.position(value)
        else:
            number = _per_step(value, calendar) if self.sort == "rate" else calendar.steps(Duration.parse(value))
        whole = isinstance(number, int) or (isinstance(number, Fraction) and number.denominator == 1)
        shown = _quoted(value)
        try:
            checked = limits(int(number) if whole else float(number))
        except ValidationError as error:
            [problem, *_] = error.errors()
            if problem["type"] == "int_from_float" or (problem["type"] == "int_type" and not whole):
                raise ValueError(_not_whole(shown, float(number), self.sort, calendar)) from None
            limit = sentence(problem, "").rpartition(", not ")[0]
            raise ValueError(f"{shown} is {_IN_STEPS[self.sort](float(number))}, which {limit}") from None
        result: WrittenFloat | WrittenInt = WrittenInt(checked) if isinstance(checked, int) else WrittenFloat(checked)
        result.written = value
        return result


_FORMATS = {"duration": "duration", "rate": "rate", "moment": "date or duration", "instant": "date or duration"}
_PATTERNS = {
    "duration": f"^{DURATION.pattern}$",
    "rate": f"^{_RATE.pattern}$",
    "moment": f"^({DATE.pattern}|{DURATION.pattern})$",
    "instant": f"^({DATE.pattern}|{DURATION.pattern})$",
}
_ACCEPTED = {
    "duration": 'a number of steps or a duration, such as "6 months"',
    "rate": 'a number or a rate, such as "40 per month"',
    "moment": "a step, a date or a duration, such as 2024-03-01",
    "instant": "a step, a date or a duration, such as 2024-03-01",
}
_IN = {"duration": "of steps", "rate": "per step", "moment": "of a step", "instant": "of steps"}
_IN_STEPS: dict[str, Callable[[float], str]] = {
    "duration": lambda number: f"{number:.6g} steps",
    "rate": lambda number: f"{number:.6g} a step",
    "moment": lambda number: f"step {number:.6g}",
    "instant": lambda number: f"step {number:.6g}",
}


def _not_whole(shown: str, number: float, sort: str, calendar: Calendar) -> str:
    low = int(number // 1)
    ends = (
        f"{low} and {low + 1}"
        if sort == "rate"
        else f'{low} ("{_times(calendar.step, low)}") and {low + 1} ("{_times(calendar.step, low + 1)}")'
    )
    return (
        f"{shown} is {_IN_STEPS[sort](round(number, 4))} (a step is {calendar.step}), but a whole number is needed; "
        f"the nearest are {ends}"
    )


def _times(step: Duration, number: int) -> Duration:
    return Duration(step.amount * number, step.unit)


def _is_rate(value: object) -> bool:
    return isinstance(value, str) and _RATE.fullmatch(value) is not None


def _quoted(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else f'"{value}"'


def _per_step(text: str, calendar: Calendar) -> Fraction:
    match = _RATE.fullmatch(text)
    assert match is not None
    amount, times, unit = match.groups()
    period = Duration(Fraction(times or 1), unit_named(unit, text))
    if not period.amount:
        raise ValueError(f'"{text}": the time after "per" must be greater than 0')
    return Fraction(amount) * (calendar.step / period)


def _of_field(name: str, read: Callable[[Any], Any], value: Any) -> Any:
    try:
        return read(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


@dataclass(frozen=True)
class _AsText:
    """Annotation of ``start`` and ``step``: valid text or a date, kept and written as text."""

    read: Callable[[Any], Any]
    example: str

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        """Validate with ``read``; keep text."""
        return core_schema.no_info_plain_validator_function(self._validate)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of text."""
        return {"type": "string", "examples": [self.example]}

    def _validate(self, value: Any) -> str:
        return str(self.read(value))


Day = Annotated[str, _AsText(first_day, "2022-06-01")]
"""A date, kept as ISO text."""
StepLength = Annotated[str, _AsText(step_length, "1 month")]
"""Length of a step, such as ``1 month``."""
Steps = Annotated[float, Field(gt=0), InTime("duration")]
"""A duration in steps, such as a half-life: a number of steps, or text such as ``18 months``."""
WholeSteps = Annotated[Positive, InTime("duration")]
"""A duration of 1 or more whole steps."""
Delay = Annotated[Count, InTime("duration")]
"""A duration of 0 or more whole steps."""
PerStep = Annotated[float, Field(ge=0, le=1e9), InTime("rate")]
"""A mean number per step: a number, or text such as ``40 per month``."""
WholePerStep = Annotated[Count, InTime("rate")]
"""A whole number per step, 0 or more."""
SomePerStep = Annotated[Positive, InTime("rate")]
"""A whole number per step, 1 or more."""
Moment = Annotated[Positive, InTime("moment")]
"""A step from 1 on: its number, its date, or its time after the opening, such as ``6 months``."""
Instant = Annotated[float, InTime("instant")]
"""A time that need not be that of a whole step, in steps: a number, a date, or a duration after the opening."""
