"""The progress of a live world: what is being computed, how far it is, and what can be done about it."""

from __future__ import annotations

import solara

from ecosystem.app.events import CHANGES, PROGRESS
from ecosystem.app.worlds.live_run import LiveRun

OPENING = {  # what a world reports while it opens → what the page says
    "loading of the libraries": "loading the libraries",
    "reading of the sources": "reading the sources",
    "reading for the tokenizer": "reading documents for the tokenizer",
    "merging for the tokenizer": "merging tokens for the tokenizer",
    "foundation": "pre-training the foundation",
    "measuring of the references": "measuring the references",
    "opening of the web": "publishing the first documents",
    "storing": "storing the opening",
    "layout of the sites": "placing the sites on the map",
}


@solara.component
def StepProgress(live_run: LiveRun) -> None:
    """Show the progress of a live world, with a button to pause inside a step.

    Only this component listens to progress inside a step, so that the rest of the page is not redrawn for it.
    """
    CHANGES.listen()
    PROGRESS.listen()
    state, progress, t, steps = live_run.state, live_run.progress, live_run.t, live_run.scenario.steps
    with solara.Div(classes=["eco-going"]):
        if state == "failed":
            solara.Error(live_run.error or "the world failed")
            return
        calendar = live_run.scenario.calendar
        date, upcoming = ("" if calendar is None else f" ({calendar.shown(max(0, n))})" for n in (t, t + 1))
        words = {
            "opening": "Opening the web",
            "ready": f"At step {t} of {steps}{date}, seed {live_run.scenario.seed}",
            "stepping": f"Step {t + 1} of {steps}{upcoming}",
            "paused": f"Paused inside step {t + 1} of {steps}{upcoming}",
            "finished": f"All {t} steps are done, seed {live_run.scenario.seed}",
        }.get(state, state)
        if waiting := live_run.waiting:
            words += f", then {waiting} more step" + ("s" if waiting > 1 else "")
        if state != "finished" and live_run.target == steps:
            words += ", the end of the run"
        share = 100 * progress.done / progress.total if progress.total else None
        solara.Text(f"{words} · {_task(live_run)}" if progress.what else words)
        if state == "opening" or (state == "stepping" and share is not None):
            # During a step, only once it has reported: an indeterminate bar would take half the time of a quick step.
            solara.ProgressLinear(True if share is None else share)
        if state == "stepping":
            solara.Button("Pause inside the step", on_click=live_run.pause, text=True, small=True)
        if state == "paused":
            solara.Button("Resume", on_click=live_run.resume, color="primary", small=True)
        if waiting:
            solara.Button("Cancel the further steps", on_click=live_run.withdraw, text=True, small=True)


def _task(live_run: LiveRun) -> str:
    """Return what is being computed in words; while a world opens, also how much of it is done."""
    progress = live_run.progress
    if live_run.state != "opening":
        return progress.what
    what = OPENING.get(progress.what, progress.what)
    if progress.total <= 1:
        return what
    unit = " tokens" if progress.what == "foundation" else ""
    return f"{what}, {progress.done:,} of {progress.total:,}{unit} ({progress.done / progress.total:.0%})"
