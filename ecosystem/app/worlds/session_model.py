"""What Mesa's SolaraViz plays: a Mesa model whose step lets the worlds on the page go on, or shows the next frame.

SolaraViz calls ``step()`` from its buttons and, while playing, over and over at its interval. Neither may wait for a
step that trains GPT-2, so ``step()`` only sees to it that one is under way: playing is a metronome, and a world steps
at most once a beat. On *Reset* SolaraViz makes the model anew from flat keyword arguments, the values of the knobs.
"""

from __future__ import annotations

import shutil
import tempfile
import threading
import weakref
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import mesa

from ecosystem.app.knobs import knobs_of
from ecosystem.app.worlds.live_run import LiveRun
from ecosystem.app.worlds.run_view import RunView
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine
from ecosystem.runs.run import Run
from ecosystem.scenario.entries import Knob
from ecosystem.scenario.presets import presets
from ecosystem.scenario.scenario import Scenario

SEEDS = 10**9  # the largest seed
PATIENCE = 20.0  # seconds for a world to stop: its thread may wait for ever for a browser that has gone
SEED, PRESET = "seed", "model"  # arguments of a session beside its knobs


@dataclass(frozen=True)
class SessionConfig:
    """What is to be seen: stored runs, or a scenario to be lived, with the places and the machine it needs."""

    runs: tuple[Path, ...] = ()
    scenario: Scenario | None = None
    base: Path = Path()
    machine: Machine = field(default_factory=lambda: Machine("cpu", 1))
    out: Path = Path("outputs")  # where a world that is kept goes

    @property
    def title(self) -> str:
        """What the page is called."""
        if self.scenario is not None:
            return self.scenario.name
        return " and ".join(f"{path.parent.name}/{path.name}" for path in self.runs)


@cache
def stored(path: Path) -> RunView:
    """Read a stored run and lay out its web, once for all tabs."""
    view = RunView(Run.open(path))
    _ = view.places, view.links
    return view


