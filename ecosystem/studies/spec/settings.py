"""Uncertain parameters as settings of a scenario: which dotted paths get a value, and how it is written."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from fractions import Fraction
from typing import Any

from pydantic import Field, model_validator

from ecosystem.calendar import UNITS, Duration
from ecosystem.spec import Spec
from ecosystem.times import Day

_DAYS = {unit: float(Duration(Fraction(1), unit).days) for unit in UNITS}
_DECIMALS = 9  # that durations and rates may have
_NEVER = ("seed", "name", "description", "steps", "start", "step", "variants", "theory", "knobs", "placement")
_PATH = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")


class Setting(Spec):
    """The dotted paths of a scenario that one parameter sets, and the form in which its value is written there."""

    path: str | None = Field(None, description="the dotted path that the parameter sets")
    paths: list[str] | None = Field(None, description="several dotted paths that get the same value, instead of path")
    unit: str | None = Field(
        None,
        description='written after the value, such as "years" or "per month", where the scenario accepts durations or '
        "rates; absent: the value is a plain number",
    )
    since: Day | None = Field(
        None,
        description="a date: the setting is the date that is the value, in `unit`, after this one; absent: no date",
    )
    whole: bool = Field(False, description="round the value to a whole number")

    @model_validator(mode="after")
    def _check_paths(self) -> Setting:
        if (self.path is None) == (self.paths is None):
            raise ValueError("path: give either path (one dotted path) or paths (a list)")
        if not self.targets:
            raise ValueError("paths: is empty; give at least one dotted path")
        for path in self.targets:
            if not _PATH.fullmatch(path):
                raise ValueError(f'path: "{path}" is no dotted path, such as "trainers.labs.decoding.temperature"')
            if path.split(".")[0] in _NEVER:
                raise ValueError(f'path: "{path}" is no setting of the world; choose another path')
        if self.since is not None and (self.unit is None or self.unit.removesuffix("s") not in _DAYS):
            raise ValueError(f"unit: give the unit of the time after since: {', '.join(f'{unit}s' for unit in _DAYS)}")
        return self

    @property
    def targets(self) -> list[str]:
        """The dotted paths."""
        return [self.path] if self.path is not None else list(self.paths or [])

    def written(self, value: float) -> Any:
        """Return a value as it is written in a scenario: a number, a number with its unit, or a date."""
        number = round(value) if self.whole else float(value)
        if self.since is not None:
            days = number * _DAYS[str(self.unit).removesuffix("s")]
            return (date.fromisoformat(self.since) + timedelta(days=round(days))).isoformat()
        if self.unit is None:
            return number
        return f"{f'{number:.{_DECIMALS}f}'.rstrip('0').rstrip('.')} {self.unit}"

    def values(self, value: float) -> dict[str, Any]:
        """Return the settings of a value: dotted path → what is written there."""
        return dict.fromkeys(self.targets, self.written(value))


def settings_at(parameters: Mapping[str, Setting], values: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings of several parameters: dotted path → what is written there."""
    return {path: v for name, setting in parameters.items() for path, v in setting.values(values[name]).items()}
