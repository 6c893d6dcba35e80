"""The site graph over all steps as an animation that can be kept (GIF): pictures of its steps, one after the other."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Sequence
from typing import Any

import solara

from ecosystem.app.charts.live_charts import LiveChart
from ecosystem.app.worlds.run_view import RunView
from ecosystem.report import charts
from ecosystem.report.charts import DARK, LIGHT, Scheme

MOST = 100  # frames
WIDTH = 560  # pixels
EACH, LAST = 250, 2000  # milliseconds that a frame and the last one are shown


def frames(last: int, most: int = MOST) -> list[int]:
    """Return the steps of an animation, first and last among them: all, or ``most`` evenly picked."""
    if last < most:
        return list(range(last + 1))
    return sorted({round(last * i / (most - 1)) for i in range(most)})


def animation(chart: LiveChart, steps: Sequence[int], scheme: Scheme, report: Callable[[int], bool]) -> bytes | None:
    """Draw a chart at each step and return a GIF that starts over at its end.

    ``report`` is called with the number of frames done and returns whether to go on; None where it said no.
    """
    from PIL import Image

    images: list[Any] = []
    for step in steps:
        if not report(len(images)):
            return None
        frame = chart.at(step)
        spec = {
            **chart.spec,
            "title": {"text": frame.title, "subtitle": frame.below},
            "width": WIDTH,
            "autosize": {"type": "pad"},
            "datasets": {name: _beside(rows, frame.columns.get(name)) for name, rows in chart.data.items()},
        }
        _, png = charts.pictures(spec, scheme)
        images.append(Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE))
    report(len(images))
    file = io.BytesIO()
    times = [EACH] * (len(images) - 1) + [LAST]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)
    return file.getvalue()


def _beside(rows: list[dict[str, Any]], columns: dict[str, list[Any]] | None) -> list[dict[str, Any]]:
    """Set the columns of a frame beside the rows that stay, as the browser does."""
    if not columns:
        return rows
    return [{**row, **{name: values[i] for name, values in columns.items()}} for i, row in enumerate(rows)]


@solara.component
def Animation(view: RunView, chart: LiveChart | None, last: int) -> None:
    """Offer the site graph of a run over its steps as a GIF: drawn on the server in a thread, then downloaded."""
    asked, ask = solara.use_state(0)
    done, tell = solara.use_state(0)
    gif: solara.Reactive[bytes | None] = solara.use_reactive(None)
    scheme = DARK if solara.lab.use_dark_effective() else LIGHT
    steps = frames(last)

    def draw(cancel: threading.Event) -> None:
        if not asked or chart is None:
            return
        steps_now = frames(view.last)

        def report(number: int) -> bool:
            tell(number)
            return not cancel.is_set()

        gif.set(animation(chart, steps_now, scheme, report))

    drawn = solara.use_thread(draw, dependencies=[asked], intrusive_cancel=False)

    def begin() -> None:
        gif.set(None)
        tell(0)
        ask(asked + 1)

    with solara.Div(classes=["eco-animation"]):
        if asked and drawn.state == solara.ResultState.RUNNING:
            solara.Text(
                f"Drawing step {done + 1} of {len(steps)} for the animation" if done < len(steps) else "Writing"
            )
            solara.ProgressLinear(100 * done / len(steps))
            solara.Button("Stop", on_click=drawn.cancel, text=True, small=True)
            return
        solara.Button("Make an animation (GIF)", on_click=begin, text=True, small=True, icon_name="mdi-movie-outline")
        if drawn.state == solara.ResultState.ERROR:
            solara.Text(f"It could not be drawn: {drawn.error}")
        if gif.value is not None:
            size = len(gif.value) / 1e6
            solara.FileDownload(
                gif.value, filename=f"{view.called}-web.gif", label=f"Save the animation ({size:.1f} MB)"
            )
