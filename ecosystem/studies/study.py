"""Study and frontier files: frozen values that are checked when they are read.

A *lever* is what somebody could decide (the arms or axes of a study); an *uncertainty* is what the world may turn out
to be (its ``worlds``). Every cell of a study, arm × world × seed, is an ordinary run with an ordinary run folder: one
that is there already is never run again, and one that was interrupted is resumed.
"""

from __future__ import annotations

import hashlib
import json
import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PrivateAttr, ValidationError, model_validator

from ecosystem.errors import ScenarioError, nearest
from ecosystem.metrics.catalogue import definitions, name_of
from ecosystem.metrics.definitions import COSTS
from ecosystem.scenario.presets import bundled, read_toml
from ecosystem.scenario.scenario import Scenario
from ecosystem.scenario.tables import NAME
from ecosystem.spec import Spec, explain
from ecosystem.studies.design import Axes, Design, Range, Seed, designed, points

Step = Annotated[int, Field(ge=0, le=10**9)]
WEB = "web"  # as whose measure: that of the whole web
FORK = "branch.step"  # the lever that moves the step at which an arm leaves the others
_OF_STUDY = ("seed", "name", "description", "variants", "theory")
_MOST = 10_000  # arms times worlds
_ALONE = ""  # the name of the world where a study has one only


class Measure(Spec):
    """One number per run: a metric of somebody, at a step or averaged over a window of steps."""

    metric: Annotated[str, AfterValidator(name_of)] = Field(description="a name from `ecosystem list metrics`")
    of: str | None = Field(
        None, description="a population of trainers, whose mean counts; web; absent: the mean over all trainers"
    )
    at: Step | None = Field(None, description="the step at which it counts; absent: the last")
    window: Annotated[list[Step], Field(min_length=2, max_length=2)] | None = Field(
        None, description="first and last step over which it is averaged, instead of one step"
    )
    goal: Literal["lower", "higher"] | None = Field(None, description="which is better; absent: what the metric says")

    @model_validator(mode="after")
    def _when(self) -> Measure:
        metrics = definitions()
        if self.metric not in metrics:
            close = nearest(self.metric, metrics)
            raise ValueError(f'metric: there is no metric "{self.metric}"{close}; see `ecosystem list metrics`')
        if self.at is not None and self.window is not None:
            raise ValueError("window: give at (one step) or window (two), not both")
        if self.window is not None and self.window[0] > self.window[1]:
            raise ValueError(f"window: {self.window[0]} comes after {self.window[1]}")
        if self.goal is None and not metrics[self.metric].better:
            raise ValueError(f'goal: say goal = "lower" or "higher": of {self.metric} neither is better in itself')
        return self

    def misplaced(self, scenario: Scenario) -> str:
        """Say why a run of this scenario has no such number, beginning with the field at fault; "" if it has."""
        there = [*scenario.trainers, WEB]
        if self.of is not None and self.of not in there:
            return f"of: there is no [trainers.{self.of}]{nearest(self.of, there)}; there are {', '.join(there)}"
        last = self.steps(scenario.steps)[1]
        if last > scenario.steps:
            field = "at" if self.window is None else "window"
            return f"{field}: step {last} comes after the last step, {scenario.steps}"
        return ""

    @property
    def name(self) -> str:
        """What it is called in tables: of whom, which metric, when."""
        when = f"@{self.at}" if self.at is not None else f"@{self.window[0]}-{self.window[1]}" if self.window else ""
        return f"{self.of}/{self.metric}{when}" if self.of else f"{self.metric}{when}"

    @property
    def unit(self) -> str:
        """The metric's unit ("1" for a pure number)."""
        return definitions()[self.metric].unit

    @property
    def axis(self) -> str:
        """What stands beside its axis: the unit, or what it is if it has none."""
        return self.unit if self.unit != "1" else self.metric

    @property
    def lower_is_better(self) -> bool:
        """Whether a smaller value is the better one."""
        return (self.goal or definitions()[self.metric].better) == "lower"

    def steps(self, last: int) -> tuple[int, int]:
        """Return the first and the last step that count, in a run of ``last`` steps."""
        if self.window is not None:
            return self.window[0], self.window[1]
        step = last if self.at is None else self.at
        return step, step


