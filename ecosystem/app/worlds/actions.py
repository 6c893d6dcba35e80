"""Actions on a live world: list its changes, preview and enforce policies, save its scenario."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar

import polars as pl
import tomli_w

from ecosystem.app.worlds.live_run import Closed, LiveRun
from ecosystem.app.worlds.live_run import Progress as StepProgress
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionModel
from ecosystem.errors import EcosystemError, ScenarioError
from ecosystem.families.base import Progress
from ecosystem.parsing import parse_toml
from ecosystem.policies.base import POLICIES, Policy
from ecosystem.runs.audit import audit
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario

T = TypeVar("T")
FORM = 'write a policy as { kind = "minhash_dedup", threshold = 0.7 }, on one line.'
NEW = "new: "  # prefix of choices that are not policies of the scenario


class BackgroundTask(Generic[T]):
    """A slow task run in a thread, which calls ``news`` whenever its state changes.

    ``progress``, ``result``, ``error`` (a sentence) and ``done`` may be read at any time.
    """

    def __init__(self, do: Callable[[Progress], T], news: Callable[[], None]) -> None:
        self.progress, self.done, self._left = StepProgress(), False, False
        self.result: T | None = None
        self.error: str | None = None
        self._do, self._news = do, news
        self._thread = threading.Thread(target=self._work, name="background task", daemon=True)
        self._thread.start()

    def leave(self) -> None:
        """Stop at the next report of progress, since the result is no longer needed."""
        self._left = True

    def join(self, seconds: float | None = None) -> None:
        """Wait for the task to end."""
        self._thread.join(seconds)

    def _work(self) -> None:
        try:
            self.result = self._do(self._report)
        except Closed:
            pass
        except EcosystemError as error:
            self.error = str(error)
        except Exception as error:
            self.error = f"the task failed: {type(error).__name__}: {error}"
            raise
        finally:
            self.done = True
            if not self._left:
                self._news()

    def _report(self, what: str, done: int, total: int) -> None:
        if self._left:
            raise Closed
        if what != self.progress.what:
            self.progress = StepProgress(what, done, total)
            self._news()


def in_background(session: SessionModel, do: Callable[[Progress], T]) -> BackgroundTask[T]:
    """Begin a slow task of a session; the page is redrawn when it ends."""
    with session.apart():
        return BackgroundTask(do, session.news)


def inline(value: Any) -> str:
    """Return plain data as a TOML value on one line."""
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {inline(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return f"[{', '.join(map(inline, value))}]"
    return tomli_w.dumps({"v": value}).partition("= ")[2].strip()


def changes(scenario: Scenario, first: Scenario | None = None) -> list[tuple[int, str, bool]]:
    """Return the changes of a scenario: step, "path = value", and whether ``first``, its origin, lacks the change.

    Sorted by step. Without ``first`` no change counts as new.
    """
    before = {(c.at, path, inline(value)) for c in (first or scenario).changes for path, value in c.set.items()}
    current = {(c.at, path): inline(value) for c in scenario.changes for path, value in c.set.items()}
    listed = sorted(current.items(), key=lambda item: item[0][0])
    return [(at, f"{path} = {value}", (at, path, value) not in before) for (at, path), value in listed]


def saved(session: SessionModel, live_run: LiveRun) -> str:
    """Return a scenario file that replays a live world and continues it.

    Relative paths are left unchanged, so that the fingerprint is the same; a comment says where they are looked up.
    """
    scenario, machine = live_run.scenario, live_run.machine
    news = [
        f"From {scenario.step_name(at)} on: {what}"
        for at, what, new in changes(scenario, session.config.scenario)
        if new
    ]
    replay = f"ecosystem run {scenario.name}.toml --device {machine.device} --threads {machine.threads}"
    lines = [
        f"A session of {scenario.name} after {max(0, live_run.t)} of {scenario.steps} steps. {replay}",
        "gives the same numbers bit for bit with the same versions of the packages.",
        "Relative paths are looked up in the current folder, then beside this file;",
        f"if it has any, save it in {live_run.base.resolve()}.",
        *news,
    ]
    # The ends of a knob were valid with the file's values, but may not be with the present ones.
    knobs = [knob for knob in scenario.knobs if not scenario.value_problem(knob.path, *knob.ends)]
    scenario = scenario.model_copy(update={"knobs": knobs})
    return "".join(f"# {' '.join(line.split())}\n" for line in lines) + "\n" + scenario.to_toml()


def choices(scenario: Scenario) -> list[str]:
    """Return the choices of a preview: the scenario's policies by name, then ``new: <kind>``."""
    text = scenario.modality == "text"
    return [*scenario.policies, *(f"{NEW}{kind}" for kind, cls in POLICIES.all().items() if text or not cls.reads_text)]


