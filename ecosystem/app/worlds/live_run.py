"""A live world, stepped in its own thread; every step is committed to a folder that a :class:`RunView` reads.

The page's thread only makes requests (step, pause, change) and never waits. The committed steps equal, bit for bit,
those of ``ecosystem run`` for the scenario with the changes made so far.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ecosystem.app.worlds.keeping import kept
from ecosystem.app.worlds.run_view import RunView
from ecosystem.corpus.schema import Snapshot
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.runs.branch import Branch
from ecosystem.runs.environment import Machine
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario

State = Literal["opening", "ready", "stepping", "paused", "finished", "failed", "closed"]
EVERY = 0.5  # seconds between progress reports inside a step; each costs the page some hundredths of a second


class Closed(Exception):
    """Raised inside a step to abandon it when the session is closed."""


@dataclass(frozen=True)
class Progress:
    """The current task inside a step, and how much of its total is done."""

    what: str = ""
    done: int = 0
    total: int = 0


class LiveRun:
    """A world that steps on request.

    Its thread calls ``news`` whenever a step ends, and ``progressed`` on progress inside a step that is not quick.
    ``state``, ``progress``, ``error`` (a sentence) and ``view`` (None until the web has
    opened) may be read at any time.
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
        self.progress = Progress("loading of the libraries" if branch is None else "")
        self.error: str | None = None
        self.view: RunView | None = None
        self.seconds = 0.0  # duration of the last step
        self.branch, self.machine, self.base = branch, machine, base
        self._out, self._cache = out, cache
        self._asking = threading.RLock()  # playing and clicks may come from different threads
        self._writing = threading.Lock()  # held while a step is being computed and written
        self._asked, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._under_way = 0  # the step that was last begun
        self._requested = 0  # steps up to this one are made without further requests
        self._reported = 0.0
        self._thread = threading.Thread(target=self._work, name=f"world {scenario.name}", daemon=True)
        self._thread.start()

    # Requests from the page.

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

    @property
    def target(self) -> int:
        """The last step that was requested, or begun, or made."""
        return max(self._requested, self._under_way, self.t, 0)

    @property
    def waiting(self) -> int:
        """The number of requested steps that have not begun."""
        return self.target - max(self._under_way, self.t, 0)

    def advance(self) -> bool:
        """Begin a step unless one is under way or none is left; return whether one was begun."""
        with self._asking:
            if self.state != "ready":
                return False
            self._under_way = max(self.t, 0) + 1
            self.state = "stepping"
            self._asked.set()
        return True

    def request(self, step: int) -> None:
        """Make the steps up to this one, or up to the last: at once, or when the world has opened or a step ended."""
        with self._asking:
            self._requested = max(self._requested, min(step, self.scenario.steps))
            ready = self.state == "ready" and self.t < self._requested
        if not (ready and self.advance()):
            self._progressed()

    def withdraw(self) -> None:
        """Withdraw the requests for steps that have not begun."""
        with self._asking:
            self._requested = 0
        self._progressed()

    def pause(self) -> None:
        """Pause the step under way at its next progress report, or at its end."""
        with self._asking:
            if self.state != "stepping":
                return
            self._resumed.clear()
            self.state = "paused"
        self.news()

    def resume(self) -> None:
        """Resume the paused step."""
        with self._asking:
            if self.state != "paused":
                return
            self.state = "stepping"
            self._resumed.set()
        self.news()

    def change(self, values: Mapping[str, Any], at: int = 0) -> None:
        """Set dotted paths from the next step to begin, or from a later one: a timed change of the scenario.

        Raises ScenarioError, and changes nothing, if a value is not allowed or no step will follow.
        """
        with self._asking:
            start = max(at, self.upcoming)
            if self.state in ("failed", "closed") or start > self.scenario.steps:
                raise ScenarioError(
                    f"no step of this world will begin after step {start - 1}, so a change would have no "
                    "effect; fork it at an earlier step, or Reset."
                )
            self.scenario = self.scenario.forked(start - 1, values, base=self.base, called="this world")
            if self.view is not None:
                self.view.scenario = self.scenario
        self.news()

    def keep(self, out: Path) -> Path:
        """Write the steps so far where ``ecosystem run`` would, and return the run folder.

        Waits for a step under way. A fork is written in full, with its parent's steps, as a run with a timed change.
        Raises EcosystemError, and leaves nothing behind, if no step was committed, the run folder exists or it cannot
        be written.
        """
        while not self._writing.acquire(timeout=EVERY):
            if self._over():
                raise EcosystemError("this world was closed during a step; nothing was written.")
        try:
            if self.view is None or self.view.run.path != self.folder:
                raise EcosystemError("this world has made no step of its own yet; there is nothing to keep.")
            return kept(Store(self.folder), self.scenario, self.base, out)
        finally:
            self._writing.release()

    def close(self) -> None:
        """Stop for good; a step under way is abandoned."""
        with self._asking:
            self.state = "closed"
            self._resumed.set()
            self._asked.set()

    def join(self, seconds: float | None = None) -> None:
        """After :meth:`close`, wait until the thread has ended and the folder is not being copied."""
        self._thread.join(seconds)
        if self._writing.acquire(timeout=-1 if seconds is None else seconds):
            self._writing.release()

    # In the thread.

    def _work(self) -> None:
        steps: Generator[Snapshot, Scenario | None, None] | None = None
        try:
            if self.branch is None:
                steps = self._begin()
                next(steps)
                self.progress = Progress("layout of the sites")
                self._progressed()
                self._show(RunView(Run.open(self.folder), self.scenario))
                self.progress = Progress()
            else:  # built at its first step; until then its parent's steps are shown
                self._show(RunView(self.branch.parent, self.scenario, through=self.branch.step))
            while self._next():
                started = time.monotonic()
                self._reported = started  # no report from quick steps: drawing it would delay them
                with self._writing:
                    if steps is None:
                        steps = self._begin()
                        last = next(steps).t
                    else:
                        last = steps.send(self.scenario).t
                    if last == self.scenario.steps:
                        next(steps, None)  # writes the site graph
                    self._resumed.wait()  # for a pause after the last report
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
            self._fail(f"the world failed: {type(error).__name__}: {error}")
            raise
        finally:
            if steps is not None:
                steps.close()  # releases the lock of the folder
            self.news()

    def _show(self, view: RunView) -> None:
        _ = view.places, view.links  # lay out the web here rather than when it is drawn
        with self._asking:
            view.scenario, self.view = self.scenario, view

    def _begin(self) -> Generator[Snapshot, Scenario | None, None]:
        scenario = self.scenario  # read once: a knob may be turned meanwhile
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
        """Wait for a request to step; return False if none will follow."""
        more = self.t < self.scenario.steps
        with self._asking:
            if self._over():
                return False
            at_once = more and self.t < self._requested
            if at_once:
                self._under_way = max(self.t, 0) + 1
                if self.state != "paused":  # a pause requested as the last step ended holds for the next
                    self.state = "stepping"
            else:
                self.state = "ready" if more else "finished"
                self._resumed.set()
        self.news()
        if more and not at_once:
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
        """Record the progress of a step; wait while it is paused, raise Closed if the session was closed."""
        opens = what != self.progress.what and self.state == "opening"  # few phases, of seconds to minutes
        self.progress = Progress(what, done, total)
        if opens or time.monotonic() - self._reported > EVERY:
            self._reported = time.monotonic()
            self._progressed()
        self._resumed.wait()
        if self._over():
            raise Closed
