"""The guide of a story on the page: the scene's text, its instructions with what is done, and what came out."""

from __future__ import annotations

from collections.abc import Sequence

import solara

from ecosystem.app.address import Address
from ecosystem.app.elements import text_element
from ecosystem.app.events import listen
from ecosystem.app.teaching.follow import DONE, MISSED, OPEN, state_of
from ecosystem.app.teaching.story import Staged, Task
from ecosystem.app.worlds.session_model import SessionModel

_ICONS = {DONE: "mdi-check-circle", OPEN: "mdi-circle-outline", MISSED: "mdi-alert-circle-outline"}
_PANELS = {
    "web": "the map of the web",
    "contamination": "the chart of contamination",
    "quality": "the chart of quality",
    "diversity": "the chart of diversity",
    "ledger": "the ledger: who refused what",
    "instruments": "what the instruments observed",
    "columns": "the panel Columns",
    "reading": "the panel Reading",
}
_VERDICTS = {True: "as expected", False: "not as expected", None: "not known yet"}


@solara.component
def Guide(staged: Staged, session: SessionModel, address: Address) -> None:
    """Show a scene of a story; the scene is part of the address."""
    listen(bool(session.live_runs))
    revealed, reveal = solara.use_state(-1)  # the scene whose outcome is shown
    scenes = staged.story.scenes
    number = int(address["scene"] or 1) - 1
    scene, tasks = scenes[number], staged.tasks[number]
    solara.use_effect(lambda: address.set(**{str(k): v for k, v in scene.measures.items()}), [staged.name, number])
    states = [state_of(task, session) for earlier in staged.tasks[: number + 1] for task in earlier]
    before, own = states[: len(states) - len(tasks)], states[len(states) - len(tasks) :]
    with solara.v.Html(tag="div", class_="eco-panel eco-guide"):
        text_element("div", f"{staged.story.title} · scene {number + 1} of {len(scenes)}", "eco-facts")
        text_element("h3", scene.title)
        for paragraph in scene.text.split("\n\n"):
            text_element("p", " ".join(paragraph.split()))
        _Tasks(tasks, own)
        if MISSED in states or OPEN in before:
            text_element("p", "Scenes build on each other: press Reset and follow them from the first one.", "eco-note")
        if scene.look is not None:
            text_element("p", f"Look at {_PANELS[scene.look]}.", "eco-look", **{"data-show": scene.look})
        text_element("p", scene.question, "eco-question")
        if revealed == number:
            _outcome(staged, session, number)
        with solara.Div(classes=["eco-buttons"]):
            _buttons(number, len(scenes), all(state == DONE for state in states), revealed == number, reveal, address)


def _buttons(number: int, scenes: int, done: bool, revealed: bool, reveal: object, address: Address) -> None:
    """Show the buttons that reveal the outcome and move between scenes."""
    label = "What came out" if done else "What came out (follow the instructions first)"
    solara.Button(
        label,
        on_click=lambda: reveal(number),  # type: ignore[operator]
        disabled=not done or revealed,
        color="primary",
        small=True,
    )
    for text, to in (("Back", number), ("Next scene", number + 2)):
        if 1 <= to <= scenes:
            solara.Button(text, on_click=lambda to=to: address.set(scene=str(to)), outlined=True, small=True)


@solara.component
def _Tasks(tasks: Sequence[Task], states: Sequence[str]) -> None:
    with solara.v.Html(tag="ul", class_="eco-tasks"):
        for task, state in zip(tasks, states, strict=True):
            with solara.v.Html(tag="li", class_=f"eco-{state}"):
                solara.v.Icon(children=[_ICONS[state]], small=True)
                text_element("span", f"{task}" + (" (too late in this world)" if state == MISSED else ""))


def _outcome(staged: Staged, session: SessionModel, number: int) -> None:
    """Show the expected observation, and the figures of this world."""
    text_element("p", " ".join(staged.story.scenes[number].expected.split()), "eco-expected")
    views = [view for view in session.views if view is not None]
    with solara.v.Html(tag="ul", class_="eco-tasks"):
        for claim in staged.claims[number]:
            outcome = claim.outcome(views, staged.end(number))
            text_element("li", f"{outcome.figures}: {_VERDICTS[outcome.holds]}", f"eco-{outcome.holds}".lower())
