"""Define timed changes, and the knobs of the interactive page that make such changes by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from ecosystem.spec import Spec
from ecosystem.times import Moment


class Change(Spec):
    """A timed change: set dotted paths to these values, starting at step ``at``."""

    at: Moment = Field(description="first step at which the values are in force: its number, date or time")
    set: dict[str, Any] = Field(description="table of dotted path = value")

    @model_validator(mode="after")
    def _values_exist(self) -> Change:
        for path, value in self.set.items():
            if _has_none(value):
                raise ValueError(f"set: {path} = {value!r}: a change needs a value; a file cannot hold None")
        return self


def _has_none(value: Any) -> bool:
    """Return whether a value from Python is None, or a table or list with None somewhere inside."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return value is None or any(map(_has_none, inner))


class Knob(Spec):
    """A control of the interactive page for one dotted path: a slider over numbers, or a list of choices."""

    path: str = Field(description="dotted path to set; it must be changeable inside a run")
    label: str | None = Field(None, description="label on the page; absent: its path")
    low: float | None = Field(None, description="smallest value of a slider")
    high: float | None = Field(None, description="largest value of a slider")
    step: Annotated[float, Field(gt=0)] | None = Field(
        None, description="step of a slider; absent: 1, or a fiftieth of the range"
    )
    choices: dict[str, Any] | None = Field(None, description="instead of a slider: values by label")

    @model_validator(mode="after")
    def _slider_or_choices(self) -> Knob:
        if self.choices is not None:
            if len(self.choices) < 2 or any(x is not None for x in (self.low, self.high, self.step)):
                raise ValueError("choices needs two or more values, and excludes low, high and step")
        elif self.low is None or self.high is None or not self.low < self.high:
            raise ValueError("a slider needs low and high, with low below high; or set choices")
        return self

    @property
    def ends(self) -> list[Any]:
        """The extreme values: the ends of a slider, or all its choices."""
        return [self.low, self.high] if self.choices is None else list(self.choices.values())
