"""Fit files: a scenario, its uncertain parameters with their priors, and the measurements that it should reproduce."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

import numpy as np
from pydantic import Discriminator, Field, Tag, model_validator

from ecosystem.errors import ScenarioError, whole_number
from ecosystem.fitting.spec.priors import Prior
from ecosystem.fitting.spec.targets import Target, read_targets
from ecosystem.scenario.presets import FITS, FileKind
from ecosystem.scenario.scenario import Scenario
from ecosystem.scenario.tables import NAME
from ecosystem.spec import checked_paths
from ecosystem.studies.spec.design import Seed
from ecosystem.studies.spec.question import ManyRuns, with_values
from ecosystem.studies.spec.settings import Setting, settings_at
from ecosystem.types import Floats

NOISE_SEEDS, DRAW_SEEDS = 1000, 2000  # added to the seed: the first seeds of the runs of noise and of draws


Targets = Annotated[
    Annotated[str, Tag("<file>")] | Annotated[list[Target], Field(min_length=1), Tag("<list>")],
    Discriminator(
        lambda value: "<file>" if isinstance(value, str) else "<list>" if isinstance(value, list) else None,
        custom_error_type="targets",
        custom_error_message="must be the path of a CSV file in quotes, or a list of tables, [[targets]]",
    ),
]


class Parameter(Setting):
    """An uncertain parameter: its prior, and the settings of the scenario that get its value."""

    prior: Prior = Field(description="what is known of the value before the fit: a table with a law")

    def at(self, u: Floats) -> Floats:
        """Return the values at probabilities ``u`` of the prior, an array of the same shape."""
        values = self.prior.quantile(u)
        return np.round(values) if self.whole else values


class Fit(ManyRuns):
    """A fit of a scenario to measurements. Read one with :meth:`load`."""

    file_kind: ClassVar[FileKind] = "fit"
    folder: ClassVar[str] = FITS
    base_field: ClassVar[str] = "scenario"

    base: str = Field(
        alias="scenario", description="the scenario: a path relative to this file, or the name of a bundled scenario"
    )
    parameters: Annotated[dict[str, Parameter], Field(min_length=1, max_length=30)] = Field(
        description="uncertain parameters by name, each a path of the scenario with a prior"
    )
    targets: Targets = Field(
        description="the measurements: the path of a CSV file relative to this file, whose columns are the fields of a "
        "target, or [[targets]]"
    )
    trials: Annotated[int, Field(ge=8, le=10_000)] = Field(
        96, description="points of the parameters that are tried: the first half fills the prior, the rest is a search"
    )
    batch: Annotated[int, Field(ge=1, le=1000)] = Field(
        16, description="points of the search that are chosen at once; results depend on it, but not on the engine"
    )
    replicates: Annotated[int, Field(ge=1, le=100)] = Field(
        2, description="runs at a point, with the same seeds at all points: seed, seed + 1, …"
    )
    noise: Annotated[int, Field(ge=4, le=500)] = Field(
        16, description="runs at points of a first posterior, each with its own seed, that show the noise between runs"
    )
    draws: Annotated[int, Field(ge=2, le=500)] = Field(
        16, description="runs at points of the posterior, each with its own seed, that show what the fit predicts"
    )
    morris: Annotated[int, Field(ge=0, le=500)] = Field(
        8,
        description="trajectories of a Morris screening, of k + 1 runs each for k parameters; 0: no screening",
    )
    seed: Seed = Field(1, description="first seed of runs, and seed of all random choices of the fit")

    @model_validator(mode="after")
    def _check_parameters(self) -> Self:
        seen: dict[str, str] = {}
        for name, parameter in self.parameters.items():
            if not NAME.fullmatch(name):
                raise ValueError(f'parameters: the name "{name}" may contain only letters, digits, "_" and "-"')
            for path in parameter.targets:
                if path in seen:
                    raise ValueError(f'parameters.{name}.path: "{path}" is set by {seen[path]} too; set it once')
                if path in self.set:
                    raise ValueError(f'set: "{path}" is uncertain (parameters.{name}); remove one of the two')
                seen[path] = name
        if self.morris == 1:
            raise ValueError("morris: give 0 (no screening), or at least 2 trajectories")
        return self

    @property
    def names(self) -> list[str]:
        """The names of the parameters, in the order of the file."""
        return list(self.parameters)

    def with_settings(
        self, values: Mapping[str, Any], trials: int | None = None, replicates: int | None = None
    ) -> Self:
        """Return this fit with more values set in every run, and another number of trials or replicates if given."""
        changed: dict[str, Any] = {"set": {**self.set, **checked_paths(values)}}
        for name, number in (("trials", trials), ("replicates", replicates)):
            if number is not None:
                changed[name] = whole_number(number, name, 1)
        return self._validated(self.plain() | changed, self._file)

    def resolved(self, folder: Path) -> Self:
        """Return this fit with the targets of its file in it; ``folder`` is the folder of the fit's file.

        Raises ScenarioError for an unreadable or invalid file of targets.
        """
        if not isinstance(self.targets, str):
            return self
        rows = read_targets(self.targets, folder, self.where)
        return self._validated(self.plain() | {"targets": [row.plain() for row in rows]}, self._file)

    def values(self, point: Floats) -> dict[str, float]:
        """Return the value of each parameter at a point of the unit cube, shape [parameters]."""
        return {name: float(p.at(np.asarray(u))) for (name, p), u in zip(self.parameters.items(), point, strict=True)}

    def scenario_at(self, base: Scenario, values: Mapping[str, float], folder: Path) -> Scenario:
        """Return the scenario with these values of the parameters; raise ScenarioError if it is invalid."""
        return with_values(base, settings_at(self.parameters, values), folder)

    def scenario(self, folder: Path) -> tuple[Scenario, Path]:
        """Return the base scenario with the values of ``set``, and the folder that its relative paths start from."""
        base, base_folder = self.base_scenario(folder)
        try:
            return with_values(base, self.set, base_folder), base_folder
        except ScenarioError as error:
            raise self.error_at("set", error) from None

    def check(self, folder: Path) -> tuple[str, list[Scenario], Path]:
        """Check the scenario at the middle and the ends of every prior, and the steps of the targets."""
        fit = self.resolved(folder)
        base, base_folder = fit.scenario(folder)
        scenarios = []
        for name, parameter in fit.parameters.items():
            for value in parameter.at(np.array([0.0, 0.5, 1.0])):
                try:
                    scenarios.append(with_values(base, parameter.values(float(value)), base_folder))
                except ScenarioError as error:
                    shown = parameter.written(float(value))
                    raise fit.error_at(f"parameters.{name} (at {shown})", error) from None
        try:
            scenarios.append(fit.scenario_at(base, fit.values(np.full(len(fit.names), 0.5)), base_folder))
        except ScenarioError as error:
            raise fit.error_at("parameters (all at the middle of their priors)", error) from None
        fit.dated(base)
        runs = 1 + fit.trials * fit.replicates + fit.noise + fit.draws + fit.morris * (len(fit.names) + 1)
        return f"{len(fit.names)} parameters, {len(fit.targets)} targets, {runs} runs at most", scenarios, base_folder

    def dated(self, base: Scenario) -> list[Target]:
        """Return the targets with their steps in the scenario; raise ScenarioError for a step that it does not have."""
        assert not isinstance(self.targets, str)
        dated = []
        for number, target in enumerate(self.targets):
            try:
                dated.append(target.at_step(base))
            except ValueError as error:
                raise self.error_at(f"targets.{number}", f"{error}.") from None
        repeated = [t.label for t in dated if sum(t.key == other.key for other in dated) > 1]
        if repeated:
            raise self.error_at("targets", f"{repeated[0]} is given twice; give one value of each quantity at a step.")
        if not any(target.use == "fit" for target in dated):
            raise self.error_at("targets", 'no target has use = "fit"; a fit needs at least one.')
        return dated
