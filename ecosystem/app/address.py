"""The address of the page: it follows what the reader looks at, and a link to it leads back there.

``?step=7&panel=reading&quality=top_1`` names a step, a panel and measures. Of a live world it also has the models and
the seed that *Reset* was given, and the knobs that were turned (``turn=STEP:NUMBER:POSITION``), so that the world is
computed again to the same numbers. A link can set nothing else: whoever wrote it may not be who follows it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import solara

from ecosystem.app.events import CHANGES, PROGRESS
from ecosystem.app.worlds.session_model import PRESET, SEED, SessionModel
from ecosystem.errors import EcosystemError, ScenarioError, nearest
from ecosystem.scenario.entries.changes import Knob

STEP, PANEL, TURN = "step", "panel", "turn"
MEASURES = ("contamination", "quality", "diversity")
EXPLORER = ("table", "x", "y", "colour", "mark")
STORY = ("story", "scene")
PANELS = ("web", *MEASURES, "ledger", "instruments", "reach", "columns", "reading", "preview")
SINGLE = (STEP, PANEL, SEED, PRESET, *MEASURES, *EXPLORER, *STORY)
LONGEST = 200  # characters of a value that are read
FEW = 3  # unknown keys that are named


class Address:
    """What an address names: ``values`` by name, the knobs ``turned``, and ``problems``: what was ignored, and why."""

    def __init__(self, values: Mapping[str, str], turned: tuple[str, ...], problems: list[str]) -> None:
        self.values: solara.Reactive[dict[str, str]] = solara.reactive(dict(values))
        self.arguments = {name: values[name] for name in (SEED, PRESET) if name in values}
        self.turned, self.problems = turned, problems
        self._turned: tuple[object, list[str]] = (None, [])  # a scenario, and the knobs turned in it

    @classmethod
    def read(cls, search: str, stories: Mapping[str, int] | None = None) -> Address:
        """Read the part of an address after the question mark, of a page with these stories: name → its scenes."""
        values: dict[str, str] = {}
        turned: list[str] = []
        problems: list[str] = []
        unknown: dict[str, None] = {}
        for name, value in parse_qsl(search[:20_000], max_num_fields=None):
            if name == TURN:
                turned.append(value[:LONGEST])
            elif name in SINGLE:
                values[name] = value[:LONGEST]
            elif not name.startswith("solara"):
                unknown[name[:LONGEST]] = None
        if unknown:
            problems.append(_unknown([*unknown]))
        if (panel := values.get(PANEL)) is not None and panel not in PANELS:
            del values[PANEL]
            problems.append(f'There is no panel "{panel}"{nearest(panel, PANELS)}; choose from {", ".join(PANELS)}.')
        problems += _wrong_scene(values, stories or {})
        return cls(values, tuple(turned), problems)

    def __getitem__(self, name: str) -> str:
        return str(self.values.value.get(name, ""))

    def set(self, **values: str) -> None:
        """Set values by name, and redraw what reads them; an empty one is removed."""
        self.values.set({name: value for name, value in {**self.values.value, **values}.items() if value})

    def enter(self, session: SessionModel) -> None:
        """Take a session to the step that the address names; a live world is stepped there, with the knobs turned."""
        live = bool(session.live_runs)
        useless = [*self.arguments, *([TURN] if self.turned else [])] if not live else []
        if useless:
            self.problems.append(f"The address sets {' and '.join(useless)}, which a stored run does not take.")
        wrong = []
        for turn in self.turned if live else ():
            try:
                at, knob, value = _turn(turn, session)
                session.turn(knob.path, value, at)
            except EcosystemError as error:
                wrong.append(f"The address turns a knob ({turn}): {error}")
        self.problems += wrong[:FEW]
        if wrong[FEW:]:
            self.problems.append(f"The address turns knobs wrongly {len(wrong) - FEW} times more.")
        if not (written := self[STEP]):
            return
        last = session.live_runs[0].scenario.steps if live else session.last
        if not (written.isascii() and written.isdigit() and len(written) < 10 and int(written) <= last):
            self.problems.append(f'The address names step "{written}"; give a whole number from 0 to {last}.')
        elif live:
            session.live_runs[0].request(int(written))
        else:
            session.look(int(written))

    def query(self, session: SessionModel) -> str:
        """Return the address of what the page shows now, without the panel."""
        values = {name: value for name, value in self.values.value.items() if name not in (STEP, PANEL, SEED, PRESET)}
        step = session.step_shown
        turns: list[tuple[str, str]] = []
        if session.live_runs:
            if session.shown is None:
                step = session.live_runs[0].target
            values |= session.arguments
            scenario = session.live_runs[0].scenario
            if self._turned[0] is not scenario:  # it is a new one whenever a knob was turned
                self._turned = scenario, turned(session)
            turns = [(TURN, turn) for turn in self._turned[1]]
        return urlencode([(STEP, str(max(0, step))), *values.items(), *turns], quote_via=quote, safe=":/")


def _unknown(names: Sequence[str]) -> str:
    """Return a sentence about keys that an address cannot have."""
    told = ", ".join(f'"{name}"' for name in names[:FEW]) + (f" and {len(names) - FEW} more" if names[FEW:] else "")
    none = "is none" if len(names) == 1 else "are none"
    return f"The address has {told}, which {none} of {', '.join((*SINGLE, TURN))}."


def _wrong_scene(values: dict[str, str], stories: Mapping[str, int]) -> Iterator[str]:
    """Remove a story and a scene that a page with these stories does not have; yield a sentence for each."""
    if (story := values.get("story")) is not None and story not in stories:
        del values["story"]
        there = f"it has {', '.join(stories)}" if stories else "ecosystem view --teach shows some"
        yield f'This page has no story "{story}"; {there}.'
    if (scene := values.get("scene")) is None:
        return
    name = values.get("story") or next(iter(stories), "")
    scenes = stories.get(name, 0)
    if scene.isascii() and scene.isdigit() and 1 <= int(scene) <= scenes:
        values["scene"] = str(int(scene))
        return
    del values["scene"]
    if stories:
        yield f'The address names scene "{scene}"; the story {name} has scenes 1 to {scenes}.'
    else:
        yield "The address names a scene, but this page has no stories; ecosystem view --teach shows some."


def _turn(text: str, session: SessionModel) -> tuple[int, Knob, Any]:
    """Return the step, the knob and the value of a turned knob; raise ScenarioError if there is no such position."""
    at, number, position = [*text.split(":", 2), "", ""][:3]
    knob = session.knobs.get(f"knob_{number}")
    if knob is None:
        raise ScenarioError(f"write step:number:position, where number is 0 to {len(session.knobs) - 1}.")
    if not (at.isascii() and at.isdigit() and 1 <= int(at[:9]) <= session.live_runs[0].scenario.steps):
        raise ScenarioError("the step must be one that this world has.")
    if knob.choices is not None:
        if position not in knob.choices:
            raise ScenarioError(f"the knob has no position {position!r}; it has {', '.join(knob.choices)}.")
        return int(at), knob, knob.choices[position]
    assert knob.low is not None and knob.high is not None
    try:
        value = float(position)
    except ValueError:
        value = float("nan")
    if not knob.low <= value <= knob.high:
        raise ScenarioError(f"the position must be a number from {knob.low:g} to {knob.high:g}.")
    return int(at), knob, value


def turned(session: SessionModel) -> list[str]:
    """Return the knobs that were turned in the first live world, as an address has them."""
    first = session.config.scenario
    scenario = session.live_runs[0].scenario
    if first is None:  # a fork of a stored run
        return []
    before = {(change.at, path): value for change in first.changes for path, value in change.set.items()}
    found = []
    for name, knob in session.knobs.items():
        now = {change.at: change.set[knob.path] for change in scenario.changes if knob.path in change.set}
        if (start := scenario.value(knob.path)) != first.value(knob.path):  # turned before *Reset*
            now.setdefault(1, start)
        for at, value in now.items():
            if before.get((at, knob.path)) != value:
                choices = (knob.choices or {}).items()
                position = value if knob.choices is None else next((name for name, v in choices if v == value), "")
                found.append(f"{at}:{name.removeprefix('knob_')}:{position}")
    return sorted(found)


@solara.component_vue("address.vue")
def _Link(query: str, panel: str) -> None: ...


@solara.component
def AddressBar(address: Address, session: SessionModel) -> None:
    """Keep the browser's address up to date, and offer to copy it."""
    CHANGES.listen()
    PROGRESS.listen()
    panel = solara.use_memo(lambda: address[PANEL], [])
    _Link(query=address.query(session), panel=panel)
