"""The display of a run in progress: the plan, one line per step, and the progress inside a step."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ecosystem.formats import format_bytes, format_duration, visible
from ecosystem.interpreter import memory_used

_PACE_STEPS = 5  # latest steps that the time left is estimated from: later steps may be slower than the first
_MOST_SECONDS = 60.0  # longest silence of a heartbeat


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

    If standard error is not a terminal, the line of a step also has the time left and the memory of this process, and
    long work prints a line after HEARTBEAT_SECONDS of silence, later every minute, whether it reports progress or not.
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
        self._task, self._done, self._total = "", 0, 0
        self._work_started = self._last_line = time.monotonic()
        self._paces: deque[float] = deque(maxlen=_PACE_STEPS)
        self._step = ""
        self._ended = threading.Event()
        self._stop_requested = False
        self._previous_handler: signal._HANDLER = signal.default_int_handler

    def __enter__(self) -> RunProgress:
        if threading.current_thread() is threading.main_thread():
            self._previous_handler = signal.signal(signal.SIGINT, self._request_stop)
        self._bars.start()
        self._ended = threading.Event()
        if not self._live and not self._quiet:
            threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()
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
        self._ended.set()
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
        self._last_line = time.monotonic()

    def step(self, line: str, done: int, total: int, seconds: float) -> None:
        """Print the line of a step that took ``seconds``; without a terminal, with the time left and the memory."""
        if done:  # the opening says nothing about the other steps
            self._paces.append(seconds)
        self._step = f"step {done + 1}/{total}, " if done < total else ""
        self.say(line if self._live else " | ".join([line, *self._outlook(total - done)]))

    def _outlook(self, steps: int) -> list[str]:
        """Return the time left for these steps, once it is known, and the memory in use."""
        left = sum(self._paces) / len(self._paces) * steps if self._paces else 0.0
        return [*([f"about {format_duration(left)} left"] if left else []), *_memory()]

    def steps(self, done: int, total: int) -> None:
        """Update the bar of steps; raise KeyboardInterrupt if the user has pressed Ctrl-C."""
        self._stop_if_requested()
        if self._steps_bar is None:
            self._steps_bar = self._bars.add_task("step", total=total)
        self._bars.update(self._steps_bar, completed=done, description=f"step {done}/{total}")

    def task(self, name: str, done: int, total: int) -> None:
        """Update the bar of a task, ``done`` of ``total`` tokens; raise KeyboardInterrupt after Ctrl-C.

        A task that cannot count its progress reports 0 of 1 again and again, and a phase of a step 0 of 0 once.
        """
        self._stop_if_requested()
        now = time.monotonic()
        if name != self._task or done < self._done:
            if self._task_bar is not None:
                self._bars.remove_task(self._task_bar)
            self._task_bar = self._bars.add_task(name, total=total or None)
            self._task, self._work_started = name, now
        self._done, self._total = done, total
        if self._task_bar is not None:
            self._bars.update(self._task_bar, completed=done, total=total or None)

    def _beat(self) -> None:
        """Print a line whenever there has been none for long; in a thread, since long work may report nothing."""
        silence = self.HEARTBEAT_SECONDS
        printed = self._last_line
        while not self._ended.wait(min(1.0, self.HEARTBEAT_SECONDS)):
            if self._last_line != printed:  # others have printed since
                silence = self.HEARTBEAT_SECONDS
            if time.monotonic() - self._last_line >= silence:
                self._print_heartbeat()
                silence = min(_MOST_SECONDS, 1.5 * silence)
            printed = self._last_line

    def _print_heartbeat(self) -> None:
        name, done, total, now = self._task, self._done, self._total, time.monotonic()
        spent = now - self._work_started
        so_far = f"{format_duration(spent)} so far"
        share = f"{done / total:.0%}, about {format_duration(spent * (total - done) / done)} left" if done else so_far
        if name:
            with suppress(OSError, ValueError):  # a stream that its reader has closed
                click.echo(f"  {self._step}{visible(name)}: {', '.join([share, *_memory()])}", err=True)
        self._last_line = now


def _memory() -> list[str]:
    """Return the memory of this process, and what it holds of its GPU if it computes there."""
    used = memory_used()
    sentences = [] if used is None else [f"{format_bytes(used)} of memory"]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        sentences.append(f"{format_bytes(torch.cuda.memory_reserved())} of GPU memory")
    return sentences
