"""What a person sees while a study is under way: how many runs are done, which are running, and how long it takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

import click
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ecosystem.studies.jobs import Outcome

_SHOWN = 12  # runs under way, at most, that have a line of their own


class Board:
    """One screen for the whole study on a terminal; elsewhere a line for every run that ends, and some between."""

    HEARTBEAT_SECONDS = 10.0

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self._quiet, self._to_stderr = quiet, json
        console = Console(stderr=True)
        self._live = Live(console=console, transient=True, auto_refresh=False) if console.is_terminal else None
        if quiet:
            self._live = None
        self._runs: Sequence[tuple[str, Path, int]] = []
        self._there, self._name = 0, ""
        self._running: dict[int, float] = {}
        self._outcomes: list[Outcome] = []
        self._told: set[int] = set()
        self._began = self._spoke = self._drawn = time.monotonic()
        self._at_start = 0
        self._done: list[int] = []  # committed steps by run, kept once a run has ended

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

    def begin(self, name: str, runs: Sequence[tuple[str, Path, int]], there: int) -> None:
        """Learn which runs there are to do (label, folder, steps) and how many were there already."""
        self._name, self._runs, self._there = name, runs, there
        self._began = self._spoke = time.monotonic()
        self._done = [committed(folder) for _, folder, _ in runs]
        self._at_start = sum(self._done)
        self._told = set()
        already = f" {there} are there already." if there else ""
        self.say(f"{name}: {len(runs)} run{'s' if len(runs) != 1 else ''} to do.{already}")

    def watch(self, running: dict[int, float], outcomes: list[Outcome]) -> None:
        """Learn what is under way and what has ended."""
        self._running, self._outcomes = running, outcomes
        for number, outcome in enumerate(outcomes):
            if number not in self._told and (outcome.run or outcome.error):
                self._told.add(number)
                self._done[number] = self._runs[number][2]
                again = f" at attempt {outcome.attempts}" if outcome.attempts > 1 else ""
                if outcome.error:
                    self.say(f"  failed: {self._runs[number][0]}{again}: {outcome.error}")
                elif self._live is None:
                    self.say(f"  {self._runs[number][0]}: {outcome.seconds:.1f} s{again}. {self._state()}")
                    self._spoke = time.monotonic()
        self.refresh()

    def refresh(self) -> None:
        """Draw the screen anew, at most twice a second; elsewhere say how far it is if nothing was said for long."""
        now = time.monotonic()
        if now - self._drawn < 0.5:
            return
        self._drawn = now
        for number in self._running:
            self._done[number] = committed(self._runs[number][1])
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
            parts.append(f"about {clock(left)} left")
        return ", ".join(parts)

    def seconds_left(self) -> float | None:
        """Return how long it will take at the pace so far; None before the first step is committed."""
        total, done = sum(max(0, steps) + 1 for _, _, steps in self._runs), sum(self._done) + len(self._told)
        made = sum(self._done) - self._at_start
        if made <= 0:
            return None
        return (time.monotonic() - self._began) * (total - done) / made

    def _screen(self) -> Group:
        failed = sum(bool(outcome.error) for outcome in self._outcomes)
        steps, done = sum(steps for _, _, steps in self._runs), sum(self._done)
        head = Text(f"{self._name}: {self._state()}, {clock(time.monotonic() - self._began)} so far")
        if failed:
            head.append(f", {failed} failed", style="red")
        rows = Table.grid(padding=(0, 2))
        for number, began in list(self._running.items())[:_SHOWN]:
            label, _, last = self._runs[number]
            at = max(0, self._done[number])
            rows.add_row(
                Text(label),
                ProgressBar(total=last, completed=at, width=24),
                f"step {at}/{last}",
                clock(time.monotonic() - began),
            )
        return Group(head, ProgressBar(total=max(1, steps), completed=max(0, done), width=60), rows)


def committed(folder: Path) -> int:
    """Return the last committed step of a run folder by the names of its records alone (-1: none)."""
    return len(list((folder / "commits").glob("[0-9]*.json"))) - 1


def clock(seconds: float) -> str:
    """Return a length of time as people say it."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