class SessionModel(mesa.Model):
    """One or two worlds on a page: stored ones (``stored``), or live ones (``live_runs``), or one of each.

    ``shown`` is the step that is looked at (None: the last), ``steered`` the number of the world that knobs act on.
    Stored worlds are shown from step 0 on, also after *Reset*.
    """

    config: ClassVar[SessionConfig]
    news: ClassVar[staticmethod[[], None]]
    progressed: ClassVar[staticmethod[[], None]] = staticmethod(lambda: None)
    watched: ClassVar[staticmethod[[], bool]] = staticmethod(lambda: True)  # whether the tab is connected

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(rng=0)  # nothing draws from it
        self.shown: int | None = None if self.config.scenario is not None else 0
        self._over = False  # whether a replay has just come to its end
        self.stored = [stored(path) for path in self.config.runs]
        for view in self.stored:
            view.refresh()
        self.live_runs: list[LiveRun] = []
        self._begun: list[LiveRun] = []  # every live world so far, those that were replaced included
        self.steered = 0
        self.knobs: dict[str, Knob] = {}
        self.refused = ""  # what the page asked for and cannot have, as a sentence
        self._force: tuple[Scenario, int, Scenario] | None = None  # a scenario, a step, and what holds then
        scenario = self.config.scenario and self._asked(self.config.scenario, kwargs)
        self._folder = Path(tempfile.mkdtemp(prefix="ecosystem-")).resolve()
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)  # also where close() is never called
        if scenario is not None:
            self.live_runs = [self._open(scenario, self.config.machine, self.config.base)]

    def _asked(self, scenario: Scenario, arguments: dict[str, Any]) -> Scenario:
        """Return the scenario with the models, the seed and the values of knobs that the page asks for.

        An argument is a value or, as the page's widgets give it, something that has one.
        """
        given = {name: getattr(argument, "value", argument) for name, argument in arguments.items()}
        values: dict[str, Any] = {}
        seed = str(given.get(SEED, "")).strip()
        if seed.isascii() and seed.isdigit() and int(seed) <= SEEDS:
            values["seed"] = int(seed)
        elif SEED in given:
            self.refused = f'seed "{seed}": give a whole number from 0 to {SEEDS}; {scenario.seed} was taken.'
        if given.get(PRESET) in presets(self.config.base):
            values |= {f"models.{name}.preset": given[PRESET] for name in scenario.models}
        self.knobs = knobs_of(scenario)
        for name, knob in self.knobs.items():
            if given.get(name) is not None:
                value = given[name] if knob.choices is None else knob.choices.get(given[name])
                if value is None:  # what stood there was none of the choices
                    continue
                values[knob.path] = scenario.like(knob.path, value)
        try:
            return scenario.override(values, base=self.config.base)
        except ScenarioError as error:  # knobs that are allowed one by one may not be so together
            self.refused = f"{error} This world is as in the file."
            return scenario

    def _open(self, scenario: Scenario, machine: Machine, base: Path, branch: Branch | None = None) -> LiveRun:
        out = self._folder / str(len(self._begun))
        live_run = LiveRun(scenario, out, machine, self.news, base=base, branch=branch, progressed=self.progressed)
        self._begun.append(live_run)
        return live_run

    # What is seen.

    @property
    def views(self) -> list[RunView | None]:
        """The worlds in the order of the page; None: one that has not opened yet."""
        return [*self.stored, *(live_run.view for live_run in self.live_runs)]

    def live_run(self, number: int) -> LiveRun | None:
        """Return the live world at a place of the page; None where a stored one is."""
        live = number - len(self.stored)
        return self.live_runs[live] if live >= 0 else None

    @property
    def last(self) -> int:
        """The last step that can be looked at in any world; -1: none yet."""
        return max((view.last for view in self.views if view is not None), default=-1)

    @property
    def front(self) -> int:
        """The last step of the live worlds or, where there are none, of the stored ones; -1: none yet."""
        return max((live_run.t for live_run in self.live_runs), default=self.last)

    @property
    def upcoming(self) -> int:
        """The next step that the steered world begins on; 0 where no world is live."""
        return self.live_runs[self.steered].upcoming if self.live_runs else 0

    @property
    def step_shown(self) -> int:
        """The step that is looked at."""
        return self.front if self.shown is None else min(self.shown, self.last)

    @property
    def steps(self) -> int:
        """The step that is looked at, for SolaraViz to show."""
        return max(0, self.step_shown)

    @steps.setter
    def steps(self, value: int) -> None:
        """Leave it: Mesa counts the calls of ``step()``, which are not the steps of a world."""

    @property
    def running(self) -> bool:
        """Whether a step can be asked for; SolaraViz stops playing where it cannot."""
        if self.live_runs:
            return any(r.state in ("opening", "ready", "stepping", "paused") for r in self.live_runs)
        return not self._over

    @running.setter
    def running(self, value: bool) -> None:
        """Leave it to the worlds."""

    # What is asked.

    def step(self) -> None:
        """Let the worlds that are behind go on by a step, if none is under way; of stored ones show the next frame."""
        if not self.live_runs:
            if not self._over:  # Mesa may ask for several at once
                self.look(self.step_shown + 1 if self.step_shown < self.last else 0)
                self._over = self.step_shown == self.last
            return  # Mesa has the page drawn again, after it has asked whether this is running
        if not self.watched():
            return
        active = [r for r in self.live_runs if r.state in ("opening", "ready", "stepping", "paused")]
        behind = min((r.t for r in active), default=0)  # a fork that is still opening is waited for
        for live_run in active:
            if live_run.t == behind and live_run.advance() and self.shown is not None:
                self.shown = None  # what comes is looked at; until then people may look at what they like
                self.news()

    def look(self, step: int) -> None:
        """Show a step; the last one of live worlds is followed when another comes."""
        self.shown = None if step >= self.front and self.live_runs else step
        self._over = False

    def rewind(self) -> None:
        """Let a replay that has come to its end be played again, from its beginning."""
        self._over = False

    def turn(self, path: str, value: Any) -> None:
        """Set a path of the steered world, from its next step on; raise ScenarioError where that is not allowed."""
        live_run = self.live_runs[self.steered]
        live_run.change({path: live_run.scenario.like(path, value)})

    def value(self, path: str) -> Any:
        """Return the value at a path in the steered world from its next step on."""
        live_run = self.live_runs[self.steered]
        scenario, upcoming = live_run.scenario, live_run.upcoming
        if self._force is None or self._force[0] is not scenario or self._force[1] != upcoming:
            self._force = scenario, upcoming, scenario.at(upcoming)
        return self._force[2].value(path)

    def fork(self, world: int, step: int) -> None:
        """Open a second live world that leaves another after a step, beside it; the knobs then act on the new one.

        It replaces a second world that was there before, and so a fork of a fork its parent. It is computed on what its
        parent was. Raises EcosystemError where the step's models were not kept or no step would follow.
        """
        view = self.views[world]
        if view is None:
            raise EcosystemError("this world has not opened yet; fork it when it has.")
        parent = Run.open(view.run.path)
        parent.store.require(step)
        holder = parent.store.owning_store(step)
        if self._folder in holder.folder.resolve().parents:
            holder.pin(step)  # it may be the last step, whose models the step under way would let go
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
        """Copy a live world to where ``ecosystem run`` would put it; return the place (:meth:`LiveRun.keep`)."""
        return live_run.keep(self.config.out)

    def close(self) -> None:
        """Stop the live worlds and, once they have stopped, delete their folders; returns at once."""
        for live_run in self._begun:
            live_run.close()

        def tidy() -> None:
            for live_run in self._begun:
                live_run.join(PATIENCE)
            shutil.rmtree(self._folder, ignore_errors=True)

        threading.Thread(target=tidy, name="tidy").start()