class Branch(Spec):
    """Where the arms leave the world that they share: their levers are in force after ``step``."""

    step: Step = Field(description="the last step that all arms share")
    run: str | None = Field(
        None,
        description="a stored run whose history they share: a run folder without its seed, for instance "
        "outputs/name-0123456789ab; absent: the base scenario is run for it",
    )


class EqualCost(Spec):
    """Ways to spend compared at the same cost: each a series of arms that spend more and more than the base arm."""

    levers: dict[str, Annotated[list[str], Field(min_length=1)]] = Field(
        description="name of a way to spend → its arms; between their costs the measure is interpolated, seed by seed"
    )
    at: Annotated[list[Annotated[float, Field(gt=0)]], Field(min_length=1)] = Field(
        description="the costs at which the ways are compared, in units of `prices`"
    )


class Question(Spec):
    """What a study and a frontier have in common: a base scenario, what is set in it, and the seeds."""

    name: str = Field(description="names the folder of its report; letters, digits, _ and -")
    description: str = Field("", description="what is asked, shown in listings and in the report")
    base: str = Field(description="the base scenario: a file, from this file's folder, or the name of a bundled one")
    variant: str | None = Field(None, description="which of its variants")
    set: dict[str, Any] = Field({}, description="paths set in every run (the model tier, the steps …)")
    seeds: Annotated[list[Seed], Field(min_length=1)] = Field(description="the replicates, the same ones everywhere")
    _file: str = PrivateAttr("")

    @property
    def where(self) -> str:
        """The file that messages name, or the name of a question that came from none."""
        return self._file or self.name

    @model_validator(mode="after")
    def _named(self) -> Self:
        if not NAME.fullmatch(self.name):
            raise ValueError(f'name: "{self.name}" may only have letters, digits, "_" and "-"')
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError("seeds: each may stand there once only; the same seed gives the same run")
        return self

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read a file; raise ScenarioError listing what is wrong with it (with its scenarios: when these are made)."""
        file = Path(path)
        data = read_toml(file)
        asked, mine = question(data), cls.__name__.lower()
        if asked is not cls:
            is_a, command = ("scenario", "run") if asked is None else (asked.__name__.lower(), asked.__name__.lower())
            raise ScenarioError(f"{file}: is a {is_a}, not a {mine}: ecosystem {command} {file}")
        return cls._checked(data, str(file))

    @classmethod
    def _checked(cls, data: Mapping[str, Any], file: str) -> Self:
        try:
            found = cls.model_validate(data)
        except ValidationError as error:
            where = file or data["name"]
            raise ScenarioError("\n".join(f"{where}: {problem}." for problem in explain(error, "", cls))) from None
        found._file = file
        return found

    def fingerprint(self) -> str:
        """Return 12 hexadecimal digits that name this question (not its name or description)."""
        data = {key: value for key, value in self.plain().items() if key not in ("name", "description")}
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:12]

    def varied(self, values: Mapping[str, Any], seeds: int | None = None) -> Self:
        """Return the same question with more paths set in every run, or of the first so many seeds only."""
        if seeds is not None and seeds > len(self.seeds):
            raise ScenarioError(f"{self.where}: seeds: --seeds {seeds}, but there are {len(self.seeds)}; add some.")
        data = self.plain() | {"set": {**self.set, **values}, "seeds": self.seeds[:seeds]}
        return self._checked(data, self._file)

    def found(self, folder: Path) -> tuple[Scenario, Path]:
        """Return the base scenario, and the folder that its own paths begin from; raise ScenarioError without one."""
        field = "base"
        try:
            file = _find(self.base, folder)
            data = read_toml(file)
            if question(data) is not None:
                raise ScenarioError(f"{file} is itself a study or a frontier; give a scenario.")
            base = Scenario.parse(data, where=str(file), base=file.parent)
            field = "variant"
            return base if self.variant is None else base.variant(self.variant, base=file.parent), file.parent
        except ScenarioError as error:
            raise self.mistake(field, error) from None

    def mistake(self, path: str, problem: object) -> ScenarioError:
        """Return the error that says of every line of a problem in which file and at which dotted path it is."""
        return ScenarioError("\n".join(f"{self.where}: {path}: {line}" for line in str(problem).splitlines()))

    @abstractmethod
    def check(self, folder: Path) -> tuple[str, list[Scenario]]:
        """Check every scenario that this asks for; return in a few words what they are, and those checked."""


class Study(Question):
    """A whole study. Read one with :meth:`load`; its runs are the cells of :meth:`cells`."""

    reference: str | None = Field(None, description="the arm that others are compared with; absent: the first")
    arms: dict[str, dict[str, Any]] = Field({}, description="named levers: tables of dotted path = value")
    axes: Axes = Field({}, description="levers by path, instead of arms: a list of values, or a range")
    design: Design = Field(Design(), description="how the points of `axes` are chosen")
    worlds: dict[str, dict[str, Any]] = Field({}, description="uncertainties: what the world may be, like arms")
    uncertain: Axes = Field({}, description="uncertainties by path, instead of worlds: a list of values, or a range")
    draw: Design = Field(Design(), description="how the points of `uncertain` are chosen")
    branch: Branch | None = Field(
        None, description="where the arms leave a world that they share; absent: they differ from the first step on"
    )
    measures: Annotated[list[Measure], Field(min_length=1)] = Field(description="the numbers that arms are compared by")
    prices: dict[str, Annotated[float, Field(ge=0)]] = Field(
        {}, description="what one unit of a cost (`ecosystem list metrics`, scope cost) costs, for quality against cost"
    )
    equal_cost: EqualCost | None = Field(None, description="ways to spend, compared at the same cost")

    @model_validator(mode="after")
    def _complete(self) -> Study:
        for name in (*self.arms, *self.worlds):
            if not NAME.fullmatch(name):
                section = "arms" if name in self.arms else "worlds"
                raise ValueError(f'{section}: the name "{name}" may only have letters, digits, "_" and "-"')
        if bool(self.arms) == bool(self.axes):
            raise ValueError("arms: give either arms (named sets of path = value) or axes (path → values)")
        if self.worlds and self.uncertain:
            raise ValueError("worlds: give either worlds (named sets of path = value) or uncertain (path → values)")
        designed(self.axes, self.design, "axes", "design")
        designed(self.uncertain, self.draw, "uncertain", "draw")
        if self.draw.method in ("morris", "sensitivity"):
            raise ValueError(f"draw.method: {self.draw.method} tells how much an axis matters; it can stand in design")
        size = _size(self.axes, self.arms) * _size(self.uncertain, self.worlds)
        if size > _MOST:
            section = "arms" if self.arms else "axes"
            raise ValueError(f"{section}: {size:,} arms and worlds are more than a study can have ({_MOST:,})")
        names = [measure.name for measure in self.measures]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"measures: {twice} stands there twice")
        levers = list(self.levers())
        if len(levers) < 2:
            raise ValueError("arms: one arm alone compares with nothing; give at least two")
        if self.reference is not None and self.reference not in levers:
            raise ValueError(f"reference: {_no_arm(self.reference, levers)}")
        if self.compares and len(self.seeds) < 2:
            raise ValueError("seeds: a difference needs at least two, or nothing is known of its uncertainty")
        self._priced(levers)
        return self

    def _priced(self, levers: list[str]) -> None:
        for cost in self.prices:
            if cost not in COSTS:
                raise ValueError(
                    f'prices: there is no cost "{cost}"{nearest(cost, COSTS)}; there are {", ".join(COSTS)}'
                )
        if self.equal_cost is None:
            return
        if not self.prices:
            raise ValueError("equal_cost: say in prices what things cost")
        for way, arms in self.equal_cost.levers.items():
            for arm in arms:
                if arm not in levers:
                    raise ValueError(f"equal_cost.levers.{way}: {_no_arm(arm, levers)}")
        if len(self.equal_cost.levers) < 2:
            raise ValueError("equal_cost.levers: one way to spend compares with nothing; give at least two")

    @property
    def compares(self) -> bool:
        """Whether arms are compared with a base arm (not so where indices of sensitivity are asked for)."""
        return self.design.method not in ("morris", "sensitivity")

    @property
    def base_arm(self) -> str:
        """The arm that others are compared with."""
        return self.reference or next(iter(self.levers()))

    def levers(self) -> dict[str, dict[str, Any]]:
        """Return the arms by name; those of axes are named by their values."""
        return dict(self.arms) if self.arms else points(self.axes, self.design)

    def settings(self) -> dict[str, dict[str, Any]]:
        """Return the worlds by name; one without a name where nothing is uncertain."""
        if self.worlds:
            return dict(self.worlds)
        return points(self.uncertain, self.draw) if self.uncertain else {_ALONE: {}}

    def cells(self, folder: Path) -> list[Cell]:
        """Return every run of the study, seed by seed; raise ScenarioError for an arm or world that is no scenario.

        ``folder`` is that of the study file, from which its base is sought.
        """
        base, at = self.scenario(folder)
        found = []
        for world, uncertain in self.settings().items():
            for arm, lever in self.levers().items():
                where = f"arms.{arm}" if self.arms else f"axes, at {arm}"
                where += f" in {f'worlds.{world}' if self.worlds else f'uncertain, at {world}'}" if world else ""
                try:
                    scenario, trunk, fork = self._arm(base, uncertain, lever, at)
                except ScenarioError as error:
                    raise self.mistake(where, error) from None
                for number, measure in enumerate(self.measures):
                    problem = measure.misplaced(scenario)
                    if problem:
                        raise ScenarioError(f"{self.where}: measures.{number}.{problem}, in {where}.")
                found += [
                    Cell(arm, world, _seeded(scenario, seed), trunk and _seeded(trunk, seed), fork)
                    for seed in self.seeds
                ]
        return sorted(found, key=lambda cell: self.seeds.index(cell.scenario.seed))

    def check(self, folder: Path) -> tuple[str, list[Scenario]]:
        """Check the scenario of every cell; return how many runs they are, and the scenarios."""
        cells = self.cells(folder)
        return f"{len(cells)} runs, {len(self.levers())} arms", [cell.scenario for cell in cells]

    def scenario(self, folder: Path) -> tuple[Scenario, Path]:
        """Return the base scenario with what is set for every arm, and the folder that its own paths begin from."""
        base, at = self.found(folder)
        try:
            return with_values(base, self.set, at), at
        except ScenarioError as error:
            raise self.mistake("set", error) from None

    def _arm(
        self, base: Scenario, uncertain: Mapping[str, Any], lever: Mapping[str, Any], at: Path
    ) -> tuple[Scenario, Scenario | None, int]:
        """Return an arm's scenario in one world; if it forks, also the scenario and the last step it shares."""
        values = {path: value for path, value in lever.items() if path != FORK}
        for path in {**uncertain, **values}:
            if path in _OF_STUDY:
                raise ScenarioError(f'"{path}" is the study\'s own and the same in every arm; leave it out.')
        step = lever.get(FORK, None if self.branch is None else self.branch.step)
        if step is None:
            return with_values(base, {**uncertain, **values}, at), None, -1
        if not isinstance(step, int) or not 0 <= step < base.steps:
            raise ScenarioError(f"{FORK} = {step!r}: give a step from 0 to {base.steps - 1}, before the last.")
        world = with_values(base, uncertain, at)
        return world.forked(step, values, base=at), world if values else None, step


