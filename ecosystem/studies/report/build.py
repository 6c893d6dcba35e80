"""Building the report of a study: its tables and its page."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from markupsafe import Markup

from ecosystem.report import publish
from ecosystem.report.html import tinted
from ecosystem.runs.store import Store
from ecosystem.studies import analysis
from ecosystem.studies.law_fit import parameter_table
from ecosystem.studies.origins import cell_table
from ecosystem.studies.posterior_worlds import posterior_effect_table
from ecosystem.studies.report import origin_sections, posterior_sections, sections
from ecosystem.studies.report.data import StudyReportData, findings
from ecosystem.studies.report.pages import PAGES
from ecosystem.studies.results import Results, write_table

SECTIONS: dict[str, tuple[str, Callable[[StudyReportData], Markup | None]]] = {
    "posterior": ("With what is unknown of the parameters", posterior_sections.posterior),
    "effects": ("What each arm changes", sections.effects),
    "map": ("Two axes together", sections.maps),
    "sensitivity": ("How much each axis matters", sections.sensitivity),
    "ranking": ("Ranking", sections.rankings),
    "law": ("The fitted law", origin_sections.law),
    "mixtures": ("Machine text in training sets", origin_sections.mixtures),
    "survival": ("Survival by origin", origin_sections.survival),
    "worlds": ("Over uncertain worlds", sections.worlds),
    "profile": ("Collapse profile", sections.profile),
    "course": ("Over time", sections.course),
    "cost": ("Costs", sections.cost),
    "runs": ("Runs", sections.runs),
    "methods": ("Methods", sections.methods),
}


def write_study(results: Results, store: Store) -> Path:
    """Write the result tables and the report of a study into its folder; return the path of the page."""
    data = StudyReportData.of(results, store.folder.name)
    study = data.study
    if study.compares:
        write_table(store, "effects", analysis.effect_table(data.effects))
        write_table(store, "ranking", data.rankings)
        write_table(store, "regret", analysis.regret_table(results))
        if data.posterior_effects:
            write_table(store, "posterior_effects", posterior_effect_table(data.posterior_effects))
    else:
        write_table(store, "sensitivity", analysis.sensitivity_table(results))
    if data.fitted is not None:
        write_table(store, "fit", parameter_table(data.fitted))
        write_table(store, "mixtures", cell_table(data.mixed))
    bodies = {key: section(data) for key, (_, section) in SECTIONS.items()}
    shown = {key: body for key, body in bodies.items() if body}
    context = {
        "title": study.name,
        "description": study.description,
        "facts": _facts(data),
        "titles": {key: SECTIONS[key][0] for key in shown},
        "arms": [tinted(data.arms, arm) for arm in data.arms],
        "findings": findings(data),
        "sections": shown,
    }
    return publish(store, "study.html", context, data.specs, len(data.arms), PAGES)


def _facts(data: StudyReportData) -> dict[str, object]:
    study, runs = data.study, data.results.runs
    failed = runs["error"].is_not_null().sum()
    facts = {
        "base": study.base,
        "arms": len(data.arms),
        "worlds": len(data.worlds) if data.worlds != [""] else None,
        "draws of the posterior": len(study.seeds) if data.by_world is not None else None,
        "seeds": len((data.by_world or data.results).study.seeds),
        "runs": f"{runs.height}, {failed} of them failed" if failed else runs.height,
    }
    return {label: value for label, value in facts.items() if value is not None}
