"""The progress of a study."""

from __future__ import annotations

import time

import pytest

from ecosystem.runs.remote.mirror import Mirror
from ecosystem.studies.executors.jobs import JobResult
from ecosystem.studies.progress import PlannedRun, StepTracker, StudyProgress


def commit(place, step):
    """Write the name of a record, which is all that progress looks at."""
    (place / "commits").mkdir(parents=True, exist_ok=True)
    (place / "commits" / f"{step:06d}.json").touch()


def test_the_steps_left_are_counted_and_not_those_that_a_branch_never_runs(tmp_path):
    tracker = StepTracker(
        [PlannedRun("parent", str(tmp_path / "a"), 10), PlannedRun("arm", str(tmp_path / "b"), 10, 7)]
    )
    assert tracker.seconds_left(100.0) is None
    results = [JobResult(run="a", attempts=2, seconds=11.0), JobResult()]
    assert tracker.update({1: 100.0}, results, 111.0) == [0]
    assert tracker.seconds_left(111.0) == pytest.approx(3.0)  # 11 steps in 11 s, and 3 to go
    commit(tmp_path / "b", 8)
    assert tracker.update({1: 100.0}, results, 124.0) == []
    tracker.poll(124.0)
    assert tracker.seconds_left(124.0) == pytest.approx(2.0)  # how long its first step took is not known yet


def test_progress_says_what_has_ended_and_what_is_left(tmp_path, capsys):
    progress = StudyProgress()
    progress.HEARTBEAT_SECONDS = 0.0
    runs = [PlannedRun("parent", str(tmp_path / "a"), 10), PlannedRun("arm", str(tmp_path / "b"), 10, 7)]
    progress.begin("study", runs, 3)
    began, ended = time.monotonic(), JobResult(run="a", attempts=2, seconds=11.0)
    progress.watch({1: began}, [ended, JobResult()])
    commit(tmp_path / "b", 8)
    time.sleep(0.6)  # it looks at runs at most twice a second
    progress.watch({1: began}, [ended, JobResult()])
    progress.watch({}, [ended, JobResult(error="no luck", attempts=1)])
    said = capsys.readouterr().out
    assert "2 runs to do. 3 already finished." in said
    assert "parent: 11.0 s at attempt 2. 1 of 2 runs, about 3 s" in said
    assert "1 of 2 runs, about 2 s left" in said and "failed: arm: no luck" in said


def test_what_comes_before_the_first_steps_is_not_taken_for_their_pace(tmp_path):
    """Two of six runs of 10 steps import for 30 s, and then take 1 s a step like all others, begun 2 s before."""
    places = [tmp_path / str(i) for i in range(6)]
    tracker = StepTracker([PlannedRun(str(i), str(place), 9) for i, place in enumerate(places)])

    def at(seconds, steps, running, ended=()):
        for i, step in steps.items():
            commit(places[i], step)
        ends, now = dict(ended), 100.0 + seconds
        results = [JobResult("run", seconds=ends[i]) if i in ends else JobResult() for i in range(6)]
        tracker.update(running, results, now)
        tracker.poll(now)
        return tracker.seconds_left(now)

    first = {0: 100.0, 1: 100.0}
    assert at(1, {}, first) is None
    assert at(31, {0: 0, 1: 0}, first) is None
    assert at(35, {0: 4, 1: 4}, first) == pytest.approx(1.0 * (4 * 10 + 2 * 5) / 2)
    later = {2: 140.0, 3: 140.0}
    assert at(40, {0: 9, 1: 9}, later, {0: 40.0, 1: 40.0}) == pytest.approx(1.0 * 4 * 10 / 2)
    left = at(47, {2: 4, 3: 4}, later, {0: 40.0, 1: 40.0})  # 7 s for 5 steps: what comes before each run counts
    assert left == pytest.approx((2 * 9 + 2 * 7) / (2 * 9 + 2 * 5) * (2 * 10 + 2 * 5) / 2)


def test_a_store_is_asked_about_a_run_now_and_then_only(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(Mirror, "records", lambda self, folder: asked.append(folder) or [])
    tracker = StepTracker([PlannedRun("far", f"memory://{tmp_path}/tiny/1", 10)])
    tracker.update({0: 100.0}, [JobResult()], 100.0)
    for second in range(1, 21):
        tracker.poll(100.0 + second)
    assert 4 <= len(asked) <= 6
