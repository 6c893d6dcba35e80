"""The report of a study: one page that works offline, with the table behind every picture and the methods in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ecosystem.report import html, publish
from ecosystem.report.html import escape
from ecosystem.store import Store
from ecosystem.studies import analysis
from ecosystem.studies.report import sections
from ecosystem.studies.report.data import StudyReportData, findings
from ecosystem.studies.results import Results, write_table
from ecosystem.studies.spec import Study


def write_study(study: Study, results: Results, store: Store) -> Path:
    """Write the tables of what a study says and its report into the study's folder; return the page's path."""
    data = StudyReportData(study, results)
    if study.compares:
        write_table(store, "effects", analysis.table(data.effects))
        write_table(store, "ranking", data.places)
        write_table(store, "regret", analysis.regret_table(study, results))
    else:
        write_table(store, "sensitivity", analysis.sensitivity_table(study, results))
    parts: dict[str, tuple[str, Callable[[StudyReportData], str]]] = {
        "effects": ("What each arm changes", sections.effects),
        "map": ("Two axes together", sections.maps),
        "sensitivity": ("How much each axis matters", sections.sensitivity),
        "ranking": ("Ranking", sections.rankings),
        "worlds": ("Over uncertain worlds", sections.worlds),
        "course": ("Over time", sections.course),
        "cost": ("What it costs", sections.cost),
        "runs": ("Runs", sections.runs),
        "methods": ("Methods", _methods),
    }
    bodies = {key: (title, draw(data)) for key, (title, draw) in parts.items()}
    shown = {key: (title, body) for key, (title, body) in bodies.items() if body}
    links = "".join(f'<a href="#{key}">{title}</a>' for key, (title, _) in shown.items())
    legend = "".join(html.tinted(data.arms, arm) for arm in data.arms[:8])
    more = f"<span>and {len(data.arms) - 8} more</span>" if len(data.arms) > 8 else ""
    told = "".join(f"<li>{html.prose(sentence)}</li>" for sentence in findings(data))
    body = (
        f'{_header(data)}<nav><div>{links}</div><div class="legend">{legend}{more}</div></nav><main>'
        f'<h2 id="findings">Findings</h2><ul class="findings">{told}</ul>'
        + "".join(f'<section><h2 id="{key}">{title}</h2>{body}</section>' for key, (title, body) in shown.items())
        + "</main><footer>Written by ecosystem. This page loads nothing from anywhere.</footer>"
    )
    return publish(store, study.name, body, data.specs, len(data.arms))


def _header(data: StudyReportData) -> str:
    study, runs = data.study, data.results.runs
    failed = runs["error"].is_not_null().sum()
    facts = {
        "base": study.base,
        "arms": len(data.arms),
        "worlds": len(data.worlds) if data.worlds != [""] else None,
        "seeds": len(study.seeds),
        "runs": f"{runs.height}, {failed} of them failed" if failed else runs.height,
    }
    shown = "".join(f"<li>{name} <b>{escape(value)}</b></li>" for name, value in facts.items() if value is not None)
    lead = f'<p class="lead">{escape(study.description)}</p>' if study.description else ""
    return f'<header><h1>{escape(study.name)}</h1>{lead}<ul class="facts">{shown}</ul></header>'


def _methods(data: StudyReportData) -> str:
    study = data.study
    rows = "".join(
        f"<dt>{html.tinted(data.arms, arm)}</dt><dd>{escape(_paths(lever) or 'the base scenario as it is')}</dd>"
        for arm, lever in list(study.levers().items())[:64]
    )
    said = [
        f"The base scenario is {study.base}; every arm runs with the seeds {', '.join(map(str, study.seeds))}.",
        "All chance comes from streams named after who draws and when, so that what an arm does not change draws the "
        "same numbers in every arm (common random numbers), and a seed is a block.",
        "An effect is the mean over seeds of an arm's value minus the base arm's at the same seed; its 95 % interval "
        "is Student's, beside it the percentile bootstrap over seeds, widened for their small number. The unpaired "
        "interval is Welch's. Runs saved: how many more an unpaired comparison would need for the same standard error, "
        "both arms together.",
        "p values are of the paired t test and corrected by Holm's method for all comparisons of the measure; an arm "
        "counts as different below 0.05. With few seeds normality of the differences is assumed, not tested.",
        "Levers, which somebody can decide, and worlds, which nobody can, are crossed: every arm runs in every world.",
    ]
    if data.worlds != [""]:
        rows += "".join(
            f"<dt>world {escape(world)}</dt><dd>{escape(_paths(values))}</dd>"
            for world, values in study.settings().items()
        )
    return "".join(f"<p>{escape(sentence)}</p>" for sentence in said) + f"<dl>{rows}</dl>"


def _paths(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} = {value}" for path, value in values.items())
