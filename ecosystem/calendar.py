"""The calendar of a scenario: dates of steps, and lengths of time.

A scenario with ``start`` and ``step`` has a :class:`Calendar`. Settings that are written as durations, rates or dates
are in :mod:`ecosystem.times`.
"""

from __future__ import annotations

import math
import re
from calendar import month_name, monthrange
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from fractions import Fraction

from ecosystem.errors import nearest

_DAYS = {"day": 1, "week": 7}
_MONTHS = {"month": 1, "quarter": 3, "year": 12}
UNITS = (*_DAYS, *_MONTHS)
_DAYS_A_MONTH = Fraction(36525, 1200)  # a year has 365.25 days
_YEARS = (1000, 9000)
AMOUNT = r"([0-9]{1,9}(?:\.[0-9]{1,9})?)"
DURATION = re.compile(rf"\s*{AMOUNT}\s+([A-Za-z]+)\s*")
MONTH = re.compile(r"[0-9]{4}-[0-9]{2}")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True)
class Duration:
    """An amount of one unit: day, week, month, quarter or year."""

    amount: Fraction
    unit: str

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Read a duration such as ``18 months`` or ``0.5 years``; raise ValueError with a sentence for other text."""
        match = DURATION.fullmatch(text)
        if match is None:
            raise ValueError(f'"{text}" is no duration; write a number and a unit, such as "6 months"')
        return cls(Fraction(match[1]), unit_named(match[2], text))

    @property
    def months(self) -> Fraction | None:
        """Length in months; None for days and weeks."""
        return self.amount * _MONTHS[self.unit] if self.unit in _MONTHS else None

    @property
    def days(self) -> Fraction:
        """Length in days, of which a year has 365.25 and a month the twelfth part."""
        months = self.months
        return self.amount * _DAYS[self.unit] if months is None else months * _DAYS_A_MONTH

    def __truediv__(self, other: Duration) -> Fraction:
        """Return the ratio of two durations: exact among days and weeks and among months, quarters and years."""
        if self.months is not None and other.months is not None:
            return self.months / other.months
        return self.days / other.days

    def __str__(self) -> str:
        """Return the duration as it is written in a file."""
        return f"{_shown(self.amount)} {self.unit}{'' if self.amount == 1 else 's'}"


@dataclass(frozen=True)
class Calendar:
    """Dates of steps: step ``t`` has the date ``start`` + ``t`` times ``step``, in calendar arithmetic."""

    start: date
    step: Duration

    @classmethod
    def of(cls, start: object, step: object) -> Calendar:
        """Make a calendar of the values of ``start`` and ``step`` in a file; raise ValueError with a sentence."""
        return cls(first_day(start), step_length(step))

    def date_of(self, t: int) -> date:
        """Return the date of a step, which may be negative.

        Steps of months keep the day of the month of the start, or the last day of shorter months. Raises ValueError for
        years outside 1000 to 9000.
        """
        try:
            return _within_years(self._date_of(t))
        except (OverflowError, ValueError):
            raise ValueError(f"step {t} is outside the years {_YEARS[0]} to {_YEARS[1]}") from None

    def reaches(self, t: int) -> bool:
        """Return whether a step has a date, which is in the years 1000 to 9000."""
        try:
            self.date_of(t)
        except ValueError:
            return False
        return True

    def _date_of(self, t: int) -> date:
        months = self.step.months
        if months is None:
            return self.start + timedelta(days=int(self.step.days) * t)
        year, month = divmod(self.start.year * 12 + self.start.month - 1 + int(months) * t, 12)
        return date(year, month + 1, min(self.start.day, monthrange(year, month + 1)[1]))

    def position(self, day: date) -> float:
        """Return the step of a date; between two steps, the share of the days between their dates is added."""
        _within_years(day)
        low = int((day - self.start).days / self.step.days)
        low -= 2  # an estimate: months differ in length
        while self._date_of(low + 1) <= day:
            low += 1
        while self._date_of(low) > day:
            low -= 1
        first = self._date_of(low)
        return low + (day - first).days / (self._date_of(low + 1) - first).days

    def step_of(self, day: date) -> int:
        """Return the step that has a date; raise ValueError naming the two nearest steps if none has."""
        position = self.position(day)
        low = int(position // 1)
        if position == low:
            return low
        raise ValueError(f"{day} is between {self.named(low)} and {self.named(low + 1)}; give the date of a step")

    def steps(self, duration: Duration) -> Fraction:
        """Return a duration in steps."""
        return duration / self.step

    def shown(self, t: int) -> str:
        """Return the date of a step as read by people: June 2023 for steps of months from the first, or 2023-06-15."""
        day = self.date_of(t)
        if self.step.months is None or self.start.day != 1:
            return day.isoformat()
        return f"{month_name[day.month]} {day.year}"

    def span(self, first: int, last: int) -> str:
        """Return the dates of two steps as read by people: June 2023 to May 2024; one date if they are one step."""
        return self.shown(first) if first == last else f"{self.shown(first)} to {self.shown(last)}"

    def named(self, t: int) -> str:
        """Return a step with its date, such as ``step 12 (2023-06-01)``."""
        return f"step {t} ({self.date_of(t)})"


def step_name(t: int, calendar: Calendar | None) -> str:
    """Return a step as sentences name it: ``step 12``, with a calendar ``step 12 (June 2023)``.

    A step that is outside the years of calendars, such as that of a change long after the run, has no date.
    """
    if calendar is None or not calendar.reaches(t):
        return f"step {t}"
    return f"step {t} ({calendar.shown(t)})"


def step_at(value: int | str | date, calendar: Calendar | None) -> int:
    """Return the step that a number, a date, or text of either means: 12, ``12``, ``2024-03-01`` or ``2024-03``.

    A month means its first step. Raises ValueError with a sentence if the value is none of these, if no step has the
    date, or if there is no calendar.
    """
    if isinstance(value, int):
        return value
    text = str(value).strip()
    if text.isdecimal():
        return int(text)
    if not (is_date(text) or MONTH.fullmatch(text)):
        raise ValueError(f"{text!r} is no step; give its number, or its date such as 2024-03-01 or 2024-03")
    if calendar is None:
        raise ValueError(f"{text}: the scenario has no calendar (start, step); give the number of a step")
    if is_date(text):
        return calendar.step_of(as_date(text))
    first = as_date(f"{text}-01")
    step = math.ceil(calendar.position(first))
    if (day := calendar.date_of(step)).isoformat()[:7] != text:
        raise ValueError(f"no step is in {text}: {calendar.named(step - 1)} is before it, {calendar.named(step)} after")
    assert day >= first
    return step


def first_day(value: object) -> date:
    """Return the value of ``start`` as a date; raise ValueError with a sentence if it is none."""
    return _within_years(as_date(value))


def step_length(value: object) -> Duration:
    """Return the value of ``step`` as a duration; raise ValueError with a sentence if no step can have it."""
    if not isinstance(value, str):
        raise ValueError(f'must be a duration in quotes, such as "1 month", not {value!r}')
    length = Duration.parse(value)
    if length.amount.denominator != 1 or length.amount < 1:
        raise ValueError(f'must be a whole number of units, such as "1 month" or "2 weeks", not "{value}"')
    if length.days > 36_525:
        raise ValueError(f'must be at most "100 years", not "{value}"')
    return length


def unit_named(word: str, text: str) -> str:
    """Return the unit that a word of ``text`` names, in the singular; raise ValueError if it names none."""
    unit = word.lower().removesuffix("s")
    if unit not in UNITS:
        raise ValueError(f'"{text}": unknown unit "{word}"{nearest(unit, UNITS)}; the units are {", ".join(UNITS)}')
    return unit


def is_date(value: object) -> bool:
    """Return whether a value is a date, or text of the form 2022-06-01."""
    return isinstance(value, date) or (isinstance(value, str) and DATE.fullmatch(value.strip()) is not None)


def is_duration(value: object) -> bool:
    """Return whether a value is text of a number and a word."""
    return isinstance(value, str) and DURATION.fullmatch(value) is not None


def as_date(value: object) -> date:
    """Return a date, or text of the form 2022-06-01, as a date; raise ValueError with a sentence for another value."""
    if isinstance(value, datetime):
        raise ValueError(f"must be a date without a time, such as {value.date()}, not {value.isoformat()}")
    if isinstance(value, str) and DATE.fullmatch(value.strip()):
        try:
            return date.fromisoformat(value.strip())
        except ValueError:
            raise ValueError(f'"{value}" is no date of the calendar') from None
    if not isinstance(value, date):
        raise ValueError(f"must be a date, such as 2022-06-01, not {value!r}")
    return value


def _within_years(day: date) -> date:
    if not _YEARS[0] <= day.year <= _YEARS[1]:
        raise ValueError(f"{day} is outside the years {_YEARS[0]} to {_YEARS[1]}")
    return day


def _shown(amount: Fraction) -> str:
    return str(amount.numerator) if amount.denominator == 1 else f"{float(amount):.6g}"
