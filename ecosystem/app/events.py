"""Signals that components listen to, to be drawn again when something has changed."""

from __future__ import annotations

import solara
from mesa.visualization.utils import force_update, update_counter


class Signal:
    """Sent from any thread; a component that listens while it is drawn is drawn again whenever it is sent."""

    def __init__(self) -> None:
        self._sent = solara.reactive(object())  # no count: of two threads that counted on, one might not be heard

    def send(self) -> None:
        """Have all components that listen drawn again."""
        self._sent.set(object())

    def listen(self) -> None:
        """Be drawn again whenever the signal is sent; call it while a component is drawn."""
        self._sent.get()


CHANGES = Signal()  # a step more, another scenario, another step looked at
PROGRESS = Signal()  # what a step under way is doing: few listen, since it is sent often


def listen(live: bool) -> None:
    """Be drawn again at news and, where no world is live, whenever Mesa has shown the next frame."""
    CHANGES.listen()
    if not live:
        update_counter.get()


def tell() -> None:
    """Have the page drawn again, and what Mesa says of its model."""
    CHANGES.send()
    force_update()
