"""The sidebar: Mesa's reset, play and step, and a knob for every setting that can have an effect now."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import solara
from mesa.visualization import Slider
from mesa.visualization.solara_viz import ModelController, ModelCreator

from ecosystem.app.events import listen, tell
from ecosystem.app.knobs import has_effect, label, spacing
from ecosystem.app.worlds.session_model import AS_FILE, PRESET, SEED, SessionModel
from ecosystem.errors import EcosystemError
from ecosystem.scenario.entries.changes import Knob
from ecosystem.scenario.presets import presets

TIERS = ("trigram", "gpt2-nano", "gpt2-micro", "gpt2-mini", "gpt2")  # from fast to realistic
PACE = 250  # default play interval in milliseconds
OTHER = "something else"  # shown for a value that is not among a knob's choices
Turns = dict[str, solara.Reactive[Any]]


@solara.component
def Controls(session: solara.Reactive[SessionModel]) -> None:
    """Show Mesa's buttons with the knobs of the steered world, each of which acts as soon as it is turned.

    The parts of Mesa's SolaraViz are used one by one: it would also show settings that have no effect here.
    """
    now = session.value
    listen(bool(now.live_runs))
    (refusal, refused_step), refuse = solara.use_state(("", 0))  # why a knob was refused, and for which step
    positions = {name: _position(now, name) for name in now.knobs}
    turns: Turns = solara.use_memo(
        lambda: {name: solara.reactive(value) for name, value in positions.items()}, [tuple(positions)]
    )
    at_reset: Turns = solara.use_memo(lambda: _values_at_reset(now), [])
    arguments = solara.use_memo(lambda: solara.reactive({**turns, **at_reset}), [id(turns)])
    knobs = _Knobs(now, turns, solara.use_ref({}), refuse)

    def rewind() -> None:
        if not now.running and not now.live_runs:
            now.rewind()
            tell()

    solara.use_effect(knobs.subscribe, [id(now), tuple(turns)])
    solara.use_effect(knobs.follow, [id(now), tuple(positions.values())])
    solara.use_effect(tell, [id(now)])  # after *Reset*
    solara.use_effect(rewind, [now.running])
    present = [name for name in turns if has_effect(now.knobs[name], now.upcoming_scenario)]
    shown = tuple((name, turns[name].value, positions[name]) for name in present)
    parameters = solara.use_memo(
        lambda: {name: _knob_parameter(now, name, turns[name]) for name in present}, [id(now), shown]
    )  # new parameters make Mesa recreate everything
    with solara.Sidebar(), solara.Column():
        _Player(session, arguments, now.running)
        if parameters:
            with solara.Card("Knobs"):
                ModelCreator(session, parameters).key(" ".join(present))
        if at_reset:
            with solara.Card("On Reset"):
                _ResetChoices(session, at_reset)
        for sentence in (now.refused, refusal if refused_step == now.upcoming else ""):
            if sentence:
                solara.Error(sentence)


@solara.component
def _Player(session: solara.Reactive[SessionModel], arguments: solara.Reactive[Turns], running: bool) -> None:
    """Show Mesa's *Reset*, play and *Step*, and the interval of playing."""
    interval, every, threads = solara.use_reactive(PACE), solara.use_reactive(1), solara.use_reactive(value=False)
    ran, restarts = solara.use_ref(running), solara.use_ref(0)
    if running and not ran.current:
        restarts.current += 1  # Mesa keeps its buttons disabled once a model has ended, even if it can continue
    ran.current = running
    with solara.Card("Controls"):
        ModelController(
            session, model_parameters=arguments, play_interval=interval, render_interval=every, use_threads=threads
        ).key(f"restart {restarts.current}")
        solara.SliderInt(f"Play interval: {interval.value} ms", interval, min=50, max=2000, step=50)


@solara.component
def _ResetChoices(session: solara.Reactive[SessionModel], at_reset: Turns) -> None:
    """Show the models and the seed that *Reset* begins with."""
    if PRESET in at_reset:
        tiers = [AS_FILE, *(tier for tier in TIERS if tier in presets(session.value.config.base))]
        tiers += [asked for asked in [at_reset[PRESET].value] if asked not in tiers]  # by a link
        solara.Select("models (applied on Reset)", tiers, at_reset[PRESET])
    solara.InputText("seed (applied on Reset)", at_reset[SEED])


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


def _values_at_reset(session: SessionModel) -> Turns:
    """Return what applies on *Reset*, the models and the seed; nothing for stored runs."""
    scenario = session.config.scenario
    if scenario is None:
        return {}
    asked = session.arguments  # by a link
    seed = {SEED: solara.reactive(asked.get(SEED, str(scenario.seed)))}
    if scenario.modality != "text" or not scenario.models:
        return seed
    return {PRESET: solara.reactive(asked.get(PRESET, AS_FILE)), **seed}
