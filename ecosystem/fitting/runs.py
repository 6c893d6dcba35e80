"""Execute the runs of a fit and read what they give at its targets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError, ScenarioError, nearest
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.targets import Target
from ecosystem.runs.remote.places import open_run
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.executors.options import ExecutionOptions
from ecosystem.studies.run_plan import RunPlan
from ecosystem.studies.run_study import StudyRunner
from ecosystem.types import Floats


@dataclass(frozen=True)
class Request:
    """One run of a fit: a label for listings, the values of the parameters, and the seed."""

    label: str
    values: Mapping[str, float]
    seed: int


@dataclass
class Output:
    """What one run gives at the targets: ``values`` [targets], NaN where it measured nothing; or its error."""

    values: Floats
    error: str = ""
    place: str = ""


@dataclass
class Runs:
    """Executes runs of the scenario of a fit with one engine; finished ones are reused, interrupted ones resumed."""

    fit: Fit
    base: Scenario
    folder: Path  # of the relative paths of the scenario
    targets: Sequence[Target]
    options: ExecutionOptions
    out: str
    runner: StudyRunner
    seconds: float = 0.0  # of all runs that this process has executed
    count: int = 0  # runs that were asked for
    _meanwhile: Callable[[], None] | None = field(default=None)

    def __call__(self, name: str, requests: Sequence[Request]) -> list[Output]:
        """Execute runs, or reuse finished ones, and return their outputs in order.

        A point without a valid scenario, and a run that fails, give an output with an error.
        """
        plan = RunPlan(self.folder, self.options, self.out)
        numbers: list[int | str] = []
        for request in requests:
            try:
                scenario = self.fit.scenario_at(self.base, request.values, self.folder)
                seeded = scenario.model_copy(update={"seed": request.seed})
                numbers.append(plan.add_run(seeded, request.label))
            except ScenarioError as error:
                numbers.append(str(error))
        meanwhile, self._meanwhile = self._meanwhile or (lambda: None), None
        results = self.runner.execute(plan, name, meanwhile) if plan.runs else []
        self.count += len(plan.runs)
        self.seconds += sum(result.seconds for result in results)
        outputs = []
        for number in numbers:
            if isinstance(number, str):
                outputs.append(Output(np.full(len(self.targets), np.nan), number))
            elif results[number].error:
                outputs.append(Output(np.full(len(self.targets), np.nan), results[number].error))
            else:
                outputs.append(self._read(plan.runs[number].place))
        return outputs

    def _read(self, place: str) -> Output:
        steps = [target.step or 0 for target in self.targets]
        try:
            metrics = open_run(place).store.table("metrics", range(min(steps), max(steps) + 1))
        except EcosystemError as error:
            return Output(np.full(len(self.targets), np.nan), str(error), place)
        return Output(values_of(metrics, self.targets), "", place)


def values_of(metrics: pl.DataFrame, targets: Sequence[Target]) -> Floats:
    """Return what a run gives at each target, shape [targets]; NaN where it measured nothing.

    ``metrics`` is the table of a run. The value of a population is the mean over its members.
    """
    wanted = metrics.filter(
        pl.col("metric").is_in([target.quantity for target in targets]) & pl.col("value").is_not_null()
    )
    by_step = {step: rows for (step,), rows in wanted.group_by("step", maintain_order=True)}
    none = wanted.clear()
    return np.array([_value(by_step.get(target.step, none), target) for target in targets])


def _value(rows: pl.DataFrame, target: Target) -> float:
    rows = rows.filter(pl.col("metric") == target.quantity)
    if target.scope is not None:
        rows = rows.filter(pl.col("scope") == target.scope)
    elif rows["scope"].n_unique() > 1:
        return float("nan")  # refused after the first runs (missing_problem)
    if target.id is not None:
        own = pl.col("id") == target.id
        rows = (
            rows.filter(own) if rows.filter(own).height else rows.filter(pl.col("id").str.starts_with(f"{target.id}/"))
        )
    mean = rows["value"].mean()
    return float("nan") if mean is None else float(mean)  # type: ignore[arg-type]


def missing_problem(metrics: pl.DataFrame, target: Target) -> str:
    """Return why a run has no value of a target, as a sentence that begins with a field; "" if it has one."""
    named = metrics.filter(pl.col("metric") == target.quantity)
    if named.is_empty():
        names = metrics["metric"].unique().sort().to_list()
        return f'quantity: the runs have no metric "{target.quantity}"{nearest(target.quantity, names)}'
    scopes = named["scope"].unique().sort().to_list()
    if target.scope is None and len(scopes) > 1:
        return f"scope: {target.quantity} has several scopes; choose from {', '.join(scopes)}"
    if target.scope is not None and target.scope not in scopes:
        return f'scope: {target.quantity} has no scope "{target.scope}"; choose from {", ".join(scopes)}'
    if target.scope is not None:
        named = named.filter(pl.col("scope") == target.scope)
    ids = named["id"].unique().sort().to_list()
    if target.id is not None and not any(i == target.id or i.startswith(f"{target.id}/") for i in ids):
        known = dict.fromkeys([*(i.split("/")[0] for i in ids), *ids])
        return (
            f'id: {target.quantity} has no id "{target.id}"{nearest(target.id, known)}; choose from {", ".join(known)}'
        )
    steps = named.filter(pl.col("value").is_not_null())["step"].unique().sort().to_list()
    if target.step not in steps:
        near = sorted(steps, key=lambda step: abs(step - (target.step or 0)))[:2]
        when = f"date: {target.date} is step {target.step}, and" if target.date else f"step: {target.step}:"
        return (
            f"{when} {target.quantity} is not measured then; the nearest steps are {', '.join(map(str, sorted(near)))}"
        )
    return ""
