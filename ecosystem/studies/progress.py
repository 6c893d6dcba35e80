"""The progress of a study: finished and running runs, and the time left."""

from __future__ import annotations

import math
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
from ecosystem.formats import format_duration, visible
from ecosystem.input_files import is_url
from ecosystem.runs.remote.places import last_step
from ecosystem.studies.executors.jobs import JobResult

_SHOWN = 12  # most running runs with a line on the screen
_PARALLEL_REQUESTS = 16  # at the start of a study
_REQUEST_SECONDS = 5.0  # between two requests to an object store about one run
_POLL_SECONDS = 0.2  # longest time of one poll
_REFRESH_SECONDS = 0.5


@dataclass(frozen=True)
class PlannedRun:
    """A run to execute: its name in listings, its folder or URL, its last step, and its branch point."""

    label: str
    place: str
    steps: int
    branch_step: int = -1  # the last step shared with its parent; -1: no parent


class StepTracker:
    """Counts the committed steps of the runs of a study and estimates the time left.

    All times are seconds of the caller's clock.
    """

    def __init__(self, runs: Sequence[PlannedRun]) -> None:
        self._runs = runs
        with ThreadPoolExecutor(_PARALLEL_REQUESTS) as pool:
            committed = pool.map(last_committed, [run.place for run in runs])
            self.last = [max(run.branch_step, step) for run, step in zip(runs, committed, strict=True)]
        self._first = list(self.last)
        self._polled = [-math.inf] * len(runs)  # when each run was last polled
        self._results: Sequence[JobResult] = [JobResult() for _ in runs]
        self.running: dict[int, float] = {}  # number of a run → when it began
        self.ended: dict[int, float] = {}  # number of a run → when it ended
        # The runs that began first → when their first step was seen, and its number.
        self._first_seen: dict[int, tuple[float, int] | None] = {}
        self._slots = 0  # number of parallel runs

    def update(self, running: dict[int, float], results: Sequence[JobResult], now: float) -> list[int]:
        """Update the start times of running runs and the results of all runs; return the runs that just ended."""
        if not self._slots:
            self._first_seen = dict.fromkeys(running)
        self._slots = max(self._slots, len(running))
        self.running, self._results = running, results
        ended = [number for number, result in enumerate(results) if result.ended and number not in self.ended]
        for number in ended:
            self.ended[number] = now
            if results[number].run:
                self.last[number] = self._runs[number].steps
        return ended

    def poll(self, now: float) -> None:
        """Count the steps of running runs, least recently polled first; limit the requests to object stores."""
        started = time.monotonic()
        for number in sorted(self.running, key=self._polled.__getitem__):
            place = self._runs[number].place
            if not is_url(place) or now - self._polled[number] > _REQUEST_SECONDS:
                self._poll_run(number, place, now)
            if time.monotonic() - started > _POLL_SECONDS:
                break

    def _poll_run(self, number: int, place: str, now: float) -> None:
        self.last[number] = max(self.last[number], last_committed(place))
        self._polled[number] = now
        if number in self._first_seen and self._first_seen[number] is None and self._own_steps(number) > 0:
            self._first_seen[number] = now, self.last[number]

    def seconds_left(self, now: float) -> float | None:
        """Estimate the time of the remaining steps from the pace so far; None until that is known.

        The time before the first steps of the first runs (to start processes and import libraries) does not recur. It
        is used only if no other time is known.
        """
        left = [run.steps - self.last[i] for i, run in enumerate(self._runs) if i not in self.ended]
        pace = self._seconds_per_step(now)
        return None if pace is None else pace * max(sum(left) / max(1, self._slots), *left, 0)

    def _seconds_per_step(self, now: float) -> float | None:
        measured = [
            i for i in range(len(self._runs)) if self._own_steps(i) > 0 and (i in self.ended or i in self.running)
        ]
        times = [self._recurring_time(number, now) for number in measured]
        if not any(steps for _, steps in times):
            times = [(self._results[i].seconds, self._own_steps(i)) for i in measured if i in self.ended]
        seconds, steps = sum(seconds for seconds, _ in times), sum(steps for _, steps in times)
        return seconds / steps if steps else None

    def _recurring_time(self, number: int, now: float) -> tuple[float, int]:
        """Return the seconds of a run that recur in other runs, and the number of steps made in them."""
        if number in self._first_seen:
            seen = self._first_seen[number]
            return (0.0, 0) if seen is None else (self.ended.get(number, now) - seen[0], self.last[number] - seen[1])
        seconds = self._results[number].seconds if number in self.ended else now - self.running[number]
        return seconds, self._own_steps(number)

    def _own_steps(self, number: int) -> int:
        return self.last[number] - self._first[number]


