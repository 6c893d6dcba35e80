"""Frontier files: a measure, its limit, and the lever along which to search for the crossing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, model_validator

from ecosystem.errors import ScenarioError
from ecosystem.scenario.presets import FileKind
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import Spec
from ecosystem.studies.spec.design import Range
from ecosystem.studies.spec.measure import Measure, Step
from ecosystem.studies.spec.question import Question, with_values

_BETWEEN = 0.381966  # a share of the range at which its value is hardly ever a whole number


class ClosedForm(Spec):
    """A law that predicts the threshold, with the lever as its argument ``varies``."""

    law: str = Field(description="name of a law (`ecosystem list laws`)")
    varies: str = Field(description="the argument of the law that the lever sets")
    divided_by: Annotated[float, Field(gt=0)] = Field(
        1.0, description="divides the value of the lever before it is passed to the law"
    )
    parameters: dict[str, Any] = Field({}, description="the other arguments of the law")
    first: int = Field(0, description="the generation of the law at step 0")


class Frontier(Question):
    """A search for the value of one lever at which a measure crosses a limit. Read one with :meth:`load`."""

    file_kind: ClassVar[FileKind] = "frontier"

    path: str = Field(description="the lever: a dotted path of the scenario")
    range: Range = Field(description="the range to search for the threshold")
    measure: Measure = Field(description="the number that crosses the limit")
    limit: float = Field(description="the value of the measure at the threshold")
    since: Step | None = Field(
        None, description="compare the change of the measure since this step with the limit, instead of its value"
    )
    precision: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="resolution of the search, as a share of the range (on its scale)"
    )
    closed_form: ClosedForm | None = Field(
        None, description="a law that predicts the threshold, reported next to the result of the search"
    )

    @model_validator(mode="after")
    def _check_frontier(self) -> Frontier:
        if len(self.seeds) < 2:
            raise ValueError("seeds: give at least two; one seed gives no interval")
        return self

    def resolved(self, folder: Path) -> Frontier:
        """Return this frontier with a range of whole numbers if the lever takes no others.

        ``folder`` is the folder of the frontier file. Raises ScenarioError if the range has fewer than two whole
        numbers.
        """
        between = self.range.at(_BETWEEN)
        takes_whole = self.range.whole or (
            not self._accepts(folder, between) and isinstance(between, float) and self._accepts(folder, round(between))
        )
        if not takes_whole:
            return self
        if not round(self.range.low) < round(self.range.high):
            raise ScenarioError(
                f"{self.where}: range: {self.path} takes whole numbers, and there are not two of them between "
                f"{self.range.low:g} and {self.range.high:g}; widen the range."
            )
        return self.model_copy(update={"range": self.range.model_copy(update={"whole": True})})

    def _accepts(self, folder: Path, value: float | int) -> bool:
        try:
            self.scenario(folder, value, self.seeds[0])
        except ScenarioError:
            return False
        return True

    def check(self, folder: Path) -> tuple[str, list[Scenario], Path]:
        """Check both ends of the range; return a summary, their scenarios, and the folder of their relative paths."""
        span = self.resolved(folder).range
        (low, base), (high, _) = (self.scenario(folder, span.at(end), self.seeds[0]) for end in (0.0, 1.0))
        whole = " in whole numbers" if span.whole else ""
        summary = f"{self.path} from {span.low:g} to {span.high:g}{whole}, {len(self.seeds)} seeds"
        return summary, [low, high], base

    def scenario(self, folder: Path, value: float | int, seed: int) -> tuple[Scenario, Path]:
        """Return the scenario at one value of the lever, and the folder that its relative paths start from.

        ``folder`` is the folder of the frontier file. Raises ScenarioError if the scenario is invalid or lacks the
        measure.
        """
        base, base_folder = self.base_scenario(folder)
        try:
            scenario = with_values(base, {**self.set, self.path: value, "seed": seed}, base_folder)
        except ScenarioError as error:
            raise self.error_at(f"path, {self.path} = {value:g}", error) from None
        mismatch = self.measure.mismatch(scenario)
        if mismatch:
            raise ScenarioError(f"{self.where}: measure.{mismatch}.")
        if (self.since or 0) > scenario.steps:
            raise ScenarioError(f"{self.where}: since: step {self.since} comes after the last step, {scenario.steps}.")
        return scenario, base_folder