def template(scenario: Scenario, choice: str) -> str:
    """Return a policy as TOML to edit: the scenario's, or a new one of a kind with its required fields filled in."""
    if not choice.startswith(NEW):
        return inline(scenario.policies[choice].plain())
    kind = choice.removeprefix(NEW)
    first: dict[str, Any] = {
        "source": next(iter(scenario.sources), ""),
        "model": next(iter(scenario.models), ""),
        "rewards": [{"feature": "words", "scale": 0.1}],
    }
    fields = POLICIES.get(kind).model_fields
    required = {name: first[name] for name, field in fields.items() if field.is_required() and name in first}
    alternatives: list[dict[str, Any]] = [{}, {"fraction": 0.2}, {"threshold": 0.5}, {"share": 0.5}, {"drafts": 2}]
    for more in alternatives:  # some kinds require one of several fields
        if more.keys() <= fields.keys():
            try:
                return inline(POLICIES.get(kind)(**required, **more).plain())
            except ValueError:
                continue
    return inline({"kind": kind, **required})  # the preview then names the fields that are missing


def proposed(scenario: Scenario, choice: str, text: str) -> tuple[str, dict[str, Any]]:
    """Return the name and the table of a policy as typed.

    The chosen policy keeps its name unless its kind was changed. Any other is named after its kind, with a number if a
    different policy has that name already.

    Raises ScenarioError if the text is not an inline table with a kind.
    """
    try:
        table = parse_toml(f"policy = {text.strip()}")["policy"]
    except ValueError as error:
        raise ScenarioError(f"this is not valid TOML ({error}): {FORM}") from None
    if not isinstance(table, dict):
        raise ScenarioError(f"this is not an inline table: {FORM}")
    if not isinstance(table.get("kind"), str):
        raise ScenarioError(f'this table has no "kind": {FORM}')
    kind, number = table["kind"], 2
    if choice in scenario.policies and scenario.policies[choice].kind == kind:
        return choice, table
    name = kind
    while name in scenario.policies and not _same(scenario.policies[name], table):
        name, number = f"{kind}_{number}", number + 1
    return name, table


def _same(policy: Policy, table: Mapping[str, Any]) -> bool:
    try:
        fields = {key: value for key, value in table.items() if key != "kind"}
        return policy.kind == table["kind"] and policy == type(policy).model_validate(fields)
    except ValueError:
        return False


def previewed(view: RunView, step: int, choice: str, text: str, progress: Progress) -> pl.DataFrame:
    """Return the audit of a policy, as typed, on the web after a step.

    Raises EcosystemError if the policy cannot be parsed, is not allowed in the scenario, or fails.
    """
    name, table = proposed(view.scenario.at(step), choice, text)
    return audit(Run.open(view.run.path), [name], {f"policies.{name}": table}, step=step, progress=progress)


def enforce(live_run: LiveRun, choice: str, text: str, population: str) -> str:
    """Put a policy first at the select gate of a population, from the next step on; return its name.

    An edited policy of the scenario changes at every gate that names it. Raises ScenarioError if that is not allowed.
    """
    now = live_run.scenario.at(live_run.upcoming)
    name, table = proposed(now, choice, text)
    gate = now.trainers[population].select
    unchanged = name in now.policies and _same(now.policies[name], table)
    live_run.change(
        ({} if unchanged else {f"policies.{name}": table})
        | {f"trainers.{population}.select": [name, *(other for other in gate if other != name)]}
    )
    return name
