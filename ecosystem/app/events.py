"""Signals that redraw the components listening to them."""

from __future__ import annotations

import solara
from mesa.visualization.utils import update_counter


class Signal:
    """A signal, sent from any thread, that redraws every component that listened while it was drawn."""

    def __init__(self) -> None:
        self._sent = solara.reactive(object())  # not a counter, on which two threads could race

    def send(self) -> None:
        """Redraw all components that listen."""
        self._sent.set(object())

    def listen(self) -> None:
        """Redraw the component that is being drawn whenever the signal is sent."""
        self._sent.get()


CHANGES = Signal()  # a new step, another scenario, another step shown
PROGRESS = Signal()  # progress inside a step: sent often, so few components listen


def listen(live: bool) -> None:
    """Redraw the component at every change and, if no world is live, whenever Mesa shows the next frame."""
    CHANGES.listen()
    if not live:
        update_counter.get()


def tell() -> None:
    """Redraw the page."""
    CHANGES.send()
