"""The processes below another one, and the death of the one that makes a run, for tests."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path

import psutil

from ecosystem.runs.remote.places import last_step
from tests.studies.small_runs import until


def descendants(pid: int) -> list[psutil.Process]:
    """Return the processes that a process started, and those that they started."""
    return psutil.Process(pid).children(recursive=True)


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def lock_holder(folder: Path) -> psutil.Process | None:
    """Return the process below this one that has a run folder's lock open."""
    for process in descendants(os.getpid()):
        with suppress(psutil.Error):
            if str(folder / ".lock") in [file.path for file in process.open_files()]:
                return process
    return None


def kill_at(place: str, folder: Path, step: int) -> threading.Thread:
    """Kill the worker that makes a run in a folder, once the run has committed a step."""

    def kill() -> None:
        until(lambda: last_step(place) >= step)
        until(lambda: lock_holder(folder)).kill()

    thread = threading.Thread(target=kill)
    thread.start()
    return thread
