"""What a run says without a terminal: a line a step with the time left and the memory, and heartbeats in long work."""

import re
import time

import pytest

from ecosystem.interpreter import memory_used
from ecosystem.runs.progress import RunProgress


@pytest.fixture
def progress():
    made = RunProgress()
    made.HEARTBEAT_SECONDS = 0.05
    return made


def test_the_line_of_a_step_has_the_time_left_and_the_memory(progress, capsys):
    progress.step("step 0/9", 0, 9, 500.0)  # an opening takes its own time
    for step, seconds in enumerate([900.0, *[100.0] * 5, 40.0], 1):
        progress.step(f"step {step}/9", step, 9, seconds)
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"step 0/9 \| [\d.,]+ (MB|GB) of memory", lines[0])
    assert "about 2.0 h left" in lines[1]  # 8 steps of 900 s
    assert "about 3 min left" in lines[-1]  # 2 steps at the mean of the last five, (4 * 100 + 40) / 5 s


def test_the_last_step_has_no_time_left(progress, capsys):
    progress.step("step 1/1", 1, 1, 2.0)
    assert "left" not in capsys.readouterr().out


def test_work_that_reports_nothing_has_a_heartbeat(progress, capsys):
    with progress:
        progress.step("step 2/5", 2, 5, 1.0)
        progress.task("measure", 0, 0)
        time.sleep(0.6)
    lines = capsys.readouterr().err.splitlines()
    assert 2 <= len(lines) <= 8, lines  # silences grow, by half each
    assert all(re.fullmatch(r"  step 3/5, measure: \d+ s so far, [\d.,]+ (MB|GB) of memory", line) for line in lines)


def test_no_heartbeat_where_lines_are_printed_often_or_at_the_end(progress, capsys):
    progress.HEARTBEAT_SECONDS = 0.4
    with progress:
        progress.task("fit", 0, 1)
        for _ in range(8):
            time.sleep(0.1)
            progress.say("something")
    time.sleep(0.6)
    assert capsys.readouterr().err == ""


def test_quiet_runs_have_no_heartbeat(capsys):
    progress = RunProgress(quiet=True)
    progress.HEARTBEAT_SECONDS = 0.02
    with progress:
        progress.task("fit", 0, 1)
        time.sleep(0.1)
    assert capsys.readouterr() == ("", "")


def test_memory_is_that_of_this_process():
    before = memory_used()
    held = bytearray(200_000_000)
    held[::4096] = b"1" * len(held[::4096])  # touched, so that it is there
    assert 0.9 * len(held) < memory_used() - before < 1.5 * len(held)
