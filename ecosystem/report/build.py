"""Build the report of a run and write it, with its charts, to the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl
from jinja2 import Environment

from ecosystem.formats import counted, number, percent
from ecosystem.report import charts, findings, html, over_seeds, summaries
from ecosystem.report.closed_forms import Agreement
from ecosystem.report.data import RunReportData
from ecosystem.report.findings import plus_minus
from ecosystem.report.html import hue, tinted
from ecosystem.report.panels import collapse, instruments, profile
from ecosystem.report.run_charts import metric_title
from ecosystem.report.sections import CONTENTS, sections
from ecosystem.report.summaries import Outcome
from ecosystem.runs.records import CHARTS, note_digests
from ecosystem.runs.run import Run
from ecosystem.runs.store import Store

# Expected measurements: name → (scope, metric). The report names those that are missing.
EXPECTED = {
    "quality on held-out human text": ("trainer", "cross_entropy"),
    "the randomly initialised model and the unigram model": ("reference", "cross_entropy"),
    "contamination of the web": ("web", "synthetic_share"),
    "contamination of training sets": ("training_set", "synthetic_share"),
    "diversity": ("trainer", "distinct_2"),
    "human vocabulary kept": ("trainer", "vocabulary_kept_1"),
}
CARDS = 6  # maximum number of populations with a card each
LAWS = 12  # maximum number of closed forms with a card; the table of final figures has all of them


@dataclass(frozen=True)
class Card:
    """A highlighted number, with its standard error and a line below it."""

    title: str
    value: str
    below: str
    error: str = ""
    hue: str = ""


def write_report(run: Run) -> Path:
    """Write ``report.html`` and ``charts/<name>.svg``, ``.png`` and ``.csv`` to a run's folder; return the page's path.

    The run may be unfinished. Raises StoreError if the folder cannot be read or written.
    """
    data = RunReportData.of(run)
    parts, scenario = sections(data), run.scenario
    expected = EXPECTED if scenario.modality == "text" else {}
    notes = (findings.missing(data.metrics, expected), findings.caution(data.outcomes))
    context = {
        "title": f"{scenario.name}, seed {run.seed}",
        "name": scenario.name,
        "description": scenario.description,
        "facts": _facts(data),
        "titles": {key: title for key, title in CONTENTS.items() if key == "findings" or key in parts},
        "populations": [tinted(data.populations, name) for name in data.populations],
        "seeds": over_seeds.link(run),
        "progress": findings.progress(run.last_step, scenario.steps),
        "cards": _cards(data),
        "findings": " ".join(_sentences(data)),
        "notes": [note for note in notes if note],
        "sections": [section(data) for section in parts.values()],
        "version": run.environment.get("packages", {}).get("ecosystem", ""),
    }
    return publish(run.store, "run.html", context, data.specs, len(data.populations))


def publish(
    store: Store,
    template: str,
    context: Mapping[str, Any],
    specs: dict[str, dict[str, Any]],
    colours: int,
    pages: Environment = html.PAGES,
) -> Path:
    """Write a page as ``report.html``, and its charts as SVG, PNG and CSV, to ``store``; return the path of the page.

    ``context``: template variables. ``specs``: Vega-Lite specifications by chart name. ``colours``: number of
    populations with a colour.
    """
    files = {}
    for name, spec in specs.items():
        files[f"charts/{name}.svg"], files[f"charts/{name}.png"] = charts.pictures(spec)
        files[f"charts/{name}.csv"] = charts.csv_of(spec).encode()
    files["report.html"] = html.page(template, context, specs, colours, pages)
    note_digests(store.folder / CHARTS, {f"../{name}": content for name, content in files.items()})
    for name, content in files.items():
        store.write(name, content)
    for path in (store.folder / "charts").glob("*.*"):
        if path.suffix in (".svg", ".png", ".csv") and path.stem not in specs:  # left over from an earlier report
            path.unlink()
    return store.folder / "report.html"


def _facts(data: RunReportData) -> dict[str, object]:
    run, scenario = data.run, data.run.scenario
    trainers = sum(population.count for population in scenario.trainers.values())
    documents = summaries.series(data.metrics, "web", "documents").sort("step")["value"]
    facts = {
        "steps": f"{run.last_step} of {scenario.steps}" if run.last_step < scenario.steps else str(run.last_step),
        "dates": None if scenario.calendar is None else scenario.calendar.span(0, run.last_step),
        "seed": run.seed,
        "trainers": f"{trainers} in {counted(len(scenario.trainers), 'population')}" if trainers else "none",
        "models": ", ".join(dict.fromkeys(data.models.values())) or "none",
        "sites": data.metrics.filter(pl.col("scope") == "site")["id"].n_unique() or None,
        "documents": f"{documents[-1] if len(documents) else 0:,.0f} on the web at the end",
    }
    return {label: value for label, value in facts.items() if value is not None}


def _sentences(data: RunReportData) -> list[str]:
    overlap = data.run.scenario.measure.overlap
    return [
        *findings.contamination(data.metrics, data.populations, data.theme.calendar),
        *instruments.findings(data),
        *findings.without_real_data(data.run.scenario, data.run.last_step),
        *findings.agreement(data.agreements),
        *findings.quality(data.outcomes),
        *findings.diversity(data.metrics, data.populations),
        *collapse.findings(data),
        *profile.findings(data),
        *findings.refusals(data.metrics),
        *findings.overlap(data.metrics, overlap.words if overlap is not None else 0),
        *findings.conditions(data.metrics, data.run.scenario.at(data.run.last_step).policies, data.theme.calendar),
    ]


def _cards(data: RunReportData) -> list[Card]:
    cards = []
    share = summaries.series(data.metrics, "web", "synthetic_share")
    if share.height:
        first, last = share["value"][0], share["value"][-1]
        below = f"{percent(first)} at {data.step_name(share['step'][0])}"
        cards.append(Card("Synthetic share of the web", percent(last), below))
    cards += [
        _agreement_card(a, hue(data.populations, a.population), data.step_name(a.step)) for a in data.agreements[:LAWS]
    ]
    compared = [outcome for outcome in data.outcomes if outcome.last_step > outcome.first_step]
    if len(compared) > CARDS:
        ranked = sorted(compared, key=lambda outcome: outcome.change)
        compared = [*ranked[:2], *ranked[-2:]]
    return cards + [_outcome_card(o, hue(data.populations, o.population)) for o in compared]


def _agreement_card(agreement: Agreement, colour: str, step: str) -> Card:
    title = f"{agreement.population}: {metric_title(agreement.metric)} at {step}"
    error = f"±\u00a0{agreement.error:.1g}" if agreement.error else ""
    below = f"closed form: {number(agreement.predicted, 3)}"
    return Card(title, number(agreement.simulated, 3), below, error, colour)


def _outcome_card(outcome: Outcome, colour: str) -> Card:
    change, sign, error = plus_minus(outcome.change, outcome.error, sign=True).partition("\u00a0±")
    below = f"nats per token, {number(outcome.before)} → {number(outcome.after)}"
    if outcome.verdict == "unchanged":
        below += " · no measurable change"
    elif outcome.towards_random and outcome.verdict == "degraded":
        below += f" · {percent(outcome.towards_random)} of the way to random"
    return Card(outcome.population, change, below, sign + error, colour)
