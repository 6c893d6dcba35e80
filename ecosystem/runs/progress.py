"""The display of a run in progress: the plan, one line per step, and the progress of fit and generate."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecosystem.formats import format_duration, visible


@contextmanager
def said_if_stopped(sentence: str) -> Iterator[None]:
    """Print a sentence at Ctrl-C, before what Ctrl-C does anyway."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler) or threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        os.write(2, f"{sentence}\n".encode())
        handler(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)


class RunProgress:
    """Print lines on standard output (with ``json`` on standard error), and progress bars on a terminal.

    If standard error is not a terminal, the progress of long work is printed as a plain line every HEARTBEAT_SECONDS.
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
        self._steps_bar: TaskID | None = None
        self._task_bar: TaskID | None = None
        self._task, self._done = "", 0
        self._work_started = self._last_line = time.monotonic()
        self._stop_requested = False
        self._previous_handler: signal._HANDLER = signal.default_int_handler

    def __enter__(self) -> RunProgress:
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._request_stop)
        self._bars.start()
        return self

    def _request_stop(self, number: int, frame: FrameType | None) -> None:
        """Request a stop at the next report of progress, so that no compiled library is interrupted."""
        if self._stop_requested:
            raise KeyboardInterrupt  # a second Ctrl-C stops at once
        self._stop_requested = True
        # Not through a stream, which the handler may have interrupted while it writes.
        os.write(2, b"\nStopping; press Ctrl-C again to stop without finishing the current work.\n")

    def _stop_if_requested(self) -> None:
        if self._stop_requested:
            raise KeyboardInterrupt

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._previous_handler)

    def say(self, text: str) -> None:
        """Print a permanent line, unless quiet."""
        if self._quiet:
            return
        text = visible(text)
        if self._live:
            # The console that owns the bars prints the line above them.
            self._bars.console.print(text, markup=False, highlight=False, soft_wrap=True)
        else:
            click.echo(text, err=self._lines_to_stderr)

    def steps(self, done: int, total: int) -> None:
        """Update the bar of steps; raise KeyboardInterrupt if the user has pressed Ctrl-C."""
        self._stop_if_requested()
        if self._steps_bar is None:
            self._steps_bar = self._bars.add_task("step", total=total)
        self._bars.update(self._steps_bar, completed=done, description=f"step {done}/{total}")

    def task(self, name: str, done: int, total: int) -> None:
        """Update the bar of a task, ``done`` of ``total`` tokens; raise KeyboardInterrupt after Ctrl-C.

        A task that cannot count its progress reports 0 of 1 again and again.
        """
        self._stop_if_requested()
        now = time.monotonic()
        if name != self._task or done < self._done:
            if self._task_bar is not None:
                self._bars.remove_task(self._task_bar)
            self._task_bar = self._bars.add_task(name, total=total)
            self._task, self._work_started, self._last_line = name, now, now
        self._done = done
        if self._task_bar is not None:
            self._bars.update(self._task_bar, completed=done, total=total)
        if not self._live and not self._quiet and now - self._last_line > self.HEARTBEAT_SECONDS:
            spent = now - self._work_started
            share = f"{done / total:.0%}, about {format_duration(spent * (total - done) / done)} left" if done else ""
            click.echo(f"  {name}: {share or f'{format_duration(spent)} so far'}", err=True)
            self._last_line = now
