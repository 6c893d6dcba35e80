"""Study files: arms, worlds, seeds, and the runs that they define.

A *lever* is a decision (the arms or axes of a study); an *uncertainty* is an unknown state of the world (its
``worlds``). Every cell of a study, arm × world × seed, is an ordinary run with an ordinary run folder. A finished run
is reused, and an interrupted one is resumed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field, PrivateAttr, model_validator

from ecosystem.calendar import step_at
from ecosystem.cards import Grid, card
from ecosystem.errors import ScenarioError, StoreError, nearest
from ecosystem.metrics.definitions import COSTS
from ecosystem.scenario.presets import FileKind
from ecosystem.scenario.scenario import Scenario
from ecosystem.scenario.tables import NAME
from ecosystem.spec import Spec
from ecosystem.studies.spec.design import Axes, Design, check_axes, points
from ecosystem.studies.spec.law_fit import LawFit
from ecosystem.studies.spec.measure import Measure, Step
from ecosystem.studies.spec.posterior import PosteriorFile, PosteriorWorlds, Worlds
from ecosystem.studies.spec.question import Question, with_values

BRANCH_STEP = "branch.step"  # the lever that sets the last step an arm shares with its parent
_SAME_IN_ALL_ARMS = ("seed", "name", "description", "variants", "theory")
_MAX_CELLS = 10_000  # arms × worlds
_LISTED_ARMS = 12  # at most, in an error message
_UNNAMED = ""  # the name of the only world of a study without uncertainties


class BranchPoint(Spec):
    """The step after which arms leave their common history and their levers take effect."""

    step: Step = Field(description="the last step that all arms share")
    run: str | None = Field(
        None,
        description="a stored run that provides the common history, as its folder without the seed (for instance "
        "outputs/name-0123456789ab); default: the base scenario is run",
    )


class EqualCost(Spec):
    """Ways to spend, compared at equal cost. Each is a series of arms of increasing cost."""

    levers: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        description="name of a way to spend → its arms; the measure is interpolated between their costs, seed by seed"
    )
    at: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        description="costs in excess of the base arm's at which to compare the ways, in units of `prices`"
    )


@dataclass(frozen=True)
class Cell:
    """One run of a study: its arm, its world, its scenario (with the seed), and its branch point."""

    arm: str
    world: str
    scenario: Scenario
    parent: Scenario | None = None  # the scenario of the run that it branches from
    branch_step: int = -1  # the last step shared with the parent

    @property
    def label(self) -> str:
        """The name of the run in listings."""
        return f"{self.arm}{f' in {self.world}' if self.world else ''}, seed {self.scenario.seed}"


class Study(Question):
    """A comparison of several arms over the same seeds. Read one with :meth:`load`; :meth:`cells` are its runs."""

    file_kind: ClassVar[FileKind] = "study"

    reference: str | None = Field(
        None, description="the base arm, to which the others are compared; default: the first"
    )
    arms: dict[str, dict[str, Any]] = Field({}, description="named levers: tables of dotted path = value")
    axes: Axes = Field({}, description="levers by dotted path, instead of arms: a list of values, or a range")
    design: Design = Field(Design(), description="how the points of `axes` are chosen")
    worlds: Worlds = Field(
        {},
        description="named uncertainties: tables of dotted path = value; or samples of a fit: posterior = PATH, draws",
    )
    uncertain: Axes = Field({}, description="uncertainties by dotted path, instead of worlds: a list, or a range")
    draw: Design = Field(Design(), description="how the points of `uncertain` are chosen")
    branch: BranchPoint | None = Field(
        None, description="where arms leave a common history; default: they differ from the first step"
    )
    measures: Annotated[list[Measure], Field(min_length=1)] = Field(
        description="the numbers on which arms are compared"
    )
    prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="price of one unit of each cost (`ecosystem list metrics`, scope cost)"
    )
    equal_cost: EqualCost | None = Field(None, description="ways to spend, compared at equal cost")
    _drawn: dict[str, dict[str, Any]] | None = PrivateAttr(None)
    fit: LawFit | None = Field(None, description="a scaling law to fit to the models of all runs; default: none")

    @model_validator(mode="after")
    def _check_study(self) -> Study:
        self._check_sections()
        self._check_size()
        self._check_measures()
        self._check_arms()
        self._check_costs()
        return self

    def _check_sections(self) -> None:
        named = {} if isinstance(self.worlds, PosteriorWorlds) else self.worlds
        for section, names in (("arms", self.arms), ("worlds", named)):
            for name in names:
                if not NAME.fullmatch(name):
                    raise ValueError(f'{section}: the name "{name}" may contain only letters, digits, "_" and "-"')
        if bool(self.arms) == bool(self.axes):
            raise ValueError("arms: give either arms (named sets of path = value) or axes (path → values)")
        if self.worlds and self.uncertain:
            raise ValueError("worlds: give either worlds (named sets of path = value) or uncertain (path → values)")
        check_axes(self.axes, self.design, "axes", "design")
        check_axes(self.uncertain, self.draw, "uncertain", "draw")
        if self.draw.method in ("morris", "sensitivity"):
            raise ValueError(f"draw.method: {self.draw.method} is a sensitivity design for levers; use it in design")

    def _check_size(self) -> None:
        draws = isinstance(self.worlds, PosteriorWorlds)
        worlds = self.worlds.draws if isinstance(self.worlds, PosteriorWorlds) else _count(self.uncertain, self.worlds)
        size = _count(self.axes, self.arms) * worlds
        if draws and not self.compares:
            raise ValueError("worlds: a sensitivity design has no worlds of a posterior; give arms, or another design")
        if size > _MAX_CELLS:
            section = "arms" if self.arms else "axes"
            raise ValueError(
                f"{section}: {size:,} combinations of arms and worlds; a study may have at most {_MAX_CELLS:,}"
            )

    def _check_measures(self) -> None:
        names = [measure.name for measure in self.measures]
        repeated = next((name for name in names if names.count(name) > 1), None)
        if repeated is not None:
            raise ValueError(f"measures: {repeated} is given twice")

    def _check_arms(self) -> None:
        arms = list(self.levers())
        if len(arms) < 2:
            raise ValueError("arms: a comparison needs at least two arms")
        if self.reference is not None and self.reference not in arms:
            raise ValueError(f"reference: {_no_arm(self.reference, arms)}")
        if self.compares and len(self.seeds) < 2 and not isinstance(self.worlds, PosteriorWorlds):
            raise ValueError("seeds: give at least two; one seed gives no interval for a difference")

    def _check_costs(self) -> None:
        for cost in self.prices:
            if cost not in COSTS:
                raise ValueError(
                    f'prices: there is no cost "{cost}"{nearest(cost, COSTS)}; choose from {", ".join(COSTS)}'
                )
        if self.equal_cost is None:
            return
        if not self.prices:
            raise ValueError("equal_cost: needs prices to compute costs from; add prices")
        arms = list(self.levers())
        for way, series in self.equal_cost.levers.items():
            for arm in series:
                if arm not in arms:
                    raise ValueError(f"equal_cost.levers.{way}: {_no_arm(arm, arms)}")
        if len(self.equal_cost.levers) < 2:
            raise ValueError("equal_cost.levers: a comparison needs at least two ways to spend")

    def __repr__(self) -> str:
        return f"<Study {self.name}: {len(self.levers())} arms, {len(self.settings())} worlds, {len(self.seeds)} seeds>"

    def _repr_html_(self) -> str:
        facts = {
            "base": self.base,
            "base arm": self.base_arm if self.compares else None,
            "seeds": ", ".join(map(str, self.seeds)),
            "measures": ", ".join(measure.name for measure in self.measures),
        }
        arms = [(arm, *_row(values)) for arm, values in self.levers().items()]
        worlds = [(world, *_row(values)) for world, values in self.settings().items() if world]
        grids = Grid("Arms", ["arm", "values"], arms), Grid("Worlds", ["world", "values"], worlds)
        return card(f"Study {self.name}", self.description, facts, *grids)

    @property
    def compares(self) -> bool:
        """Whether arms are compared with the base arm; false for designs of sensitivity indices."""
        return self.design.method not in ("morris", "sensitivity")

    @property
    def base_arm(self) -> str:
        """The arm to which the others are compared."""
        return self.reference or next(iter(self.levers()))

    def levers(self) -> dict[str, dict[str, Any]]:
        """Return the arms: name → dotted path → value. Points of axes are named by their values."""
        return dict(self.arms) if self.arms else points(self.axes, self.design)

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the worlds: name → dotted path → value. Without uncertainties there is one, with an empty name."""
        if isinstance(self.worlds, PosteriorWorlds):
            if self._drawn is None:
                self._drawn = self._posterior().worlds(self.worlds.draws, self.worlds.seed)
            return self._drawn
        if self.worlds:
            return dict(self.worlds)
        return points(self.uncertain, self.draw) if self.uncertain else {_UNNAMED: {}}

    @property
    def has_posterior(self) -> bool:
        """Whether the worlds are samples of the posterior of a fit."""
        return isinstance(self.worlds, PosteriorWorlds)

    def _posterior(self) -> PosteriorFile:
        assert isinstance(self.worlds, PosteriorWorlds)
        beside = Path(self._file).parent / self.worlds.posterior
        try:
            return PosteriorFile.open(beside if beside.is_file() else Path(self.worlds.posterior))
        except ScenarioError as error:
            raise self.error_at("worlds.posterior", error) from None

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that identify this study, and the samples of its worlds if it has any."""
        plain = super().fingerprint()
        if not self.has_posterior:
            return plain
        return hashlib.sha256(f"{plain}{self._posterior().digest}".encode()).hexdigest()[:12]

    def cells(self, folder: Path) -> list[Cell]:
        """Return every run of the study, ordered by seed.

        ``folder`` is the folder of the study file. Raises ScenarioError for an arm or a world whose scenario is
        invalid or lacks a measure.
        """
        base, base_folder = self.scenario(folder)
        for path in self.set:
            if all(path in world for world in self.settings().values()):
                raise self.error_at(f"set.{path}", "has no effect, since every world sets this path; remove it.")
        cells = []
        for world, uncertain in self.settings().items():
            for arm, lever in self.levers().items():
                path = self._path(arm, world)
                try:
                    scenario, parent, step = self._arm(base, uncertain, lever, base_folder)
                except ScenarioError as error:
                    raise self.error_at(path, error) from None
                self._check_measured(scenario, path)
                cells += [
                    Cell(arm, world, _seeded(scenario, seed), parent and _seeded(parent, seed), step)
                    for seed in self.seeds
                ]
        return sorted(cells, key=lambda cell: self.seeds.index(cell.scenario.seed))

    def check(self, folder: Path) -> tuple[str, list[Scenario], Path]:
        """Check the scenario of every cell; return a summary, the scenarios, and the folder of their relative paths."""
        cells = self.cells(folder)
        self._check_stored_history()
        summary = f"{len(cells)} runs, {len(self.levers())} arms"
        return summary, [cell.scenario for cell in cells], self.base_scenario(folder)[1]

    def _check_stored_history(self) -> None:
        """Raise ScenarioError if a stored run that ``branch.run`` names is missing; URLs are not looked up."""
        if self.branch is None or self.branch.run is None or "://" in self.branch.run:
            return
        from ecosystem.runs.run import Run

        try:
            for seed in self.seeds:
                Run.open(Path(self.branch.run, str(seed)))
        except StoreError as error:
            raise self.error_at("branch.run", error) from None

    def scenario(self, folder: Path) -> tuple[Scenario, Path]:
        """Return the base scenario with the values of ``set``, and the folder that its relative paths start from."""
        base, base_folder = self.base_scenario(folder)
        try:
            return with_values(base, self.set, base_folder), base_folder
        except ScenarioError as error:
            raise self.error_at("set", error) from None

    def _path(self, arm: str, world: str) -> str:
        """Return the dotted path in the study file that defines an arm in a world."""
        path = f"arms.{arm}" if self.arms else f"axes, at {arm}"
        if not world:
            return path
        return f"{path} in {f'worlds.{world}' if self.worlds else f'uncertain, at {world}'}"

    def _arm(
        self, base: Scenario, uncertain: Mapping[str, Any], lever: Mapping[str, Any], base_folder: Path
    ) -> tuple[Scenario, Scenario | None, int]:
        """Return an arm's scenario in one world, its parent (None: it does not branch), and their last common step."""
        values = {path: value for path, value in lever.items() if path != BRANCH_STEP}
        for path in {**uncertain, **values}:
            if path in _SAME_IN_ALL_ARMS:
                raise ScenarioError(f'"{path}" must be the same in every arm; remove it here.')
        step = lever.get(BRANCH_STEP, None if self.branch is None else self.branch.step)
        if step is None:
            return with_values(base, {**uncertain, **values}, base_folder), None, -1
        if isinstance(step, str | date):
            try:
                step = step_at(step, base.calendar)
            except ValueError as error:
                raise ScenarioError(f"{BRANCH_STEP}: {error}.") from None
        if not isinstance(step, int) or not 0 <= step < base.steps:
            raise ScenarioError(
                f"{BRANCH_STEP} = {step!r}: give a whole number from 0 to {base.steps - 1}, before the last step."
            )
        world = with_values(base, uncertain, base_folder)
        if values and step % world.weights_every and (self.branch is None or self.branch.run is None):
            raise ScenarioError(
                f"{BRANCH_STEP} = {step}: the models of step {step} are not kept with weights_every = "
                f"{world.weights_every}; set weights_every to a divisor of {step} in [set]."
            )
        return world.forked(step, values, base=base_folder), world if values else None, step

    def _check_measured(self, scenario: Scenario, path: str) -> None:
        for number, measure in enumerate(self.measures):
            mismatch = measure.mismatch(scenario)
            if mismatch:
                raise ScenarioError(f"{self.where}: measures.{number}.{mismatch} (in {path}).")


def _row(values: Mapping[str, Any]) -> tuple[str]:
    return (", ".join(f"{path} = {value}" for path, value in values.items()),)


def _no_arm(name: str, arms: list[str]) -> str:
    more = f" and {len(arms) - _LISTED_ARMS} more" if len(arms) > _LISTED_ARMS else ""
    return f'there is no arm "{name}"{nearest(name, arms)}; choose from {", ".join(arms[:_LISTED_ARMS])}{more}'


def _count(axes: Axes, named: Mapping[str, Any]) -> int:
    """Return the number of points of a grid of axes, or of named sets of values; 1 if both are empty."""
    return math.prod(len(v) for v in axes.values() if isinstance(v, list)) if axes else max(1, len(named))


def _seeded(scenario: Scenario, seed: int) -> Scenario:
    """Return the scenario with another seed, without validating it again."""
    return scenario.model_copy(update={"seed": seed})