class ClosedForm(Spec):
    """A law that says where the threshold lies; its argument ``varies`` is the lever's value."""

    law: str = Field(description="a name from `ecosystem list laws`")
    varies: str = Field(description="the argument of the law that the lever is")
    divided_by: Annotated[float, Field(gt=0)] = Field(1.0, description="the argument is the lever's value over this")
    parameters: dict[str, Any] = Field({}, description="its other arguments")
    first: int = Field(0, description="generation at step 0")


class Frontier(Question):
    """Where a measure crosses a limit along one lever. Read one with :meth:`load`."""

    path: str = Field(description="the lever: a dotted path of the scenario")
    range: Range = Field(description="where the threshold is sought")
    measure: Measure = Field(description="the number that crosses the limit")
    limit: float = Field(description="what the measure is not to cross (of cross_entropy_change: a tolerance)")
    since: Step | None = Field(None, description="the limit is on the change of the measure since this step")
    precision: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.01, description="how finely the threshold is sought, as a share of the range (in its scale)"
    )
    closed_form: ClosedForm | None = Field(
        None, description="a law that says where the threshold lies, reported beside the one that was found"
    )

    @model_validator(mode="after")
    def _replicated(self) -> Frontier:
        if len(self.seeds) < 2:
            raise ValueError("seeds: an interval needs at least two")
        return self

    def check(self, folder: Path) -> tuple[str, list[Scenario]]:
        """Check the scenarios at both ends of the range; return what is searched, and these scenarios."""
        ends = [self.scenario(folder, self.range.at(end), self.seeds[0])[0] for end in (0.0, 1.0)]
        return f"{self.path} from {self.range.low:g} to {self.range.high:g}, {len(self.seeds)} seeds", ends

    def scenario(self, folder: Path, value: float | int, seed: int) -> tuple[Scenario, Path]:
        """Return the scenario at one value of the lever, and the folder that its own paths begin from."""
        base, at = self.found(folder)
        try:
            found = with_values(base, {**self.set, self.path: value, "seed": seed}, at)
        except ScenarioError as error:
            raise self.mistake(f"path, {self.path} = {value:g}", error) from None
        problem = self.measure.misplaced(found)
        if problem:
            raise ScenarioError(f"{self.where}: measure.{problem}.")
        if (self.since or 0) > found.steps:
            raise ScenarioError(f"{self.where}: since: step {self.since} comes after the last step, {found.steps}.")
        return found, at


