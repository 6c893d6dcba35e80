"""Branches: runs that fork from another run after one of its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from ecosystem.errors import ScenarioError
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.changes import WHOLE_RUN
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import checked_paths

_NO_NUMBERS = ("changes", "knobs", "variants", "placement")


@dataclass(frozen=True)
class Branch:
    """A fork of ``parent`` after ``step``, and the scenario that it runs."""

    parent: Run
    step: int
    scenario: Scenario

    @classmethod
    def of(
        cls,
        parent: Run,
        step: int | str | date,
        values: Mapping[str, Any],
        *,
        steps: int | None = None,
        name: str | None = None,
    ) -> Branch:
        """Fork ``parent`` after a committed ``step`` (its number or date), with dotted paths set from the next step.

        ``steps`` is the total number of steps, and ``name`` that of the branch (default: the parent's). Raises
        StoreError if the step is not committed, ScenarioError if a path cannot differ at a fork or no step would
        follow.
        """
        step = parent.step_number(step, f"{parent.path}@{step}")
        overrides = {key: value for key, value in (("steps", steps), ("name", name)) if value is not None}
        values = checked_paths(values)
        parent.store.require(step, weights=False)
        scenario = parent.scenario.forked(step, {**values, **overrides}, base=parent.base)
        if scenario.steps <= step:
            raise ScenarioError(
                f"{parent.path}@{step}: no step would follow, since the scenario has {scenario.steps} steps; give "
                f"--steps {step + 1} or more."
            )
        return cls(parent, step, scenario)

    def notes(self) -> list[str]:
        """Return a sentence for everything about this branch that its user may not expect."""
        return [*self.overridden_changes(), *self.repeated_steps(), *self.rounded_start()]

    def overridden_changes(self) -> list[str]:
        """Return a sentence for every timed change of the parent that this branch overrides."""
        inherited = {(change.at, path) for change in self.scenario.changes for path in change.set}
        reason = f"the branch overrides it from {self.scenario.step_name(self.step + 1)}"
        return [
            f"The parent's change of {path} at {self.scenario.step_name(change.at)} is dropped: {reason}."
            for change in self.parent.scenario.changes
            for path in change.set
            if (change.at, path) not in inherited
        ]

    def repeated_steps(self) -> list[str]:
        """Return a sentence if this branch changes no number, and so computes steps of its parent again."""
        last = min(self.parent.last_step, self.scenario.steps)
        changes = [*self.scenario.changes, *self.parent.scenario.changes]
        steps = {self.step + 1, *(change.at for change in changes if change.at > self.step)}
        mine, theirs = ([_numbers(scenario.at(t)) for t in steps] for scenario in (self.scenario, self.parent.scenario))
        if last <= self.step or mine != theirs:
            return []
        again = f"step {last}" if last == self.step + 1 else f"steps {self.step + 1} to {last}"
        numbers = "other numbers, from rounded weights" if self.starts_rounded else "the same numbers"
        return [
            f"note: this branch changes nothing, so it computes {again} of {self.parent.path} again, with {numbers}; "
            "give --set (in Python: values) to change something."
        ]

    @property
    def starts_rounded(self) -> bool:
        """Whether the parent has only rounded weights of the step that this branch starts from."""
        return self.parent.store.weights_rounded(self.step)

    def rounded_start(self) -> list[str]:
        """Return a sentence if this branch starts from rounded weights."""
        return [
            f"note: {self.parent.path} keeps the models of step {self.step} in bfloat16 (weights_precision), so this "
            "branch starts from rounded weights; what differs from the parent is not only due to what it changes."
        ][: self.starts_rounded]

    def folder(self, out: str | Path) -> Path:
        """Return the folder of this branch; raise ScenarioError if it is that of the parent or an earlier ancestor."""
        folder = folder_of(self.scenario, out)
        if folder.resolve() in [ancestor.resolve() for ancestor in self.parent.store.ancestry()]:
            raise ScenarioError(
                f"{folder}: a branch that changes no number is the run {self.parent.path} itself; change something "
                "(--set; in Python: values), make more (--steps), or choose another name or folder (--name, --out)."
            )
        return folder


def _numbers(scenario: Scenario) -> dict[str, Any]:
    """Return everything in the scenario in force at a step that its numbers depend on."""
    return {key: value for key, value in scenario.plain().items() if key not in (*_NO_NUMBERS, *WHOLE_RUN)}
