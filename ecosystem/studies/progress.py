"""What a person sees while a study is under way: how many runs are done, which are running, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ecosystem.errors import EcosystemError
from ecosystem.formats import format_duration
from ecosystem.studies.executors.jobs import Outcome
from ecosystem.studies.object_store import is_url, last_step

_SHOWN = 12  # runs under way, at most, that have a line of their own
_ASKED_AT_ONCE = 16  # runs, when a study begins
_ASKING_SECONDS = 5.0  # between two questions to an object store about one run
_LOOKING_SECONDS = 0.2  # at a time, however many runs are under way


@dataclass(frozen=True)
class Entry:
    """One run to be made: how a person names it, where it goes, its last step, and the step after which it forks."""

    label: str
    place: str
    steps: int
    fork: int = -1


class Board:
    """One screen for the whole study on a terminal; elsewhere a line for every run that ends, and some between."""

    HEARTBEAT_SECONDS = 10.0

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self._quiet, self._to_stderr = quiet, json
        console = Console(stderr=True)
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        if quiet:
            self._live = None
        self._runs: Sequence[Entry] = []
        self._there, self._name = 0, ""
        self._running: dict[int, float] = {}
        self._outcomes: list[Outcome] = []
        self._told: set[int] = set()
        self._began = self._spoke = self._drawn = time.monotonic()
        self._first: list[int] = []  # the last committed step of each run when the study began
        self._done: list[int] = []  # and now
        self._looked: list[float] = []  # when that was last asked
        self._early: dict[int, tuple[float, int]] = {}  # of the runs that began first: when a step was seen, and which
        self._ended: dict[int, float] = {}  # when
        self._slots = 0  # runs at a time

    def __enter__(self) -> Board:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._quiet:
            return
        if self._live is not None and self._live.is_started:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=self._to_stderr)

    def begin(self, name: str, runs: Sequence[Entry], there: int) -> None:
        """Learn which runs there are to do, and how many were there already."""
        self._name, self._runs, self._there = name, runs, there
        self._began = self._spoke = time.monotonic()
        self._looked = [0.0] * len(runs)
        with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
            last = pool.map(committed, [entry.place for entry in runs])
            self._done = [max(entry.fork, step) for entry, step in zip(runs, last, strict=True)]
        self._first = list(self._done)
        self._told, self._early, self._ended, self._slots = set(), {}, {}, 0
        already = f" {there} are there already." if there else ""
        self.say(f"{name}: {len(runs)} run{'s' if len(runs) != 1 else ''} to do.{already}")

    def watch(self, running: dict[int, float], outcomes: list[Outcome]) -> None:
        """Learn what is under way and what has ended."""
        self._running, self._outcomes = running, outcomes
        if not self._slots:
            self._early = dict.fromkeys(running, (0.0, -1))
        self._slots = max(self._slots, len(running))
        for number, outcome in enumerate(outcomes):
            if number not in self._told and (outcome.run or outcome.error):
                self._told.add(number)
                self._ended[number] = time.monotonic()
                entry = self._runs[number]
                again = f" at attempt {outcome.attempts}" if outcome.attempts > 1 else ""
                if outcome.error:
                    self.say(f"  failed: {entry.label}{again}: {outcome.error}")
                    continue
                self._done[number] = entry.steps
                if self._live is None:
                    self.say(f"  {entry.label}: {outcome.seconds:.1f} s{again}. {self._state()}")
                    self._spoke = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Draw the screen anew, at most twice a second; elsewhere say how far it is if nothing was said for long."""
        now = time.monotonic()
        if now - self._drawn < 0.5:
            return
        self._drawn = now
        for number in sorted(self._running, key=self._looked.__getitem__):  # the longest unseen first
            place, looked = self._runs[number].place, self._looked[number]
            if not is_url(place) or now - looked > _ASKING_SECONDS:
                self._done[number] = max(self._done[number], committed(place))
                self._looked[number] = now
                if number in self._early and self._early[number][1] < 0 and self._done[number] > self._first[number]:
                    self._early[number] = now, self._done[number]
            if time.monotonic() - now > _LOOKING_SECONDS:
                break
        if self._live is not None:
            self._live.update(self._screen(), refresh=True)
        elif now - self._spoke > self.HEARTBEAT_SECONDS:
            self._spoke = now
            self.say(f"  {self._state()}")

    def _state(self) -> str:
        ended = len(self._told)
        parts = [f"{ended} of {len(self._runs)} runs"]
        left = self.seconds_left()
        if left is not None and ended < len(self._runs):
            parts.append(f"about {format_duration(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Return how long it will take at the pace of the steps so far; None before that can be told.

        Of the runs that begin first, what comes before their first step (processes start and import) is not counted if
        any other time is known, since it does not come again.
        """
        left = [e.steps - self._done[i] for i, e in enumerate(self._runs) if i not in self._told]
        pace = self._pace()
        return None if pace is None else pace * max(sum(left) / max(1, self._slots), *left, 0)

    def _pace(self) -> float | None:
        """Return the seconds that a step of one run takes."""
        now, known, whole = time.monotonic(), (0.0, 0), (0.0, 0)  # seconds and steps
        for number, done in enumerate(self._done):
            steps, ended = done - self._first[number], number in self._ended
            if steps <= 0 or not (ended or number in self._running):
                continue
            seconds = self._outcomes[number].seconds if ended else now - self._running[number]
            if ended:
                whole = whole[0] + seconds, whole[1] + steps
            if number in self._early:
                began, step = self._early[number]
                seconds, steps = (self._ended.get(number, now) - began, done - step) if step >= 0 else (0.0, 0)
            known = known[0] + seconds, known[1] + steps
        seconds, steps = known if known[1] else whole
        return seconds / steps if steps else None

    def _screen(self) -> Group:
        failed = sum(bool(outcome.error) for outcome in self._outcomes)
        steps, done = sum(entry.steps for entry in self._runs), sum(self._done)
        head = Text(f"{self._name}: {self._state()}, {format_duration(time.monotonic() - self._began)} so far")
        if failed:
            head.append(f", {failed} failed", style="red")
        rows = Table.grid(padding=(0, 2))
        for number, began in list(self._running.items())[:_SHOWN]:
            label, last, at = self._runs[number].label, self._runs[number].steps, max(0, self._done[number])
            rows.add_row(
                Text(label),
                ProgressBar(total=last, completed=at, width=24),
                f"step {at}/{last}",
                format_duration(time.monotonic() - began),
            )
        return Group(head, ProgressBar(total=max(1, steps), completed=max(0, done), width=60), rows)


def committed(place: str) -> int:
    """Return the last committed step of a run (-1: none, or an object store that does not answer now)."""
    try:
        return last_step(place)
    except EcosystemError:
        return -1
