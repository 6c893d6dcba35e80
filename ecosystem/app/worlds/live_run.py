"""A live world: stepped in a thread of its own, every step committed to a folder that a :class:`RunView` reads.

The page's thread only asks (one more step, pause, change this) and never waits. What is committed equals, bit for bit,
what ``ecosystem run`` gives for the scenario with the changes made so far.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ecosystem.app.worlds.run_view import RunView
from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.files import io_errors, relative_path
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import PRUNED, Store
from ecosystem.scenario.scenario import Scenario

State = Literal["opening", "ready", "stepping", "paused", "finished", "failed", "closed"]
EVERY = 0.5  # seconds between two reports of progress inside a step; each costs the page some hundredths


class Closed(Exception):
    """Raised inside a step to leave it, because the session was closed."""


@dataclass(frozen=True)
class Progress:
    """What a world is doing inside a step, and how much of it is done, of how much."""

    what: str = ""
    done: int = 0
    total: int = 0


class LiveRun:
    """A world that goes on when it is asked to; ``news`` is called from its thread when there is something to see.

    ``progressed`` is called when a step begins, and at progress inside it.

    ``state``, ``progress``, ``error`` (a sentence) and ``view`` (None until the web has opened) may be read any time.
    """

    def __init__(
        self,
        scenario: Scenario,
        out: Path,
        machine: Machine,
        news: Callable[[], None],
        *,
        base: Path = Path(),
        cache: str | Path | None = None,
        branch: Branch | None = None,
        progressed: Callable[[], None] = lambda: None,
    ) -> None:
        self.scenario, self.news, self._progressed = scenario, news, progressed
        self.folder = out
        self.state: State = "opening"
        self.progress = Progress()
        self.error: str | None = None
        self.view: RunView | None = None
        self.seconds = 0.0  # that the last step took
        self.branch, self.machine, self.base = branch, machine, base
        self._out, self._cache = out, cache
        self._asking = threading.RLock()  # a beat of the player may come from another thread than a click
        self._writing = threading.Lock()  # held while the folder is between two steps
        self._asked, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._under_way = 0  # the step that was last begun
        self._told = 0.0
        self._thread = threading.Thread(target=self._work, name=f"world {scenario.name}", daemon=True)
        self._thread.start()

    # What a page asks.

    @property
    def t(self) -> int:
        """The last committed step; -1 until the web has opened."""
        if self.view is None:
            return -1 if self.branch is None else self.branch.step
        return self.view.last

    @property
    def upcoming(self) -> int:
        """The next step to begin, from which a change made now takes effect; 1 until the web has opened."""
        if self.state in ("stepping", "paused"):
            return self._under_way + 1  # not from ``t``: the step is committed a moment before the state says so
        return max(self.t, 0) + 1

    def advance(self) -> bool:
        """Begin one step, unless one is under way or there is none left; return whether one was begun."""
        with self._asking:
            if self.state != "ready":
                return False
            self._under_way = max(self.t, 0) + 1
            self.state = "stepping"
            self._asked.set()
        self._progressed()
        return True

    def pause(self) -> None:
        """Stop inside the step under way, at the next place where it reports progress, or at its end."""
        with self._asking:
            if self.state != "stepping":
                return
            self._resumed.clear()
            self.state = "paused"
        self.news()

    def resume(self) -> None:
        """Go on with the step that was paused."""
        with self._asking:
            if self.state != "paused":
                return
            self.state = "stepping"
            self._resumed.set()
        self.news()

    def change(self, values: Mapping[str, Any]) -> None:
        """Set dotted paths from the next step to begin on: a timed change of the scenario.

        Raises ScenarioError where a value is not allowed, or no step will follow; nothing is changed then.
        """
        with self._asking:
            if self.state in ("failed", "closed") or self.upcoming > self.scenario.steps:
                raise ScenarioError(
                    f"no step of this world will begin after step {self.upcoming - 1}, so that nothing is left to "
                    "change; fork it at an earlier step, or Reset."
                )
            self.scenario = self.scenario.forked(self.upcoming - 1, values, base=self.base, called="this world")
            if self.view is not None:
                self.view.scenario = self.scenario
        self.news()

    def keep(self, out: Path) -> Path:
        """Write the steps so far where ``ecosystem run`` would have put them, as if it had; return the run folder.

        A step under way is waited for. What a fork has from its parent is copied too, so that the folder needs no other
        and is that of the timed change. Raises EcosystemError where nothing was committed, a run is there already or
        the place cannot be written; nothing is left there then.
        """
        while not self._writing.acquire(timeout=EVERY):
            if self._over():
                raise EcosystemError("this world was closed before the step under way had ended; nothing was written.")
        try:
            if self.view is None or self.view.run.path != self.folder:
                raise EcosystemError("this world has made no step of its own yet, so that there is nothing to keep.")
            target = folder_of(self.scenario, out)
            if target.exists():
                raise EcosystemError(
                    f"{target}: there is a run of this scenario already, with {max(0, Store(target).last())} of "
                    f"{self.scenario.steps} steps; nothing was written."
                )
            part = target.with_name(f".{target.name}.part")
            try:
                with io_errors(target):
                    self._copy(part, target)
                    part.rename(target)
            finally:
                shutil.rmtree(part, ignore_errors=True)
            return target
        finally:
            self._writing.release()

    def _copy(self, part: Path, target: Path) -> None:
        """Write a complete run folder at ``part`` that is to be moved to ``target``."""
        store = Store(self.folder)
        files = [(self.folder, name) for name in ("web.graphml", "web.gexf")]
        for commit in store.commits():
            holder = store.owning_store(commit.step).folder
            named = [name for name in commit.files if name.split("/")[0] not in PRUNED or (holder / name).exists()]
            files += [(holder, name) for name in (*named, f"commits/{commit.step:06d}.json")]
        for folder, name in files:
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / name, part / name)
        environment = {**Run(self.folder).environment, "base": relative_path(self.base, target)}
        (part / "environment.json").write_text(json.dumps(environment, indent=1), encoding="utf-8")
        (part / "scenario.toml").write_text(self.scenario.to_toml(), encoding="utf-8")

    def close(self) -> None:
        """Stop for good: a step under way is left and not committed."""
        with self._asking:
            self.state = "closed"
            self._resumed.set()
            self._asked.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended (after :meth:`close`) and the folder is no longer being copied."""
        self._thread.join(seconds)
        if self._writing.acquire(timeout=-1 if seconds is None else seconds):
            self._writing.release()

    # What happens in its thread.

    def _work(self) -> None:
        steps: Generator[Snapshot, Scenario | None, None] | None = None
        try:
            if self.branch is None:
                steps = self._begin()
                next(steps)
                self._show(RunView(Run.open(self.folder), self.scenario))
            else:  # it is built when its first step is asked for: until then it is its parent's past
                self._show(RunView(self.branch.parent, self.scenario, through=self.branch.step))
            while self._next():
                started = time.monotonic()
                self._told = started + EVERY  # most steps of a second have ended by then
                with self._writing:
                    if steps is None:
                        steps = self._begin()
                        last = next(steps).t
                    else:
                        last = steps.send(self.scenario).t
                    if last == self.scenario.steps:
                        next(steps, None)  # it draws the site graph again
                    self._resumed.wait()  # the pause may have come after the last report
                    if self.view is None or self.view.run.path != self.folder:
                        self._show(RunView(Run.open(self.folder), self.scenario))
                    else:
                        self.view.refresh()
                self.seconds, self.progress = time.monotonic() - started, Progress()
        except Closed:
            pass
        except EcosystemError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"the world stopped: {type(error).__name__}: {error}")
            raise
        finally:
            if steps is not None:
                steps.close()  # lets go of the folder
            self.news()

    def _show(self, view: RunView) -> None:
        _ = view.places, view.links  # laid out here rather than when they are drawn
        with self._asking:
            view.scenario, self.view = self.scenario, view

    def _begin(self) -> Generator[Snapshot, Scenario | None, None]:
        scenario = self.scenario  # as it is now: people may go on turning knobs
        branch = self.branch and Branch(self.branch.parent, self.branch.step, scenario)
        self.folder = folder_of(scenario, self._out)
        return begin(
            scenario,
            out=self._out,
            machine=self.machine,
            base=self.base,
            cache=self._cache,
            progress=self._report,
            branch=branch,
        )

    def _next(self) -> bool:
        """Wait to be asked for a step; return False when no more will follow."""
        more = self.t < self.scenario.steps
        with self._asking:
            if self._over():
                return False
            self.state = "ready" if more else "finished"
            self._resumed.set()
        self.news()
        if more:
            self._asked.wait()
            self._asked.clear()
        return more and not self._over()

    def _over(self) -> bool:
        return self.state == "closed"

    def _fail(self, sentence: str) -> None:
        with self._asking:
            if not self._over():
                self.state, self.error = "failed", sentence

    def _report(self, what: str, done: int, total: int) -> None:
        """Record the progress of a step under way; wait while it is paused, leave it when the session was closed."""
        self.progress = Progress(what, done, total)
        if (now := time.monotonic()) - self._told > EVERY:
            self._told = now
            self._progressed()
        self._resumed.wait()
        if self._over():
            raise Closed
