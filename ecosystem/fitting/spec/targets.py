"""Targets of fits: measured values of metrics at steps or dates, with their errors, from files or tables."""

from __future__ import annotations

import csv
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from ecosystem.errors import ScenarioError, nearest
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import Spec, explain
from ecosystem.times import Day

_NUMBERS = {"step": int, "value": float, "error": float, "discrepancy": float}


class Target(Spec):
    """A measured value of one quantity at one time, with its error."""

    date: Day | None = Field(
        None, description="when it was measured; the nearest step counts; needs a scenario with start and step"
    )
    step: Annotated[int, Field(ge=0, le=10**9)] | None = Field(None, description="the step, instead of date")
    quantity: str = Field(description="name of a metric of the runs (`ecosystem list metrics`, or of an instrument)")
    scope: str | None = Field(
        None, description="scope of the metric: instrument, web, trainer, …; absent: the only one that the runs have"
    )
    id: str | None = Field(
        None,
        description="id in that scope, or a population, whose members are averaged; absent: the mean over all ids",
    )
    value: float = Field(description="the measured value")
    error: Annotated[float, Field(gt=0)] = Field(description="its standard error")
    discrepancy: Annotated[float, Field(ge=0)] = Field(
        0.0,
        description="standard deviation of what the scenario cannot reproduce even with the best parameters, as far as "
        "it is known; it adds to the error in quadrature",
    )
    use: Literal["fit", "predict"] = Field("fit", description="fit: used by the fit; predict: held out, to test it")
    group: str | None = Field(
        None, description="targets whose pull is shown together; absent: those of one quantity and id"
    )
    source: str = Field("", description="where the value comes from")
    note: str = Field("", description="what a reader should know of it")

    @model_validator(mode="after")
    def _check(self) -> Target:
        if (self.date is None) == (self.step is None):
            raise ValueError("step: give either step or date, when the value was measured")
        return self

    def at_step(self, scenario: Scenario) -> Target:
        """Return the target with its step; raise ValueError with a sentence if the scenario does not have it."""
        step = self.step
        if self.date is not None:
            calendar = scenario.calendar
            if calendar is None:
                raise ValueError(
                    f"date: {self.date} needs a calendar; set start and step in the scenario, or give step"
                )
            step = round(calendar.position(date.fromisoformat(self.date)))
        assert step is not None
        if not 0 <= step <= scenario.steps:
            when = f"date: {self.date} is step {step}, which" if self.date is not None else f"step: {step}"
            raise ValueError(f"{when} is outside the run, whose steps are 0 to {scenario.steps}")
        return self.model_copy(update={"step": step})

    @property
    def key(self) -> tuple[str, str, str, int | None]:
        """What is measured and when."""
        return self.quantity, self.scope or "", self.id or "", self.step

    @property
    def what(self) -> str:
        """The quantity with its id, such as ``graphite: flagged_share``."""
        return self.quantity if self.id is None else f"{self.id}: {self.quantity}"

    @property
    def label(self) -> str:
        """The quantity with its id and its date or step."""
        return f"{self.what} at {self.date or f'step {self.step}'}"

    @property
    def part(self) -> str:
        """The group of the target."""
        return self.group or self.what


def read_targets(name: str, folder: Path, where: str) -> list[Target]:
    """Read a CSV file of targets, whose columns are the fields of :class:`Target`; # begins a comment.

    ``folder`` is the folder of the fit's file. Raises ScenarioError naming the file and the line of each mistake.
    """
    file = next((p for p in (folder / name, Path(name)) if p.is_file()), None)
    if file is None:
        raise ScenarioError(f"{where}: targets: there is no file {folder / name}; give the path of a CSV file.")
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError):
        raise ScenarioError(f"{file}: cannot be read as UTF-8 text; give a CSV file.") from None
    kept = [(number, line) for number, line in enumerate(lines, start=1) if line.strip() and not line.startswith("#")]
    try:
        rows = list(csv.reader(line for _, line in kept))
    except csv.Error as error:
        raise ScenarioError(f"{file}: cannot be read as CSV: {error}.") from None
    allowed = list(Target.model_fields)
    for column in rows[0] if rows else []:
        if column.strip() not in allowed:
            raise ScenarioError(
                f'{file}: unknown column "{column}"{nearest(column, allowed)}; allowed: {", ".join(allowed)}.'
            )
    if len(rows) < 2:
        raise ScenarioError(f"{file}: has no targets; give a line of column names, and a line for each value.")
    header = [column.strip() for column in rows[0]]
    if repeated := [column for column in header if header.count(column) > 1]:
        raise ScenarioError(f'{file}: the column "{repeated[0]}" is given twice; remove one.')
    problems, targets = [], []
    for (number, _), row in zip(kept[1:], rows[1:], strict=False):
        if len(row) != len(header):
            problems.append(f"{file}: line {number}: has {len(row)} cells, but there are {len(header)} columns.")
            continue
        try:
            targets.append(Target.model_validate(_cells(dict(zip(header, row, strict=True)))))
        except ValidationError as error:
            problems += [f"{file}: line {number}: {problem}." for problem in explain(error, "", Target)]
    if problems:
        raise ScenarioError("\n".join(problems))
    return targets


def _cells(row: dict[str, str]) -> dict[str, Any]:
    """Return the cells of a row that are not empty, numbers as numbers."""
    cells: dict[str, Any] = {}
    for name, text in row.items():
        if not text.strip():
            continue
        cells[name] = text.strip()
        if name in _NUMBERS:
            with suppress(ValueError):  # refused with a sentence by the field
                cells[name] = _NUMBERS[name](text)
    return cells
