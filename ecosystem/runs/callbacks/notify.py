"""A command that is called when a run or study ends, with the outcome in environment variables."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import click

from ecosystem.formats import visible

_PATIENCE = 60.0  # seconds: a command that hangs must not keep a machine
_TERMINATED = 143  # exit code after SIGTERM, as shells have it


@contextmanager
def notified(command: str | None, facts: Mapping[str, object]) -> Iterator[dict[str, object]]:
    """Call a shell command, if there is one, at the end of what is inside, whatever the outcome; SIGTERM ends it too.

    ``facts`` are values known from the start; yield a copy, to which those known later are added. Each becomes an
    environment variable ``ECOSYSTEM_NAME`` of the command. Added are ``outcome`` (finished, stopped or failed),
    ``message`` (what went wrong, or empty) and ``seconds``.
    """
    known, started = dict(facts), time.monotonic()
    try:
        with exit_at_sigterm():
            yield known
    except BaseException as error:
        stopped = not isinstance(error, Exception)
        known |= {"outcome": "stopped" if stopped else "failed", "message": "" if stopped else str(error)}
        raise
    else:
        known = {"outcome": "finished", "message": "", **known}
    finally:
        if command is not None:
            _call(command, {**known, "seconds": round(time.monotonic() - started, 1)})


def _call(command: str, facts: Mapping[str, object]) -> None:
    """Call the command; its output goes to standard error, and so does a sentence if it fails."""
    variables = {f"ECOSYSTEM_{name.upper()}": visible(value) for name, value in facts.items()}
    try:
        code = subprocess.run(
            command, shell=True, env={**os.environ, **variables}, stdout=2, timeout=_PATIENCE, check=False
        ).returncode
        problem = f"its exit code was {code}" if code else ""
    except (OSError, subprocess.SubprocessError) as error:
        problem = str(error)
    if problem:
        click.echo(f"note: the command of --notify failed ({problem}): {visible(command)}", err=True)


@contextmanager
def exit_at_sigterm() -> Iterator[None]:
    """Exit at SIGTERM, which batch systems send before they kill, by an exception, so that all learn of the end.

    The exit code is 143, also if a library replaces the exception, as Ray does while it waits (by exit code 1).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    terminated = False

    def terminate(number: int, frame: object) -> None:
        nonlocal terminated
        terminated = True
        raise SystemExit(_TERMINATED)

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except SystemExit:
        if terminated:
            raise SystemExit(_TERMINATED) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)
