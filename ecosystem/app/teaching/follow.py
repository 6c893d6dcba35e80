"""Which instructions of a story a reader has followed, from the worlds of the page."""

from __future__ import annotations

from ecosystem.app.teaching.story import Task
from ecosystem.app.worlds.session_model import SessionModel

DONE, OPEN, MISSED = "done", "open", "missed"


def state_of(task: Task, session: SessionModel) -> str:
    """Return whether an instruction was followed, can be, or can no more since the world is past its step."""
    worlds = session.live_runs
    if task.action.steps is not None:
        arrived = len(worlds) >= task.worlds and all(world.t >= task.after for world in worlds)
        return DONE if arrived and session.forks >= task.forks else OPEN
    if task.action.fork is not None:
        return DONE if session.forks >= task.forks else OPEN
    if session.forks < task.forks:
        return OPEN
    assert task.knob is not None
    scenario, at = worlds[-1].scenario, task.before + 1
    set_to = scenario.at(at).value(task.knob.path) if at <= scenario.steps else None
    if set_to == scenario.rounded_like(task.knob.path, task.value):
        return DONE
    return OPEN if worlds[-1].upcoming <= at else MISSED
