"""The runs of a study, fit or search as jobs, each at its place; cells with one scenario share a run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from ecosystem.cache import chosen_cache
from ecosystem.errors import EcosystemError, ScenarioError, StoreError
from ecosystem.formats import counted
from ecosystem.input_files import is_url
from ecosystem.plugins import loaded
from ecosystem.runs.environment import changed_input
from ecosystem.runs.planning.memory import memory_budget
from ecosystem.runs.remote.places import open_run, place_of
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.jobs import Job
from ecosystem.studies.executors.options import ExecutionOptions
from ecosystem.studies.progress import PlannedRun
from ecosystem.studies.spec.study import Cell, Study


class RunPlan:
    """The planned runs and their jobs; cells with the same scenario share one run."""

    def __init__(self, base: Path, options: ExecutionOptions, out: str) -> None:
        """Start an empty plan; ``base`` is the folder to which paths in the scenarios are relative."""
        if is_url(out) and "tensorboard" in options.callbacks:
            raise EcosystemError(
                f"--tensorboard: writes to the folders of runs, but --out {out} is an object store; give a folder."
            )
        self._base, self._options = str(base.resolve()), options
        self._out = out.rstrip("/") if is_url(out) else out
        self._numbers: dict[str, int] = {}  # place → number of the run
        self.runs: list[PlannedRun] = []
        self.jobs: list[Job] = []

    def add_cell(self, cell: Cell, study: Study) -> int:
        """Add a cell's run, and its parent if that is not a stored run; return the number of its job."""
        if cell.parent is None:
            return self.add_run(cell.scenario, cell.label)
        if study.branch is not None and study.branch.run is not None:
            return self._add_branch(cell, self._stored_parent(cell.parent, study, study.branch.run))
        number = self.add_run(cell.parent, f"common history, seed {cell.scenario.seed}")
        return self._add_branch(cell, self.runs[number].place, number)

    def _add_branch(self, cell: Cell, parent: str, parent_job: int | None = None) -> int:
        return self.add_run(cell.scenario, cell.label, parent, cell.branch_step, parent_job)

    def _stored_parent(self, scenario: Scenario, study: Study, runs: str) -> str:
        """Return the stored run of a scenario; raise ScenarioError if it is a run of another scenario."""
        if is_url(self._out) != is_url(runs) or (is_url(runs) and not runs.startswith(f"{self._out}/")):
            raise ScenarioError(
                f"{study.where}: branch.run: {runs} cannot be read from --out {self._out}, where the arms are written. "
                "Give a folder if --out is a folder, or a URL below --out if that is a URL."
            )
        parent = f"{runs.rstrip('/')}/{scenario.seed}"
        if open_run(parent).scenario.fingerprint() != scenario.fingerprint():
            raise ScenarioError(
                f"{study.where}: branch.run: {parent} is a run of another scenario, not of the base of this study "
                f"(its run is {place_of(scenario, self._out)}); remove branch.run, or correct base and set."
            )
        return parent

    def add_run(
        self, scenario: Scenario, label: str, parent: str = "", branch_step: int = -1, parent_job: int | None = None
    ) -> int:
        """Add a run and return the number of its job; of runs at one place, keep the one with most steps.

        ``parent`` is the place of the run to branch from after ``branch_step``, and ``parent_job`` the number of its
        job if it is part of this plan.
        """
        run = PlannedRun(label, place_of(scenario, self._out), scenario.steps, branch_step)
        job = Job(
            scenario.to_toml(),
            self._base,
            self._out,
            device=self._options.device,
            threads=self._options.threads,
            parent=parent,
            branch_step=branch_step,
            parent_job=parent_job,
            cache=str(chosen_cache(self._options.cache) or ""),
            memory=memory_budget(self._options.memory),
            plugins=loaded(),
            callbacks=tuple(self._options.callbacks),
        )
        number = self._numbers.setdefault(run.place, len(self.runs))
        if number == len(self.runs):
            self.runs.append(run)
            self.jobs.append(job)
        elif run.steps > self.runs[number].steps:
            self.runs[number], self.jobs[number] = replace(run, label=self.runs[number].label), job
        return number

    def check_reused(self, numbers: Sequence[int]) -> None:
        """Raise StoreError if finished runs were made from other files than there are now: a table would mix them."""
        digests: dict[tuple[str, int], str] = {}
        changed = []
        for number in numbers:
            with suppress(EcosystemError):  # a damaged run is left out of the results, with its error
                run = open_run(self.runs[number].place)
                if what := changed_input(run.environment, run.scenario, Path(self._base), digests):
                    changed.append(f"{self.runs[number].place} (the {what} has changed)")
        if changed:
            raise StoreError(
                f"{counted(len(changed), 'finished run')} cannot be reused, for instance {changed[0]}. Restore what "
                "has changed, or give another --out to run all again."
            )