def question(data: Mapping[str, Any]) -> type[Question] | None:
    """Return what a TOML file seems to be, a Study or a Frontier; None for a scenario."""
    if "path" in data or "limit" in data:
        return Frontier
    return Study if {"base", "arms", "axes", "measures", "seeds"} & data.keys() else None


def _no_arm(name: str, levers: list[str]) -> str:
    more = f" and {len(levers) - 12} more" if len(levers) > 12 else ""
    return f'there is no arm "{name}"{nearest(name, levers)}; there are {", ".join(levers[:12])}{more}'


def _size(axes: Axes, named: Mapping[str, Any]) -> int:
    """Return how many points a grid of axes has, or how many named sets there are."""
    return math.prod(len(v) for v in axes.values() if isinstance(v, list)) if axes else max(1, len(named))


@dataclass(frozen=True)
class Cell:
    """One run of a study: a scenario with its seed, which arm and world it belongs to, and where it forks."""

    arm: str
    world: str
    scenario: Scenario
    trunk: Scenario | None = None  # the scenario whose history it shares
    fork: int = -1  # up to this step

    @property
    def label(self) -> str:
        """How a person names it."""
        return f"{self.arm}{f' in {self.world}' if self.world else ''}, seed {self.scenario.seed}"


def _find(name: str, folder: Path) -> Path:
    """Return a scenario file: from ``folder``, from the current folder, or a bundled one by its name."""
    for place in (folder / name, Path(name)):
        if place.is_file():
            return place
    known = {
        file.stem: file for place in reversed(bundled("scenarios", folder)) for file in sorted(place.glob("*.toml"))
    }
    if name in known:
        return known[name]
    raise ScenarioError(
        f'there is no scenario "{name}"{nearest(name, known)}; give a file or one of {", ".join(sorted(known))}.'
    )


def with_values(scenario: Scenario, values: Mapping[str, Any], base: Path) -> Scenario:
    """Return a scenario with values set, its timed changes checked again."""
    return Scenario.parse(scenario.override(values, base=base).plain(), where="", base=base) if values else scenario


def _seeded(scenario: Scenario, seed: int) -> Scenario:
    return scenario.model_copy(update={"seed": seed})  # checked already, as a whole and as a seed