class StudyProgress:
    """Shows a live screen on a terminal; without one, prints a line for every run that ends.

    Without a terminal, the state is also printed after HEARTBEAT_SECONDS without output.
    """

    HEARTBEAT_SECONDS = 10.0

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self._quiet, self._to_stderr = quiet, json
        console = Console(stderr=True)
        live = console.is_terminal and not quiet
        self._live = Live(console=console, transient=True, auto_refresh=False) if live else None
        self._name = ""
        self._runs: Sequence[PlannedRun] = []
        self._results: Sequence[JobResult] = []
        self._tracker = StepTracker([])
        self._began = self._printed = self._refreshed = time.monotonic()

    def __enter__(self) -> StudyProgress:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()

    def say(self, text: str) -> None:
        """Print a permanent line, above the live screen if there is one."""
        if not self._quiet:
            self._print(text, err=self._to_stderr)

    def say_failed(self, label: str, error: str, attempts: int = 1) -> None:
        """Say why a run is left out, also where nothing but the result is to be printed."""
        times = f" at attempt {attempts}" if attempts > 1 else ""
        self._print(f"  failed: {label}{times}: {error}", err=self._to_stderr or self._quiet)

    def _print(self, text: str, *, err: bool) -> None:
        text = visible(text)
        if self._live is not None and self._live.is_started:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=err)

    def begin(self, name: str, runs: Sequence[PlannedRun], finished: int) -> None:
        """Start to show these runs; ``finished`` is the number of runs that were finished before."""
        self._name, self._runs, self._results = name, runs, []
        self._began = self._printed = time.monotonic()
        self._tracker = StepTracker(runs)
        already = f" {finished} already finished." if finished else ""
        self.say(f"{name}: {len(runs)} run{'s' if len(runs) != 1 else ''} to do.{already}")

    def watch(self, running: dict[int, float], results: list[JobResult]) -> None:
        """Update the display from the start times of running runs and all results; report runs that ended."""
        self._results = results
        for number in self._tracker.update(running, results, time.monotonic()):
            label, result = self._runs[number].label, results[number]
            if result.error:
                self.say_failed(label, result.error, result.attempts)
            elif self._live is None:
                attempts = f" at attempt {result.attempts}" if result.attempts > 1 else ""
                self.say(f"  {label}: {result.seconds:.1f} s{attempts}. {self._state()}")
                self._printed = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Redraw the screen, at most twice a second; without a screen, print the state after a long silence."""
        now = time.monotonic()
        if now - self._refreshed < _REFRESH_SECONDS:
            return
        self._refreshed = now
        self._tracker.poll(now)
        if self._live is not None:
            self._live.update(self._screen(now), refresh=True)
        elif now - self._printed > self.HEARTBEAT_SECONDS:
            self._printed = now
            self.say(f"  {self._state()}")

    def _state(self) -> str:
        ended = len(self._tracker.ended)
        state = f"{ended} of {len(self._runs)} runs"
        left = self._tracker.seconds_left(time.monotonic())
        if left is None or ended == len(self._runs):
            return state
        return f"{state}, about {format_duration(left)} left"

    def _screen(self, now: float) -> Group:
        failed = sum(bool(result.error) for result in self._results)
        steps, done = sum(run.steps for run in self._runs), sum(self._tracker.last)
        head = Text(f"{self._name}: {self._state()}, {format_duration(now - self._began)} so far")
        if failed:
            head.append(f", {failed} failed", style="red")
        rows = Table.grid(padding=(0, 2))
        for number, began in list(self._tracker.running.items())[:_SHOWN]:
            run, last = self._runs[number], max(0, self._tracker.last[number])
            rows.add_row(
                Text(run.label),
                ProgressBar(total=run.steps, completed=last, width=24),
                f"step {last}/{run.steps}",
                format_duration(now - began),
            )
        return Group(head, ProgressBar(total=max(1, steps), completed=max(0, done), width=60), rows)


def last_committed(place: str) -> int:
    """Return the last committed step of a run (-1: none, or an object store that does not respond)."""
    try:
        return last_step(place)
    except EcosystemError:
        return -1
