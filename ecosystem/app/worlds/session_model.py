"""The Mesa model that SolaraViz plays: its step advances the worlds of the page, or shows the next frame of a replay.

SolaraViz calls ``step()`` from its buttons and, while playing, at every interval. Neither may block on a step that
trains GPT-2, so ``step()`` only requests one. Each press of *Step* requests one step, which waits until the worlds have
opened and earlier steps have ended; while playing, a world steps at most once per interval. On *Reset* SolaraViz
creates a new model from flat keyword arguments, the values of the knobs.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import mesa

from ecosystem.app.knobs import knobs_of
from ecosystem.app.worlds.live_run import LiveRun
from ecosystem.app.worlds.run_view import RunView, stored
from ecosystem.errors import EcosystemError, ScenarioError, nearest
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine
from ecosystem.runs.run import Run
from ecosystem.scenario.entries.changes import Knob
from ecosystem.scenario.presets import presets
from ecosystem.scenario.scenario import Scenario

SEEDS = 10**9  # the largest seed
PATIENCE = 20.0  # seconds to wait for a world to stop: its thread may block on a browser that has gone
ACTIVE = ("opening", "ready", "stepping", "paused")  # the states of a world that may step
SEED, PRESET = "seed", "model"  # arguments of a session in addition to its knobs
AS_FILE = "as in the scenario"  # the choice of no other models


@dataclass(frozen=True)
class SessionConfig:
    """What a page shows: stored runs, or a scenario to run live, with its folders and machine."""

    runs: tuple[Path, ...] = ()
    scenario: Scenario | None = None
    base: Path = Path()
    machine: Machine = field(default_factory=lambda: Machine("cpu", 1))
    out: Path = Path("outputs")  # where kept runs are written
    advance: int = 0  # steps that a live world makes as soon as it has opened
    stories: tuple[Any, ...] = ()  # of a page that teaches; its scenario is that of the story chosen

    @property
    def title(self) -> str:
        """The title of the page."""
        if self.scenario is not None:
            return self.scenario.name
        return " and ".join(f"{path.parent.name}/{path.name}" for path in self.runs)


class SessionModel(mesa.Model):
    """One or two worlds on a page: stored ones (``stored``), or live ones (``live_runs``), or one of each.

    ``shown`` is the step on display (None: the last), ``steered`` the number of the world that knobs act on. Stored
    worlds start at step 0, also after *Reset*.
    """

    config: ClassVar[SessionConfig]
    news: ClassVar[staticmethod[[], None]]
    progressed: ClassVar[staticmethod[[], None]] = staticmethod(lambda: None)
    watched: ClassVar[staticmethod[[], bool]] = staticmethod(lambda: True)  # whether the tab is connected
    pressed: ClassVar[staticmethod[[], bool]] = staticmethod(lambda: False)  # whether a button was, rather than playing
    # Threads that begin in a tab belong to it, and so do theirs: if the tab is closed meanwhile, a thread never starts,
    # and the one that waits for its start never ends. The threads of worlds therefore begin apart from the tab.
    apart: ClassVar[staticmethod[[], AbstractContextManager[None]]] = staticmethod(nullcontext)

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(rng=0)  # nothing draws from it
        self.shown: int | None = None if self.config.scenario is not None else 0
        self._over = False  # whether a replay has reached its end
        self.stored = [stored(path) for path in self.config.runs]
        for view in self.stored:
            view.refresh()
        self.live_runs: list[LiveRun] = []
        self._begun: list[LiveRun] = []  # every live world so far, including those replaced
        self.steered = 0
        self.knobs: dict[str, Knob] = {}
        self.arguments: dict[str, str] = {}  # the models and the seed that differ from the file's
        self.refused = ""  # why a requested value was refused, as a sentence
        self._current: tuple[Scenario, int, Scenario] | None = None  # a scenario, a step, and the scenario at that step
        scenario = self.config.scenario and self._requested(self.config.scenario, kwargs)
        self._folder = Path(tempfile.mkdtemp(prefix="ecosystem-")).resolve()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # in case close() is never called
        if scenario is not None:
            self.live_runs = [self._open(scenario, self.config.machine, self.config.base)]
            if self.config.advance:
                self.live_runs[0].request(self.config.advance)

    def _requested(self, scenario: Scenario, arguments: dict[str, Any]) -> Scenario:
        """Return the scenario with the models, the seed and the knob values requested on the page.

        An argument is a value, or a widget's object with an attribute ``value``.
        """
        requested = {name: getattr(argument, "value", argument) for name, argument in arguments.items()}
        values: dict[str, Any] = {}
        seed = str(requested.get(SEED, "")).strip()
        if seed.isascii() and seed.isdigit() and int(seed) <= SEEDS:
            values["seed"] = int(seed)
            if int(seed) != scenario.seed:
                self.arguments[SEED] = seed
        elif SEED in requested:
            self.refused = f'seed "{seed}": give a whole number from 0 to {SEEDS}; {scenario.seed} is used instead.'
        preset, known = requested.get(PRESET, AS_FILE), presets(self.config.base)
        if preset in known:
            values |= {f"models.{name}.preset": preset for name in scenario.models}
            self.arguments[PRESET] = preset
        elif preset != AS_FILE:
            told = f'model "{preset}": no such preset{nearest(preset, known)}; the models of the file are used.'
            self.refused = f"{self.refused} {told}".strip()
        self.knobs = knobs_of(scenario)
        for name, knob in self.knobs.items():
            if requested.get(name) is not None:
                value = requested[name] if knob.choices is None else knob.choices.get(requested[name])
                if value is None:  # not one of the choices
                    continue
                values[knob.path] = scenario.rounded_like(knob.path, value)
        try:
            return scenario.override(values, base=self.config.base)
        except ScenarioError as error:  # values that are valid one by one may conflict
            self.refused = f"{self.refused} {error} The values of the file are used instead.".strip()
            self.arguments.clear()
            return scenario

    def _open(self, scenario: Scenario, machine: Machine, base: Path, branch: Branch | None = None) -> LiveRun:
        out = self._folder / str(len(self._begun))
        with self.apart():
            live_run = LiveRun(scenario, out, machine, self.news, base=base, branch=branch, progressed=self.progressed)
        self._begun.append(live_run)
        return live_run

    # State.

    @property
    def views(self) -> list[RunView | None]:
        """The worlds in the order of the page; None for one that has not opened yet."""
        return [*self.stored, *(live_run.view for live_run in self.live_runs)]

    def live_run(self, number: int) -> LiveRun | None:
        """Return the live world with this number on the page; None for a stored one."""
        live = number - len(self.stored)
        return self.live_runs[live] if live >= 0 else None

    @property
    def last(self) -> int:
        """The last step of any world that can be shown; -1 if there is none yet."""
        return max((view.last for view in self.views if view is not None), default=-1)

    @property
    def front(self) -> int:
        """The last step of the live worlds or, without any, of the stored ones; -1 if there is none yet."""
        return max((live_run.t for live_run in self.live_runs), default=self.last)

    @property
    def forks(self) -> int:
        """The number of forks so far, of a world that began live."""
        return len(self._begun) - 1

    @property
    def upcoming(self) -> int:
        """The next step that the steered world begins; 0 if no world is live."""
        return self.live_runs[self.steered].upcoming if self.live_runs else 0

    @property
    def step_shown(self) -> int:
        """The step on display."""
        return self.front if self.shown is None else min(self.shown, self.last)

    @property
    def steps(self) -> int:
        """The step on display, for SolaraViz."""
        return max(0, self.step_shown)

    @steps.setter
    def steps(self, value: int) -> None:
        """Ignore the value: Mesa counts calls of ``step()``, which are not steps of a world."""

    @property
    def running(self) -> bool:
        """Whether a step can be requested; SolaraViz stops playing if not."""
        if self.live_runs:
            return any(r.state in ACTIVE for r in self.live_runs)
        return not self._over

    @running.setter
    def running(self, value: bool) -> None:
        """Ignore the value: the worlds decide."""

    # Actions.

    def step(self) -> None:
        """Request a step of the live worlds that are behind; for stored ones, show the next frame.

        While playing, a step is requested only when the worlds have opened and none is under way.
        """
        if not self.live_runs:
            if not self._over:  # Mesa may request several frames at once
                self.look(self.step_shown + 1 if self.step_shown < self.last else 0)
                self._over = self.step_shown == self.last
            return  # Mesa redraws the page after it has read ``running``
        if not self.watched():
            return
        active = [r for r in self.live_runs if r.state in ACTIVE]
        target = min((r.target for r in active), default=0) + 1  # a fork that is still opening is waited for
        behind = [r for r in active if r.target < target]
        if not self.pressed() and not all(r.state == "ready" for r in behind):
            return
        for live_run in behind:
            live_run.request(target)
        if behind and self.shown is not None:
            self.shown = None  # follow the new step
            self.news()

    def look(self, step: int) -> None:
        """Show a step; at the last step of live worlds, follow the new ones."""
        self.shown = None if step >= self.front and self.live_runs else step
        self._over = False

    def rewind(self) -> None:
        """Allow a replay that has reached its end to be played again from the beginning."""
        self._over = False

    def turn(self, path: str, value: Any, at: int = 0) -> None:
        """Set a path of the steered world from its next step on, or from a later one.

        Raises ScenarioError if that is not allowed.
        """
        live_run = self.live_runs[self.steered]
        live_run.change({path: live_run.scenario.rounded_like(path, value)}, at)

    @property
    def upcoming_scenario(self) -> Scenario | None:
        """The scenario of the steered world from its next step on; None if no world is live."""
        if not self.live_runs:
            return None
        live_run = self.live_runs[self.steered]
        scenario, upcoming = live_run.scenario, live_run.upcoming
        if self._current is None or self._current[0] is not scenario or self._current[1] != upcoming:
            self._current = scenario, upcoming, scenario.at(upcoming)
        return self._current[2]

    def value(self, path: str) -> Any:
        """Return the value at a path in the steered world from its next step on."""
        scenario = self.upcoming_scenario
        return None if scenario is None else scenario.number(path)

    def fork(self, world: int, step: int) -> None:
        """Fork a world after a step, beside it; the knobs then act on the fork.

        The fork replaces a second world, so that a fork of a fork replaces its parent. It is computed on its parent's
        device and threads. Raises EcosystemError if the step's models were not kept or no step would follow.
        """
        view = self.views[world]
        if view is None:
            raise EcosystemError("this world has not opened yet; fork it when it has.")
        parent = Run.open(view.run.path)
        parent.store.require(step)
        holder = parent.store.owning_store(step)
        if self._folder in holder.folder.resolve().parents:
            holder.pin(step)  # the step under way would otherwise delete the models of the last step
        scenario = view.scenario.forked(step, {}, base=parent.base)
        if scenario.steps <= step:
            raise EcosystemError(f"no step would follow: the run has {scenario.steps} steps. Fork an earlier one.")
        machine = Machine.choose(parent.machine.device, parent.machine.threads)
        stored = self.stored[world : world + 1] or self.stored[:1]
        staying = [] if stored else self.live_runs[:1]
        for other in self.live_runs[len(staying) :]:
            other.close()
        forked = self._open(scenario, machine, parent.base, Branch(parent, step, scenario))
        self.knobs = self.knobs or knobs_of(scenario)
        self.stored, self.live_runs = stored, [*staying, forked]
        self.steered, self.shown = len(staying), None
        self.news()

    def keep(self, live_run: LiveRun) -> Path:
        """Copy a live world to where ``ecosystem run`` would put it; return the folder (see :meth:`LiveRun.keep`)."""
        return live_run.keep(self.config.out)

    def close(self) -> None:
        """Stop the live worlds, and delete their folders once they have stopped. Returns immediately."""
        for live_run in self._begun:
            live_run.close()

        def tidy() -> None:
            for live_run in self._begun:
                live_run.join(PATIENCE)
            shutil.rmtree(self._folder, ignore_errors=True)

        with self.apart():
            threading.Thread(target=tidy, name="tidy").start()
