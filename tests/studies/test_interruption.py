"""A study that is interrupted, or killed, and then resumed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ecosystem.runs.remote.places import last_step
from ecosystem.runs.run import Run
from ecosystem.studies.executors.jobs import run_job
from tests.studies.processes import alive, descendants
from tests.studies.small_runs import STUDY, WORLD, job, numbers, study, undisturbed, until

LONG = 400  # steps that outlast any test, of some milliseconds each


def start_study(folder: Path, screen: int | None = None) -> subprocess.Popen:
    """Begin a study as a command of its own, and wait until its first two runs are running."""
    study(folder, world=WORLD.replace("steps = 5", f"steps = {LONG}"), text=STUDY.replace("[1, 2]", "[1, 2, 3]"))
    process = subprocess.Popen(
        [sys.executable, "-m", "ecosystem", "study", "study.toml", "--jobs", "2", "--out", "outputs"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path.cwd()), "TERM": "xterm", "COLUMNS": "100"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if screen is None else screen,
        text=True,
        start_new_session=True,
    )
    until(lambda: sum(last_step(str(p.parent)) >= 2 for p in folder.glob("outputs/tiny-*/*/commits")) == 2)
    return process


def resumes(folder: Path) -> bool:
    """Whether an interrupted run resumes for two steps with the numbers of an uninterrupted one."""
    begun = next(p.parent for p in folder.glob("outputs/tiny-*/*/commits"))
    last = last_step(str(begun))
    spec = Run.open(begun).scenario.override({"steps": last + 2})
    return numbers(run_job(job(folder / "outputs", spec))).equals(undisturbed(spec, folder / "again"))


@pytest.mark.slow
def test_ctrl_c_stops_a_live_screen_and_leaves_no_process_and_a_study_that_goes_on(tmp_path):
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    process = start_study(tmp_path, theirs)
    os.close(theirs)
    below = descendants(process.pid)
    assert len(below) >= 3  # two workers and what they are forked from
    shown = b""

    def listen():
        nonlocal shown
        while select.select([ours], [], [], 0.05)[0]:
            try:
                shown += os.read(ours, 65536)
            except OSError:
                return True
        return b"0 of 6 runs" in shown and b"left" in shown

    until(listen)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    listen()
    assert process.returncode == 130 and "outputs" not in said
    text = shown.decode()
    assert "Stopped. Committed steps are kept; run the same command again" in text
    assert "Traceback" not in text and "KeyboardInterrupt" not in text
    assert text.count("tiny-study: 6 runs to do.") == 1 and "seed 1" in text and "\x1b[1A" in text  # drawn over itself
    until(lambda: not any(alive(process) for process in below), 10)
    assert resumes(tmp_path)


@pytest.mark.slow
def test_workers_of_a_study_that_was_killed_end_by_themselves(tmp_path):
    process = start_study(tmp_path)
    below = descendants(process.pid)
    process.kill()
    process.communicate()
    until(lambda: not any(alive(process) for process in below), 10)
    assert resumes(tmp_path)
