"""Story files: a world, and scenes with a text, instructions, a question, and what will be observed.

Instructions are data, from which the page makes the sentences that a reader follows; a test follows the same ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from ecosystem.app.charts.world_charts import possible_measures
from ecosystem.app.knobs import knobs_of, label
from ecosystem.app.teaching.claims import Claim
from ecosystem.errors import ScenarioError, each_line, nearest
from ecosystem.scenario.entries.changes import Knob
from ecosystem.scenario.presets import STORIES, bundled, named_file, read_toml
from ecosystem.scenario.scenario import Scenario
from ecosystem.spec import Spec, explain

Text = Annotated[str, Field(min_length=1, max_length=4000)]
Panel = Literal["web", "contamination", "quality", "diversity", "ledger", "instruments", "columns", "reading"]
_TIMES = {1: "once", 2: "twice"}


class Action(Spec):
    """One instruction: make ``steps``, ``turn`` a knob ``to`` a position, or ``fork`` the first world after a step."""

    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(None, description="number of steps to make")
    turn: str | None = Field(None, description="dotted path of a knob of the world")
    to: float | str | None = Field(None, description="its position: a number, or the name of a choice")
    fork: Annotated[int, Field(ge=0)] | None = Field(None, description="step after which to fork the first world")

    @field_validator("to", mode="before")
    @classmethod
    def _position(cls, to: object) -> object:
        if (
            to is None
            or isinstance(to, str)
            or (isinstance(to, int | float) and not isinstance(to, bool) and math.isfinite(to))
        ):
            return to
        raise ValueError("must be a number, or the name of a choice in quotes")

    @model_validator(mode="after")
    def _one(self) -> Action:
        if sum(part is not None for part in (self.steps, self.turn, self.fork)) != 1:
            raise ValueError("an instruction is one of steps, turn (with to) or fork")
        if (self.to is None) != (self.turn is None):
            raise ValueError("turn and to belong together: the path of a knob and its position")
        return self


class Scene(Spec):
    """A part of a story: what to read, to do, to look at and to answer, and the claims that are checked afterwards."""

    title: Text = Field(description="heading")
    text: Text = Field(description="paragraphs to read first, separated by empty lines")
    do: list[Action] = Field([], description="instructions, in order")
    look: Panel | None = Field(None, description="the panel to look at")
    measures: dict[Literal["contamination", "quality", "diversity"], str] = Field(
        default_factory=dict, description="metrics that these panels show"
    )
    question: Text = Field(description="what to think about before looking at the answer")
    expected: Text = Field(description="the answer: what is observed, and why")
    claims: list[str] = Field(min_length=1, description="comparisons of metrics that make the answer true")


class Story(Spec):
    """A story: its world and its scenes."""

    title: Text = Field(description="name of the story")
    description: Text = Field(description="what it teaches, in a sentence or two")
    world: str = Field(description="scenario of the world: a path beside this file, or the name of a bundled scenario")
    scenes: list[Scene] = Field(min_length=1, description="scenes, in order")


@dataclass(frozen=True)
class Task:
    """An instruction at its place in a story: the step before and after it, of the world that is behind."""

    action: Action
    before: int
    after: int
    worlds: int
    forks: int  # so far, with this one
    knob: Knob | None = None

    def __str__(self) -> str:
        if self.action.steps is not None:
            times = _TIMES.get(self.action.steps, f"{self.action.steps} times")
            return f"Press Step {times}, to step {self.after}" + (" in both worlds." if self.worlds > 1 else ".")
        if self.knob is not None:
            to = self.action.to
            position = to if isinstance(to, str) else f"{to:,.4g}"
            return (
                f"Set “{label(self.knob)}” to {position}, in the second world."
                if self.worlds > 1
                else (f"Set “{label(self.knob)}” to {position}.")
            )
        return f"Press “Fork here (step {self.action.fork})” in the first world, with the step slider at this step."

    @property
    def value(self) -> Any:
        """The value that a turned knob sets."""
        assert self.knob is not None
        return self.action.to if self.knob.choices is None else self.knob.choices[str(self.action.to)]


@dataclass(frozen=True)
class Staged:
    """A story with its world: what the page shows. ``tasks`` and ``claims`` are those of each scene."""

    name: str
    story: Story
    scenario: Scenario
    base: Path
    tasks: Sequence[Sequence[Task]]
    claims: Sequence[Sequence[Claim]]

    def end(self, scene: int) -> int:
        """Return the step at which a scene ends."""
        done = [task for tasks in self.tasks[: scene + 1] for task in tasks]
        return done[-1].after if done else 0


def shipped() -> dict[str, Path]:
    """Return the stories that come with ecosystem, by name, in the order in which a class takes them."""
    order = {"closed_loop": 0, "real_data": 1, "filters": 2}
    files = {file.stem: file for folder in reversed(bundled("scenarios")) for file in (folder / STORIES).glob("*.toml")}
    return dict(sorted(files.items(), key=lambda item: (order.get(item[0], len(order)), item[0])))


def load(place: str | Path) -> Staged:
    """Read a story, given by its path or the name of a bundled one, and its world.

    Raises ScenarioError with a sentence for every problem.
    """
    stories, file = shipped(), Path(place)
    if not str(place) or file.is_dir():
        what = f"{file} is a folder" if str(place) else "the name is empty"
        raise ScenarioError(f"{what}, not a story; give the path of a story file or one of {', '.join(stories)}.")
    if not file.suffix and not file.exists():
        if str(place) not in stories:
            raise ScenarioError(
                f'there is no story "{place}"{nearest(str(place), stories)}; give the path of a file or one of '
                f"{', '.join(stories)}."
            )
        file = stories[str(place)]
    try:
        story = Story.model_validate(read_toml(file))
    except ValidationError as error:
        raise ScenarioError("\n".join(f"{file}: {problem}." for problem in explain(error, "", Story))) from None
    try:
        world = named_file(story.world, file.parent)
    except ScenarioError as error:
        raise ScenarioError(f"{file}: world: {error}") from None
    try:
        return _staged(file, story, Scenario.load(world), world.parent)
    except ScenarioError as error:
        raise ScenarioError(each_line(str(file), error)) from None


def _staged(file: Path, story: Story, scenario: Scenario, base: Path) -> Staged:
    """Check a story against its world; raise ScenarioError with a line for every problem."""
    problems: list[str] = []
    tasks: list[list[Task]] = []
    claims: list[list[Claim]] = []
    last = Task(Action(steps=1), 0, 0, 1, 0)
    for number, scene in enumerate(story.scenes):
        tasks.append([])
        for place, action in enumerate(scene.do):
            last, problem = _task(action, last, scenario)
            tasks[-1].append(last)
            if problem:
                problems.append(f"scenes.{number}.do.{place}: {problem}.")
        problems += [f"scenes.{number}.{problem}." for problem in _shown_problems(scene, scenario)]
        claims.append([])
        for place, text in enumerate(scene.claims):
            where = f"scenes.{number}.claims.{place}"
            try:
                claim = Claim.parse(text)
            except ScenarioError as error:
                problems.append(f"{where}: {error}.")
                continue
            claims[-1].append(claim)
            if problem := claim.problem(scenario, last.after, last.worlds):
                problems.append(f"{where}: {problem}.")
    if problems:
        raise ScenarioError("\n".join(problems))
    return Staged(file.stem, story, scenario, base, tasks, claims)


def _shown_problems(scene: Scene, scenario: Scenario) -> Iterator[str]:
    """Yield what is wrong with the panel and the metrics of a scene: what its world cannot show."""
    if scene.look == "instruments" and not scenario.instruments:
        yield "look: the world has no instruments; add [instruments.NAME] to it, or choose another panel"
    if scene.look in ("quality", "diversity") and not scenario.trainers:
        yield f"look: the world has no trainers, whose {scene.look} could be shown; choose another panel"
    for panel, metric in scene.measures.items():
        offered = possible_measures(scenario)[panel]
        if metric not in offered:
            yield (
                f'measures.{panel}: the panel has no "{metric}"{nearest(metric, offered)}; '
                f"choose from {', '.join(offered)}"
            )


def _task(action: Action, last: Task, scenario: Scenario) -> tuple[Task, str]:
    """Return an instruction after the ``last`` one, and what is wrong with it ("" if nothing)."""
    now = last.after
    if action.steps is not None:
        problem = f"the world has {scenario.steps} steps, and this would be step {now + action.steps}"
        task = Task(action, now, now + action.steps, last.worlds, last.forks)
        return task, problem if task.after > scenario.steps else ""
    if action.fork is not None:
        task = Task(action, now, action.fork, 2, last.forks + 1)
        if action.fork > now:
            return task, f"the world is at step {now} then, and cannot be forked at step {action.fork}"
        kept = action.fork == now or (scenario.weights_every and action.fork % scenario.weights_every == 0)
        return task, "" if kept else f"the models of step {action.fork} are not kept; set weights_every in the world"
    found = [knob for knob in knobs_of(scenario).values() if knob.path == action.turn]
    task = Task(action, now, now, last.worlds, last.forks, found[0] if found else None)
    return task, next(_turn_problems(action, found, scenario), "")


def _turn_problems(action: Action, found: Sequence[Knob], scenario: Scenario) -> Iterator[str]:
    paths = [knob.path for knob in knobs_of(scenario).values()]
    if not found:
        yield f"the world has no knob {action.turn}{nearest(str(action.turn), paths)}; it has {', '.join(paths)}"
        return
    knob = found[0]
    if knob.choices is not None:
        if action.to not in knob.choices:
            yield f"the knob {knob.path} has no position {action.to!r}; it has {', '.join(knob.choices)}"
        return
    if not isinstance(action.to, int | float) or not math.isfinite(action.to):
        yield f"the knob {knob.path} needs a number, not {action.to!r}"
        return
    assert knob.low is not None and knob.high is not None
    if not knob.low <= action.to <= knob.high:
        yield f"the knob {knob.path} goes from {knob.low:g} to {knob.high:g}; {action.to:g} is outside"
    elif knob.step is not None:
        places = (action.to - knob.low) / knob.step
        if abs(places - round(places)) > 1e-6:
            yield f"the knob {knob.path} has positions at every {knob.step:g} from {knob.low:g}; {action.to:g} is none"
