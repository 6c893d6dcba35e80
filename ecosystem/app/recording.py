"""A live world: stepped in a thread of its own, every step committed to a folder that a film reads.

The page's thread only asks (one more step, pause, change this) and never waits. What is committed equals, bit for bit,
what ``ecosystem run`` gives for the scenario with the changes made so far.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ecosystem.app.film import Film
from ecosystem.corpus.schema import Snapshot
from ecosystem.corpus.sources import CACHE
from ecosystem.errors import EcosystemError
from ecosystem.runs import Branch, Machine, Run, begin, folder_of
from ecosystem.scenario import Scenario

State = Literal["opening", "ready", "stepping", "paused", "finished", "failed", "closed"]
EVERY = 0.1  # seconds between two reports of progress inside a step


class Closed(Exception):
    """Raised inside a step to leave it: nobody looks any more."""


@dataclass(frozen=True)
class Progress:
    """What a world is doing inside a step, and how much of it is done, of how much."""

    what: str = ""
    done: int = 0
    total: int = 0


class Recording:
    """A world that goes on when it is asked to; ``news`` is called from its thread when there is something to see.

    ``state``, ``progress``, ``error`` (a sentence) and ``film`` (None until the web has opened) may be read any time.
    """

    def __init__(
        self,
        scenario: Scenario,
        out: Path,
        machine: Machine,
        news: Callable[[], None],
        *,
        base: Path = Path(),
        cache: Path = CACHE,
        branch: Branch | None = None,
    ) -> None:
        self.scenario, self.news = scenario, news
        self.folder = out
        self.state: State = "opening"
        self.progress = Progress()
        self.error: str | None = None
        self.film: Film | None = None
        self.seconds = 0.0  # that the last step took
        self.heard: Callable[[], None] = lambda: None  # called at progress inside a step, many times a second
        self._out, self._machine, self._base, self._cache, self._branch = out, machine, base, cache, branch
        self._asked, self._resumed = threading.Event(), threading.Event()
        self._resumed.set()
        self._told = 0.0
        self._thread = threading.Thread(target=self._work, name=f"world {scenario.name}", daemon=True)
        self._thread.start()

    # What a page asks.

    @property
    def t(self) -> int:
        """The last committed step; -1 until the web has opened."""
        return -1 if self.film is None else self.film.last

    def advance(self) -> None:
        """Begin one step, unless one is under way or there is none left."""
        if self.state == "ready":
            self.state = "stepping"
            self._asked.set()

    def pause(self) -> None:
        """Stop inside the step under way, at the next place where it reports progress."""
        if self.state == "stepping":
            self._resumed.clear()
            self.state = "paused"
            self.news()

    def resume(self) -> None:
        """Go on with the step that was paused."""
        if self.state == "paused":
            self.state = "stepping"
            self._resumed.set()
            self.news()

    def change(self, values: Mapping[str, Any]) -> None:
        """Set dotted paths from the next step to begin on: a timed change of the scenario.

        Raises ScenarioError where a value is not allowed; nothing is changed then.
        """
        under_way = self.state in ("stepping", "paused")
        step = max(self.t, 0) + under_way
        self.scenario = self.scenario.forked(step, values, base=self._base)
        if self.film is not None:
            self.film.scenario = self.scenario
        self.news()

    def close(self) -> None:
        """Stop for good: a step under way is left and not committed."""
        self.state = "closed"
        self._resumed.set()
        self._asked.set()

    def join(self, seconds: float | None = None) -> None:
        """Wait until the thread has ended (after :meth:`close`)."""
        self._thread.join(seconds)

    # What happens in its thread.

    def _work(self) -> None:
        steps: Generator[Snapshot, Scenario | None, None] | None = None
        try:
            if self._branch is None:
                steps = self._begin()
                next(steps)
                self.film = Film(Run.open(self.folder), self.scenario)
            else:  # it is built when its first step is asked for: until then it is its parent's past
                self.film = Film(self._branch.parent, self.scenario, through=self._branch.step)
            _ = self.film.places, self.film.links  # laid out here rather than when they are drawn
            while self._next():
                started = time.monotonic()
                if steps is None:
                    steps = self._begin()
                    next(steps)
                    self.film = Film(Run.open(self.folder), self.scenario)
                else:
                    steps.send(self.scenario)
                    self.film.refresh()
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

    def _begin(self) -> Generator[Snapshot, Scenario | None, None]:
        branch = self._branch and Branch(self._branch.parent, self._branch.step, self.scenario)
        self.folder = folder_of(self.scenario, self._out)
        return begin(
            self.scenario,
            out=self._out,
            machine=self._machine,
            base=self._base,
            cache=self._cache,
            progress=self._report,
            branch=branch,
        )

    def _next(self) -> bool:
        """Wait to be asked for a step; return False when no more will follow."""
        more = self.t < self.scenario.steps
        if self.state != "closed":
            self.state = "ready" if more else "finished"
            self.news()
            if more:
                self._asked.wait()
                self._asked.clear()
        return more and not self._over()

    def _over(self) -> bool:
        return self.state == "closed"

    def _fail(self, sentence: str) -> None:
        if self.state != "closed":
            self.state, self.error = "failed", sentence

    def _report(self, what: str, done: int, total: int) -> None:
        """Take the news of a step under way; wait here while it is paused, leave where nobody looks any more."""
        self.progress = Progress(what, done, total)
        if (now := time.monotonic()) - self._told > EVERY:
            self._told = now
            self.heard()
        self._resumed.wait()
        if self._over():
            raise Closed
