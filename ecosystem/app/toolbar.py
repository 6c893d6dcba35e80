"""The toolbar above the panels of a world: forks, steering, saving and keeping, and what changed in the world."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import solara

from ecosystem.app.collapsible import Collapsible
from ecosystem.app.events import CHANGES, tell
from ecosystem.app.policy_preview import PolicyPreview
from ecosystem.app.worlds.actions import BackgroundTask, changes, in_background, saved
from ecosystem.app.worlds.live_run import LiveRun
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionModel
from ecosystem.errors import EcosystemError

KeepTask = BackgroundTask[Path]


@solara.component
def Toolbar(session: SessionModel, number: int, step: int, previewing: bool = False) -> None:
    """Show the actions on a world, its changes, and its events at a step; ``previewing``: open the preview at first."""
    CHANGES.listen()
    keeping, set_keeping = solara.use_state(None)  # the run being kept
    (refused_step, refusal), refuse = solara.use_state((step, ""))  # why a step cannot be forked
    solara.use_effect(lambda: keeping.leave if keeping is not None else None, [keeping])
    view, live_run = session.views[number], session.live_run(number)
    # The parts keep their positions, so that text typed in one survives changes in another.
    with solara.Div(classes=["eco-session"]):
        with solara.Div(classes=["eco-buttons"]):
            if view is not None:
                when = view.scenario.step_name(step)
                _fork_button(session, number, step, when, lambda sentence: refuse((step, sentence)))
            if live_run is not None and view is not None:
                if len(session.live_runs) > 1:
                    _steer_button(session, live_run)
                SaveButton(session, live_run, id(live_run.scenario), live_run.t)
                _keep_button(session, live_run, keeping, set_keeping)
        with solara.Div():
            if refusal and refused_step == step:
                solara.Error(refusal)
            if keeping is not None:
                KeepResult(keeping, keeping.done)
        with solara.Div():
            for line in [] if view is None else _history(session, view, live_run, step):
                solara.v.Html(tag="p", children=[line])
        if view is not None:
            title = f"Preview a policy on the web after {view.scenario.step_name(step)}"
            with solara.v.Html(tag="div", attributes={"data-panel": "preview"}):
                Collapsible(title, lambda: PolicyPreview(session, view, live_run, step), previewing)


def _fork_button(session: SessionModel, number: int, step: int, when: str, refuse: Callable[[str], None]) -> None:
    """Offer a fork of a world after a step, named ``when``; ``refuse`` gets the reason if it fails, else nothing."""

    def fork() -> None:
        try:
            session.fork(number, step)
            refuse("")
        except EcosystemError as error:
            refuse(str(error))

    solara.Button(f"Fork here ({when})", on_click=fork, outlined=True, small=True)


def _steer_button(session: SessionModel, live_run: LiveRun) -> None:
    """Offer to let the knobs steer this live world."""
    number = session.live_runs.index(live_run)

    def steer() -> None:
        session.steered = number
        tell()

    steered = session.steered == number
    label = "The knobs steer this world" if steered else "Let the knobs steer this world"
    solara.Button(label, on_click=steer, disabled=steered, outlined=True, small=True)


@solara.component
def SaveButton(session: SessionModel, live_run: LiveRun, scenario: int, step: int) -> None:
    """Offer the scenario that replays a live world as a file, written on download.

    ``scenario`` identifies the world's scenario: the file changes with it and with ``step``.
    """
    write = solara.use_memo(lambda: lambda: saved(session, live_run), [live_run, scenario, step])
    with solara.FileDownload(write, f"{live_run.scenario.name}.toml"):
        solara.Button("Save scenario", outlined=True, small=True)


def _keep_button(
    session: SessionModel, live_run: LiveRun, keeping: KeepTask | None, set_keeping: Callable[[KeepTask], None]
) -> None:
    """Offer to copy a live world to where `ecosystem run` would put it."""

    def keep() -> None:
        set_keeping(in_background(session, lambda _: session.keep(live_run)))

    busy = keeping is not None and not keeping.done
    solara.Button("Keep this run", on_click=keep, disabled=busy, outlined=True, small=True)


@solara.component
def KeepResult(keeping: KeepTask, done: bool) -> None:
    """Show where a run was saved, or why it was not."""
    if not done:
        solara.Text("This run will be saved when the current step has ended.")
        solara.ProgressLinear(value=True)
    elif keeping.error is not None:
        solara.Error(keeping.error)
    elif keeping.result is not None:
        solara.Success(f"Kept in {keeping.result}")


def _history(session: SessionModel, view: RunView, live_run: LiveRun | None, step: int) -> list[str]:
    """List the changes of a world, and its events at a step."""
    listed = changes(view.scenario, session.config.scenario if live_run is not None else None)
    origin = "in the scenario" if live_run is not None else "in the run"
    name = view.scenario.step_name
    lines = [f"From {name(at)} on: {change}" + ("" if new else f" ({origin})") for at, change, new in listed]
    return lines + [f"S{name(t)[1:]}: {event}" for t, event in view.events if t == step]
