"""The page: Mesa's controls (reset, play, step) and knobs beside the panels.

Every browser tab has its own session and so its own world. Closing the tab closes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import solara
import solara.lab
from solara.server.kernel_context import PageStatus, get_current_context, without_context

from ecosystem.app import panels
from ecosystem.app.address import MEASURES, Address, AddressBar
from ecosystem.app.controls import Controls
from ecosystem.app.events import PROGRESS, tell
from ecosystem.app.teaching.guide import Guide
from ecosystem.app.teaching.story import Staged
from ecosystem.app.worlds.session_model import SessionConfig, SessionModel

CONFIG = SessionConfig()  # set by the server


def session_class(config: SessionConfig) -> type[SessionModel]:
    """Create the session class of the tab that is being drawn; Mesa makes another session from arguments on *Reset*."""
    signals = {"news": _in_tab(tell), "progressed": _in_tab(PROGRESS.send)}
    callbacks = {**signals, "watched": _watched, "pressed": _pressed, "apart": without_context}
    methods = {name: staticmethod(callback) for name, callback in callbacks.items()}
    return type("Session", (SessionModel,), {"config": config, **methods})


def _in_tab(signal: Callable[[], None]) -> Callable[[], None]:
    """Return a function that sends a signal to the tab that is being drawn, from any thread."""
    tab = get_current_context()

    def send() -> None:
        with tab:
            signal()

    return send


def _watched() -> bool:
    """Return whether the tab is connected. A lost tab may come back, but nothing is computed for it meanwhile."""
    try:
        return PageStatus.CONNECTED in get_current_context().page_status.values()
    except RuntimeError:  # the server is ending, or the tab has been closed
        return False


def _pressed() -> bool:
    """Return whether a click is being handled: Solara does so in an event loop, Mesa plays in a plain thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


@solara.component_vue("sidebar.vue")
def _Sidebar() -> None: ...


@solara.component
def Page() -> None:
    """Show the page; Solara looks for this name."""
    search = solara.use_router().search
    scenes = {staged.name: len(staged.story.scenes) for staged in CONFIG.stories}
    address = solara.use_memo(lambda: Address.read(search or "", scenes), [])
    staged = _story(address)
    config = CONFIG if staged is None else replace(CONFIG, scenario=staged.scenario, base=staged.base)
    title = config.title if staged is None else staged.story.title
    solara.Title(f"{title} · ecosystem")
    solara.Style(panels.STYLE)
    entered = solara.use_ref(False)
    session = solara.use_memo(
        lambda: solara.reactive(_session(config, address, entered)), [staged.name if staged else ""]
    )
    solara.use_effect(lambda: session.value.close, [session.value])
    with solara.AppBar():
        solara.AppBarTitle(title)
        AddressBar(address, session.value)
        solara.lab.ThemeToggle()
    Controls(session).key(f"controls {title}")
    _Sidebar()
    for problem in address.problems:
        solara.Warning(problem)
    if staged is not None:
        _stories(staged, address)
        Guide(staged, session.value, address).key(f"guide {staged.name}")
    panels.Worlds(session.value, address)


def _story(address: Address) -> Staged | None:
    """Return the story that the address names, or else the first one; None if the page does not teach."""
    return next((staged for staged in CONFIG.stories if staged.name == address["story"]), None) or next(
        iter(CONFIG.stories), None
    )


def _stories(staged: Staged, address: Address) -> None:
    """Show the choice of a story, if there are several."""
    if len(CONFIG.stories) > 1:
        names = {each.story.title: each.name for each in CONFIG.stories}
        afresh = {"scene": "1", **dict.fromkeys(MEASURES, "")}
        with solara.Div(classes=["eco-bar"]):
            title = staged.story.title
            solara.Select("story", list(names), title, lambda t: address.set(**afresh, story=names[t]), dense=True)


def _session(config: SessionConfig, address: Address, entered: Any) -> SessionModel:
    """Create a session of a tab; the first one at the place that the address names."""
    if entered.current:
        return session_class(config)()
    entered.current = True
    session = session_class(config)(**address.arguments)
    address.enter(session)
    return session
