"""What a person sees while a run is under way: the plan, a line per step, and progress inside fit and generate."""

from __future__ import annotations

import signal
import threading
import time
from types import FrameType, TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecosystem.formats import format_duration


class Display:
    """Lines on standard output (on standard error if that must stay machine-readable), bars on a terminal.

    Where standard error is no terminal, the work inside a step is told in a plain line now and then.
    """

    HEARTBEAT_SECONDS = 10.0

    def __init__(self, *, quiet: bool = False, json: bool = False) -> None:
        self._quiet = quiet
        self._lines_to_stderr = json
        console = Console(stderr=True)
        self._live = console.is_terminal and not quiet
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not self._live,
        )
        self._steps: TaskID | None = None
        self._inside: TaskID | None = None
        self._work = ""
        self._began = self._told = time.monotonic()
        self._asked_to_stop = False
        self._usual_handler: signal._HANDLER = signal.default_int_handler

    def __enter__(self) -> Display:
        if threading.current_thread() is threading.main_thread():
            self._usual_handler = signal.signal(signal.SIGINT, self._ask_to_stop)
        self._bars.start()
        return self

    def _ask_to_stop(self, number: int, frame: FrameType | None) -> None:
        """Wait for the next sign of progress, where libraries written in other languages are not interrupted."""
        if self._asked_to_stop:
            raise KeyboardInterrupt  # asked twice: at once
        self._asked_to_stop = True

    def _stop_if_asked(self) -> None:
        if self._asked_to_stop:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._usual_handler)

    def say(self, text: str) -> None:
        """Print a line that stays."""
        if self._quiet:
            return
        if self._live:
            # Through the console that owns the bars, so that the line stands above them.
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=self._lines_to_stderr)

    def steps(self, done: int, total: int) -> None:
        """Move the outer bar; raise KeyboardInterrupt if the user has pressed Ctrl-C."""
        self._stop_if_asked()
        if self._steps is None:
            self._steps = self._bars.add_task("step", total=total)
        self._bars.update(self._steps, completed=done, description=f"step {done}/{total}")

    def progress(self, what: str, done: int, total: int) -> None:
        """Move the inner bar: ``done`` of ``total`` tokens of ``what``; raise KeyboardInterrupt after Ctrl-C."""
        self._stop_if_asked()
        now = time.monotonic()
        if what != self._work or done == 0:
            if self._inside is not None:
                self._bars.remove_task(self._inside)
            self._inside = self._bars.add_task(what, total=total)
            self._work, self._began, self._told = what, now, now
        if self._inside is not None:
            self._bars.update(self._inside, completed=done, total=total)
        if not self._live and not self._quiet and done and now - self._told > self.HEARTBEAT_SECONDS:
            left = (now - self._began) * (total - done) / done
            click.echo(f"  {what}: {done / total:.0%}, about {format_duration(left)} left", err=True)
            self._told = now
