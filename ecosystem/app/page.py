"""The page: Mesa's SolaraViz (reset, play, step, knobs) beside the panels.

Every browser tab has its own session and so its own world. Closing the tab closes them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import solara
import solara.lab
from mesa.visualization import Slider, SolaraViz
from solara.server.kernel_context import PageStatus, get_current_context, without_context

from ecosystem.app import panels
from ecosystem.app.events import PROGRESS, listen, tell
from ecosystem.app.knobs import label, spacing
from ecosystem.app.worlds.session_model import PRESET, SEED, SessionConfig, SessionModel
from ecosystem.errors import EcosystemError
from ecosystem.scenario.entries.changes import Knob
from ecosystem.scenario.presets import presets

CONFIG = SessionConfig()  # set by the server
TIERS = ("trigram", "gpt2-nano", "gpt2-micro", "gpt2-mini", "gpt2")  # from fast to realistic
PACE = 250  # default play interval in milliseconds
AS_FILE = "as in the scenario"
OTHER = "something else"  # shown for a value that is not among a knob's choices


def session_class(config: SessionConfig) -> type[SessionModel]:
    """Create the session class of the tab that is being drawn; SolaraViz instantiates it from arguments on *Reset*."""
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
    solara.Title(f"{CONFIG.title} · ecosystem")
    solara.Style(panels.STYLE)
    session = solara.use_memo(lambda: solara.reactive(session_class(CONFIG)()), [])
    solara.use_effect(lambda: session.value.close, [session.value])
    # A separate component, since SolaraViz gets new arguments whenever a knob is turned.
    Controls(session)
    _Sidebar()
    panels.Worlds(session.value)


@solara.component
def Controls(session: solara.Reactive[SessionModel]) -> None:
    """Show SolaraViz with the knobs of the steered world, each of which acts as soon as it is turned."""
    now = session.value
    listen(bool(now.live_runs))
    (refusal, refused_step), refuse = solara.use_state(("", 0))  # why a knob was refused, and for which step
    positions = {name: _position(now, name) for name in now.knobs}
    turns = solara.use_memo(
        lambda: {name: solara.reactive(value) for name, value in positions.items()}, [tuple(positions)]
    )
    knobs = _Knobs(now, turns, solara.use_ref({}), refuse)
    ran, restarts = solara.use_ref(True), solara.use_ref(0)
    interval = solara.use_reactive(PACE)
    if now.running and not ran.current:
        restarts.current += 1  # Mesa keeps its buttons disabled once a model has ended, even if it can continue
    ran.current = now.running

    def rewind() -> None:
        if not now.running and not now.live_runs:
            now.rewind()
            tell()

    solara.use_effect(knobs.subscribe, [id(now), tuple(turns)])
    solara.use_effect(knobs.follow, [id(now), tuple(positions.values())])
    solara.use_effect(tell, [id(now)])  # after *Reset*, Mesa still shows the state of the previous model
    solara.use_effect(rewind, [now.running])
    with solara.Sidebar():  # an extra element shifts what follows, so that Solara recreates it
        if restarts.current % 2:
            solara.Div()
    shown = tuple((turn.value, positions[name]) for name, turn in turns.items())
    parameters = solara.use_memo(
        lambda: _parameters(now, turns), [id(now), shown]
    )  # new parameters make Mesa recreate everything
    SolaraViz(session, components=[], model_params=parameters, name=CONFIG.title, play_interval=interval)
    for sentence in (now.refused, refusal if refused_step == now.upcoming else ""):
        if sentence:
            with solara.Sidebar():
                solara.Error(sentence)


@dataclass(frozen=True)
class _Knobs:
    """The knobs of a session as the page shows them: ``turns`` holds their values, ``seen`` those last shown."""

    session: SessionModel
    turns: dict[str, solara.Reactive[Any]]
    seen: Any  # a reference to a dict: name → position
    refuse: Callable[[tuple[str, int]], None]

    def follow(self) -> None:
        """Show positions that changed elsewhere: another world is steered, *Reset*, an enforced policy."""
        for name, turn in self.turns.items():
            if (value := _position(self.session, name)) != self.seen.current.get(name):
                self.seen.current[name] = value
                turn.set(value)

    def act(self, name: str, value: Any) -> None:
        """Turn a knob of the world; if that is refused, show why and turn it back on the page."""
        knob = self.session.knobs[name]
        if value == OTHER or not _was_turned(knob, _position(self.session, name), value):
            return
        try:
            self.session.turn(knob.path, value if knob.choices is None else knob.choices[value])
            self.seen.current[name] = _position(self.session, name)
            self.refuse(("", 0))
        except EcosystemError as error:
            self.refuse((str(error), self.session.upcoming))
            self.turns[name].set(_position(self.session, name))

    def subscribe(self) -> Callable[[], None]:
        """Let knobs act as they are turned; an effect of redrawing the page might run after the next step began."""
        subscriptions = [turn.subscribe(partial(self.act, name)) for name, turn in self.turns.items()]

        def unsubscribe() -> None:
            for end in subscriptions:
                end()

        return unsubscribe


def _was_turned(knob: Knob, before: Any, after: Any) -> bool:
    """Return whether a knob was turned; the values of a slider are subject to rounding."""
    return bool(before != after if knob.choices is not None else abs(after - before) > 0.5 * spacing(knob, before))


def _position(session: SessionModel, name: str) -> Any:
    """Return the position of a knob of the steered world: its number, or the name of its choice (else OTHER)."""
    knob = session.knobs[name]
    value = session.value(knob.path)
    if knob.choices is None:
        return value if value is not None else knob.low
    return next((name for name, choice in knob.choices.items() if choice == value), OTHER)


def _parameters(session: SessionModel, turns: Mapping[str, solara.Reactive[Any]]) -> dict[str, Any]:
    """Return the parameters of SolaraViz: knobs, which act at once, and model and seed, which apply on *Reset*."""
    return {name: _knob_parameter(session, name, turn) for name, turn in turns.items()} | _reset_parameters(session)


def _knob_parameter(session: SessionModel, name: str, turn: solara.Reactive[Any]) -> Any:
    """Return a knob as SolaraViz shows it: a list of choices, or a slider."""
    knob = session.knobs[name]
    if knob.choices is not None:
        values = list(knob.choices) + ([OTHER] if turn.value == OTHER else [])
        return {"type": "Select", "label": label(knob), "value": turn, "values": values}
    assert knob.low is not None and knob.high is not None
    step = spacing(knob, session.value(knob.path))
    # A slider would move a value outside its range without being turned, so widen the range.
    low, high = min(knob.low, turn.value), max(knob.high, turn.value)
    title = f"{label(knob)}: {turn.value:,.4g}"
    if isinstance(turn.value, int):
        return Slider(title, turn, int(low), int(high), int(step), int)
    return Slider(title, turn, low, high, step, float)


def _reset_parameters(session: SessionModel) -> dict[str, Any]:
    """Return the parameters that apply on *Reset*, model and seed; none for stored runs."""
    scenario = session.config.scenario
    if scenario is None:
        return {}
    seed = {"type": "InputText", "label": "seed (applied on Reset)", "value": str(scenario.seed)}
    if scenario.modality != "text":
        return {SEED: seed}
    tiers = [AS_FILE, *(tier for tier in TIERS if tier in presets(session.config.base))]
    return {
        PRESET: {"type": "Select", "label": "models (applied on Reset)", "value": AS_FILE, "values": tiers},
        SEED: seed,
    }
