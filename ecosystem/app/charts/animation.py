"""The site graph over all steps as an animated GIF."""

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
FRAME_TIME, LAST_TIME = 250, 2000  # milliseconds for each frame and for the last


def frames(last: int, most: int = MOST) -> list[int]:
    """Return the steps of an animation: all, or ``most`` evenly spaced ones including the first and the last."""
    if last < most:
        return list(range(last + 1))
    return sorted({round(last * i / (most - 1)) for i in range(most)})


def animation(chart: LiveChart, steps: Sequence[int], scheme: Scheme, report: Callable[[int], bool]) -> bytes | None:
    """Draw a chart at each step and return a looping GIF, or None if cancelled.

    ``report`` gets the number of frames done and returns whether to continue.
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
            "datasets": {name: _combined(rows, frame.columns.get(name)) for name, rows in chart.data.items()},
        }
        _, png = charts.pictures(spec, scheme)
        images.append(Image.open(io.BytesIO(png)).convert("RGB").quantize(128, dither=Image.Dither.NONE))
    report(len(images))
    file = io.BytesIO()
    times = [FRAME_TIME] * (len(images) - 1) + [LAST_TIME]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=times, loop=0)
    return file.getvalue()


def _combined(rows: list[dict[str, Any]], columns: dict[str, list[Any]] | None) -> list[dict[str, Any]]:
    """Add the columns of a frame to the constant rows, as the browser does."""
    if not columns:
        return rows
    return [{**row, **{name: values[i] for name, values in columns.items()}} for i, row in enumerate(rows)]


@solara.component
def Animation(view: RunView, chart: LiveChart | None, last: int) -> None:
    """Offer the site graph over all steps as a GIF, drawn in a thread of the server and then downloaded."""
    requests, set_requests = solara.use_state(0)
    done, set_done = solara.use_state(0)
    gif: solara.Reactive[bytes | None] = solara.use_reactive(None)
    scheme = DARK if solara.lab.use_dark_effective() else LIGHT
    steps = frames(last)

    def draw(cancel: threading.Event) -> None:
        if not requests or chart is None:
            return
        steps_now = frames(view.last)

        def report(number: int) -> bool:
            set_done(number)
            return not cancel.is_set()

        gif.set(animation(chart, steps_now, scheme, report))

    drawn = solara.use_thread(draw, dependencies=[requests], intrusive_cancel=False)

    def begin() -> None:
        gif.set(None)
        set_done(0)
        set_requests(requests + 1)

    with solara.Div(classes=["eco-animation"]):
        if requests and drawn.state == solara.ResultState.RUNNING:
            solara.Text(
                f"Drawing step {done + 1} of {len(steps)} for the animation" if done < len(steps) else "Writing"
            )
            solara.ProgressLinear(100 * done / len(steps))
            solara.Button("Stop", on_click=drawn.cancel, text=True, small=True)
            return
        solara.Button("Make an animation (GIF)", on_click=begin, text=True, small=True, icon_name="mdi-movie-outline")
        if drawn.state == solara.ResultState.ERROR:
            solara.Text(f"The animation could not be drawn: {drawn.error}")
        if gif.value is not None:
            size = len(gif.value) / 1e6
            solara.FileDownload(
                gif.value, filename=f"{view.called}-web.gif", label=f"Save the animation ({size:.1f} MB)"
            )
