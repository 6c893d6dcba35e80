"""Preview a policy on the web of a step, and enforce it in a live world."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl
import solara

from ecosystem.app.elements import table_row
from ecosystem.app.events import CHANGES, PROGRESS
from ecosystem.app.worlds.actions import BackgroundTask, choices, enforce, in_background, previewed, template
from ecosystem.app.worlds.live_run import LiveRun, Progress
from ecosystem.app.worlds.run_view import RunView
from ecosystem.app.worlds.session_model import SessionModel
from ecosystem.errors import EcosystemError
from ecosystem.runs.audit import MEASURES, cells
from ecosystem.scenario.scenario import Scenario


@dataclass(frozen=True)
class Enforcement:
    """A policy enforced at the select gate of a population from ``step`` on, and the scenario that resulted."""

    policy: str
    population: str
    step: int
    scenario: Scenario

    @classmethod
    def of(cls, live_run: LiveRun, choice: str, text: str, population: str) -> Enforcement:
        """Enforce a policy as typed; raise ScenarioError if it is not allowed."""
        step = live_run.upcoming
        name = enforce(live_run, choice, text, population)
        return cls(name, population, step, live_run.scenario)

    def is_pending(self, live_run: LiveRun) -> bool:
        """Whether no step has been made under the policy yet."""
        return self.scenario is live_run.scenario and live_run.t < self.step

    def __str__(self) -> str:
        start = self.scenario.step_name(self.step)
        return f"From {start} on, {self.policy} comes first at the select gate of {self.population}."


@solara.component
def PolicyPreview(session: SessionModel, view: RunView, live_run: LiveRun | None, step: int) -> None:
    """Offer to apply a policy to the web of a step, and to enforce it."""
    CHANGES.listen()
    scenario = solara.use_memo(lambda: view.scenario.at(step), [id(view.scenario), step])
    first_choice = choices(scenario)[0]
    choice, set_choice = solara.use_state(first_choice)
    text, set_text = solara.use_state(solara.use_memo(lambda: template(scenario, first_choice), []))
    (audit, audited_step), set_audit = solara.use_state((None, step))  # the audit may still be running
    population, set_population = solara.use_state(next(iter(scenario.trainers), ""))
    enforcement, set_enforcement = solara.use_state(None)
    refusal, set_refusal = solara.use_state("")  # why a policy was not enforced
    solara.use_effect(lambda: audit.leave if audit is not None else None, [audit])

    def preview() -> None:
        set_refusal("")
        set_audit((in_background(session, lambda report: previewed(view, step, choice, text, report)), step))

    def act() -> None:
        assert live_run is not None
        try:
            set_enforcement(Enforcement.of(live_run, choice, text, population))
            set_refusal("")
        except EcosystemError as error:
            set_refusal(str(error))

    busy = audit is not None and not audit.done
    with solara.Div(classes=["eco-preview"]):
        _policy_editor(scenario, choice, text, set_choice, set_text)
        with solara.Div(classes=["eco-buttons"]):
            solara.Button("Preview", on_click=preview, disabled=busy, color="primary", small=True)
            if live_run is not None and scenario.trainers and live_run.upcoming <= live_run.scenario.steps:
                EnforceButton(live_run, act)
                _population_selector(scenario, population, set_population)
        if enforcement is not None and live_run is not None and enforcement.is_pending(live_run):
            solara.Success(str(enforcement))
        if refusal:
            solara.Error(refusal)
        if audit is not None:
            AuditResult(audit, audit.done, audit.progress, audited_step)


def _policy_editor(
    scenario: Scenario, choice: str, text: str, set_choice: Callable[[str], None], set_text: Callable[[str], None]
) -> None:
    """Show the choice of policies and the chosen one as editable TOML; emptying the text restores the policy."""

    def choose(name: str) -> None:
        set_choice(name)
        set_text(template(scenario, name))

    def edit(value: str) -> None:
        set_text(value if value.strip() else template(scenario, choice))

    offered = choices(scenario)
    solara.Select("policy", offered, value=choice if choice in offered else offered[0], on_value=choose, dense=True)
    solara.InputText("as TOML (clear to restore the chosen policy)", text, on_value=edit, continuous_update=True)


def _population_selector(scenario: Scenario, population: str, set_population: Callable[[str], None]) -> None:
    """Show the choice of the population to enforce the policy for, if there are several."""
    if len(scenario.trainers) > 1:
        solara.Select("for", list(scenario.trainers), value=population, on_value=set_population, dense=True)


@solara.component
def EnforceButton(live_run: LiveRun, act: Callable[[], None]) -> None:
    """Offer to enforce a policy from the next step on."""
    PROGRESS.listen()
    solara.Button(
        f"Enforce from {live_run.scenario.step_name(live_run.upcoming)}", on_click=act, outlined=True, small=True
    )


@solara.component
def AuditResult(audit: BackgroundTask[pl.DataFrame], done: bool, progress: Progress, step: int) -> None:
    """Show the audit of a policy by true origin and depth, or its progress."""
    if audit.error is not None:
        solara.Error(audit.error)
    elif not done:
        solara.Text(f"Auditing the web of step {step}" + (f" · {progress.what}" if progress.what else ""))
        solara.ProgressLinear(value=True)
    elif audit.result is not None:
        _audit_table(audit.result.filter(pl.col("by") != "author"), step)


def _audit_table(rows: pl.DataFrame, step: int) -> None:
    """Show the rows of an audit of one policy as a table."""
    shown = [measure for measure in MEASURES if measure in rows["measure"]]
    title = f"{rows['policy'][0]} ({rows['kind'][0]}) on the web after step {step}"
    with solara.Div(classes=["eco-results"]), solara.v.Html(tag="table"):
        solara.v.Html(tag="caption", children=[title])
        table_row("th", ("documents by", "", *(MEASURES[measure] for measure in shown)))
        for (by, group), figures in rows.group_by("by", "group", maintain_order=True):
            values = {row["measure"]: row for row in figures.iter_rows(named=True)}
            table_row("td", (str(by), "" if by == "all" else str(group), *cells(values, shown)))
