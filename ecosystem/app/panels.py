"""The panels of the page: each a Solara component of a stage, or of a film and a step."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import solara
from mesa.visualization.utils import force_update, update_counter

from ecosystem import charts
from ecosystem.app import pictures
from ecosystem.app.film import Film
from ecosystem.app.pictures import Gallery, Picture
from ecosystem.app.reading import Reading
from ecosystem.app.recording import Recording
from ecosystem.app.stage import Stage
from ecosystem.app.strip import Strip
from ecosystem.report import drawings

STYLE = Path(__file__).with_name("page.css")
LOOKS = {"light": charts.configuration(charts.LIGHT), "dark": charts.configuration(charts.DARK)}
LIBRARY = "/ecosystem/vega.js"
SCROLLING = 400  # sites from which on the graph is painted rather than built of elements


@solara.component_vue("vega.vue")
def _Vega(
    spec: dict[str, Any],
    rows: dict[str, Any],
    looks: dict[str, Any],
    source: str,
    name: str,
    stamp: str,
    canvas: bool = False,
) -> None: ...


@solara.component
def Panel(title: str, below: str = "", children: Sequence[Any] = (), classes: Sequence[str] = ()) -> None:
    """Frame something; title and the line below it are text, whatever stands in them."""
    with solara.Div(classes=["eco-panel", *classes]):
        solara.v.Html(tag="h3", children=[title])
        if below:
            solara.v.Html(tag="p", children=[below])
        solara.Div(children=list(children))


@solara.component
def Chart(picture: Picture | None, stamp: str, *, canvas: bool = False) -> None:
    """Show a picture, or that there is nothing to draw yet."""
    if picture is None:
        Panel("Nothing yet", "This is drawn from the first step on that measures it.")
        return
    drawing = _Vega(
        spec=picture.spec,
        rows=picture.data,
        looks=LOOKS,
        source=LIBRARY,
        name=picture.name,
        stamp=stamp,
        canvas=canvas,
    )
    Panel(picture.title, picture.below, [drawing])


@solara.component
def Worlds(stage: Stage) -> None:
    """Show every world of the stage, side by side, all at the same step and with the same measures."""
    update_counter.get()  # drawn again whenever there is news
    galleries = solara.use_memo(dict, [id(stage)])
    chosen, choose = solara.use_state({"diversity": "distinct_2"})
    wrong, _ = solara.use_exception()
    if wrong is not None:
        solara.Error(f"This could not be drawn ({type(wrong).__name__}: {wrong}). What was committed is not touched.")
        return
    films = [film for film in stage.films if film is not None]
    choices: dict[str, dict[str, str]] = {
        "contamination": {key: words.title for key, words in drawings.CONTAMINATION.items()},
        "quality": _together(pictures.qualities, films),
        "diversity": _together(pictures.diversities, films),
    }
    picked = {
        key: chosen[key] if chosen.get(key) in options else next(iter(options), "") for key, options in choices.items()
    }
    with solara.Div(classes=["eco-bar"]):
        if stage.last > 0:

            def show(step: int) -> None:
                stage.shown = None if step == stage.front and stage.recordings else step
                force_update()

            solara.SliderInt(
                f"Step {stage.step_shown} of {stage.last}", stage.step_shown, on_value=show, max=stage.last
            )
        for key, options in choices.items():
            if len(options) > 1:
                names = {called: metric for metric, called in options.items()}

                def pick(called: str, key: str = key, names: Mapping[str, str] = names) -> None:
                    choose({**chosen, key: names[called]})

                solara.Select(key, list(names), value=options[picked[key]], on_value=pick, dense=True)
    with solara.Div(classes=["eco-worlds", *(["eco-two"] if len(stage.films) > 1 else [])]):
        for number, film in enumerate(stage.films):
            recording = stage.recordings[number - len(stage.stored)] if number >= len(stage.stored) else None
            with solara.Div(classes=["eco-world"]):
                with solara.Div(classes=["eco-top"]):
                    if recording is not None:
                        Going(recording, recording.state, recording.progress, recording.t)
                    Strip(stage, number, -1 if film is None else min(stage.step_shown, film.last))
                if film is not None:
                    gallery = galleries.setdefault(id(film), Gallery(film))
                    World(gallery, min(stage.step_shown, film.last), film.last, picked, id(film.scenario))
                    Reading(film, min(stage.step_shown, film.last), film.last)


def _together(of: Callable[[Film], dict[str, str]], films: Sequence[Film]) -> dict[str, str]:
    """Return what all films have, in the order of the first."""
    found = [of(film) for film in films]
    return {key: called for key, called in found[0].items() if all(key in other for other in found)} if found else {}


@solara.component
def World(gallery: Gallery, step: int, last: int, picked: Mapping[str, str], scenario: int) -> None:
    """Show the panels of one world at a step. ``last`` and ``scenario`` say when there is something new to draw."""
    film = gallery.film
    drawn: list[tuple[Callable[..., Any], tuple[Any, ...]]] = [
        (pictures.web, (step,)),
        (pictures.contamination, (picked["contamination"],)),
        (pictures.quality, (picked["quality"],)),
        (pictures.diversity, (picked["diversity"],)),
        (pictures.ledger, (step,)),
    ]
    with solara.Div(classes=["eco-grid"]):
        for draw, arguments in drawn:
            picture = gallery.picture(draw, *arguments) if "" not in arguments else None
            Chart(picture, f"{step}/{last}", canvas=draw is pictures.web and film.places.height > SCROLLING)


@solara.component
def Going(recording: Recording, state: str, progress: Any, t: int) -> None:
    """Show what a live world is doing, and let people pause inside a step."""
    with solara.Div(classes=["eco-going"]):
        if state == "failed":
            solara.Error(recording.error or "the world stopped")
            return
        words = {
            "opening": "The web is being laid out",
            "ready": f"At step {t} of {recording.scenario.steps}",
            "stepping": f"Step {t + 1} of {recording.scenario.steps}",
            "paused": f"Paused inside step {t + 1}",
            "finished": f"All {t} steps are done",
        }.get(state, state)
        share = 100 * progress.done / progress.total if progress.total else None
        solara.Text(f"{words} · {progress.what}" if progress.what else words)
        if state in ("stepping", "opening"):
            solara.ProgressLinear(True if share is None else share)
        if state == "stepping":
            solara.Button("Pause inside the step", on_click=recording.pause, text=True, small=True)
        if state == "paused":
            solara.Button("Go on", on_click=recording.resume, color="primary", small=True)
