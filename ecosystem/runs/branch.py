"""Branches: runs that leave the history of another one after a step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ecosystem.errors import ScenarioError
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import checked_paths


@dataclass(frozen=True)
class Branch:
    """A run that is to leave another one's history after a step: the parent opened, the step, and its scenario."""

    parent: Run
    step: int
    scenario: Scenario

    @classmethod
    def of(
        cls,
        parent: Run,
        step: int,
        values: Mapping[str, Any],
        *,
        steps: int | None = None,
        name: str | None = None,
    ) -> Branch:
        """Fork ``parent`` after a committed ``step``, with these dotted paths set from the next one on.

        Raises StoreError where the step is not committed, ScenarioError where a path cannot differ at a fork or no step
        would follow.
        """
        if not isinstance(step, int):
            raise ScenarioError(f"{parent.path}@{step}: a step is a whole number, not {step!r}.")
        asked = {key: value for key, value in (("steps", steps), ("name", name)) if value is not None}
        values = checked_paths(values)
        parent.store.require(step, weights=False)
        scenario = parent.scenario.forked(step, {**values, **asked}, base=parent.base)
        if scenario.steps <= step:
            raise ScenarioError(
                f"{parent.path}@{step}: no step would follow, since the run is to have {scenario.steps} steps; give "
                f"--steps {step + 1} or more."
            )
        return cls(parent, step, scenario)

    def left_out(self) -> list[str]:
        """Return a sentence for every timed change of the parent that does not hold here."""
        left = {(change.at, path) for change in self.scenario.changes for path in change.set}
        why = f"the branch says what holds from step {self.step + 1} on"
        return [
            f"The parent's change of {path} at step {change.at} is left out: {why}."
            for change in self.parent.scenario.changes
            for path in change.set
            if (change.at, path) not in left
        ]

    def folder(self, out: str | Path) -> Path:
        """Return where this branch lives; raise ScenarioError if that is the parent's own folder, or its parent's."""
        folder = folder_of(self.scenario, out)
        if folder.resolve() in [above.resolve() for above in self.parent.store.ancestry()]:
            raise ScenarioError(
                f"{folder}: a branch that changes no number is the run {self.parent.path} itself; change something "
                "(--set; in Python: values), or give it a place of its own (--name or --out; in Python: name or out)."
            )
        return folder
