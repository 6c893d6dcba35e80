"""What tells components that there is something new: a bell that those who listen to it are drawn again for."""

from __future__ import annotations

import solara
from mesa.visualization.utils import force_update, update_counter


class Bell:
    """Rung from any thread; a component that listens while it is drawn is drawn again whenever it rings."""

    def __init__(self) -> None:
        self._rung = solara.reactive(object())  # no count: of two threads that counted on, one might not be heard

    def ring(self) -> None:
        """Have all that listen drawn again."""
        self._rung.set(object())

    def listen(self) -> None:
        """Be drawn again at every ring; to be called while a component is drawn."""
        self._rung.get()


NEWS = Bell()  # a step more, another scenario, another step looked at
PROGRESS = Bell()  # what a step under way is doing: heard by little, since it rings often


def listen(live: bool) -> None:
    """Be drawn again at news and, where no world is live, whenever Mesa has shown the next frame."""
    NEWS.listen()
    if not live:
        update_counter.get()


def tell() -> None:
    """Have the page drawn again, and what Mesa says of its model."""
    NEWS.ring()
    force_update()
