"""Building the report of a fit: its tables and its page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from ecosystem.errors import DataError
from ecosystem.fitting.findings import TIED, sentences, summary
from ecosystem.fitting.identify import pull_table
from ecosystem.fitting.report import charts as fit_charts
from ecosystem.fitting.results import LEVEL, FitResults
from ecosystem.fitting.search import FAR, morris_design
from ecosystem.fitting.trials import misfits
from ecosystem.formats import number, significant
from ecosystem.report import charts, publish
from ecosystem.report.findings import signed
from ecosystem.report.html import Cell, Cells, Figure, Source, Table, environment
from ecosystem.runs.store import Store
from ecosystem.studies.results import write_table
from ecosystem.studies.sensitivity import Index, indices

PAGES = environment(Path(__file__).with_name("templates"))
_SCREENED = 6  # targets with a chart of their screening, at most
_LISTED = 40  # rows of a table of targets' pulls


def write_fit(results: FitResults, store: Store) -> Path:
    """Write the tables and the report of a fit into its folder; return the path of the page."""
    results.write(store)
    store.write("fit.json", json.dumps(summary(results), indent=1).encode())
    write_table(store, "pulls", pull_table(results.pulls, results.fit.names))
    screened, problem = screening(results)
    write_table(store, "morris", _screening_table(screened))
    specs = {name: charts.specification(chart) for name, chart in drawn(results, screened).items()}

    def figures(prefix: str, *, full: bool = False) -> list[Figure]:
        source = Source(store.folder.name)
        return [Figure.of(name, spec, source, full=full) for name, spec in specs.items() if name.startswith(prefix)]

    single = [pull for pull in results.pulls if pull.label not in _groups(results)]
    context = {
        "title": results.fit.name,
        "description": results.fit.description,
        "facts": _facts(results),
        "findings": sentences(results),
        "data": figures("target_"),
        "omitted": max(0, len(_quantities(results)) - fit_charts.MOST_CURVES),
        "targets": _target_table(results),
        "marginals": figures("posterior_"),
        "parameters": _parameter_table(results),
        "correlations": next(iter(figures("correlations")), None),
        "pulls": [*figures("pulls", full=True), *figures("narrowing", full=True)],
        "single_pulls": _pull_rows(single[:_LISTED], results.fit.names) if single else None,
        "screening": figures("morris_", full=True),
        "without_effects": [title for title, rows in screened.items() if not _has_effects(rows)],
        "screening_problem": problem,
        **_methods(results),
    }
    return publish(store, "fit.html", context, specs, 0, PAGES)


def drawn(results: FitResults, screened: dict[str, list[Index]]) -> dict[str, Any]:
    """Return the charts of the report by name; ``screened``: :func:`screening`."""
    names, groups = results.fit.names, _groups(results)
    grouped = [pull for pull in results.pulls if pull.label in groups]
    measured = enumerate(_quantities(results)[: fit_charts.MOST_CURVES])
    found = {f"target_{i}": fit_charts.measurements(results, what) for i, what in measured}
    found |= {
        f"posterior_{name}": fit_charts.posterior(name, parameter, results.samples[name])
        for name, parameter in results.fit.parameters.items()
    }
    if len(names) > 1:
        found["correlations"] = fit_charts.correlations(results.correlations, TIED)
    found["pulls"] = fit_charts.pulls(grouped, names)
    found["narrowing"] = fit_charts.narrowing(grouped, names)
    shown = [(title, rows) for title, rows in screened.items() if _has_effects(rows)][: 1 + _SCREENED]
    return found | {f"morris_{i}": fit_charts.screening(title, rows) for i, (title, rows) in enumerate(shown)}


def _has_effects(rows: Sequence[Index]) -> bool:
    """Return whether any parameter has an effect; a chart of none would be empty."""
    return any(row.main > 0 or row.total > 0 for row in rows)


def _quantities(results: FitResults) -> list[str]:
    return list(dict.fromkeys(target.what for target in results.targets))


def _groups(results: FitResults) -> set[str]:
    return {target.part for target in results.targets}


def _methods(results: FitResults) -> dict[str, object]:
    """Return what the description of the methods names."""
    return {
        "emulators": _emulator_rows(results),
        "level": f"{100 * LEVEL:.0f} %",
        "far": f"{FAR:g}",
        "noise": len(results.noise_outputs),
        "draws": len(results.draws),
        "replicates": results.fit.replicates,
    }


def _facts(results: FitResults) -> dict[str, object]:
    states = [trial.state for trial in results.trials]
    facts: dict[str, object] = {
        "scenario": results.fit.base,
        "parameters": len(results.fit.names),
        "targets": sum(target.use == "fit" for target in results.targets),
        "held out": sum(target.use == "predict" for target in results.targets),
        "points": len(states),
        "given up early": states.count("pruned"),
        "failed": states.count("failed"),
    }
    return {label: value for label, value in facts.items() if value}


def screening(results: FitResults) -> tuple[dict[str, list[Index]], str]:
    """Return the Morris indices of the misfit and of each target by title; or why there are none."""
    trials = [trial for trial in results.trials if trial.stage == "morris"]
    if not trials:
        return {}, ""
    design, names = morris_design(results.fit), results.fit.names
    outputs = np.array([trial.outputs[0] for trial in trials])
    logs = np.log10(np.maximum(misfits(outputs, results.targets, results.emulator.between), 1e-12))
    columns = {"Misfit (decimal logarithm)": logs}
    columns |= {target.label: outputs[:, i] for i, target in enumerate(results.targets)}
    found: dict[str, list[Index]] = {}
    for title, y in columns.items():
        try:
            found[title] = indices(names, design, y)
        except DataError as error:
            return found, f"{title}: {error}"
    return found, ""


def _screening_table(screened: dict[str, list[Index]]) -> pl.DataFrame:
    rows = [(title, i.axis, i.main, i.main_half, i.total) for title, found in screened.items() for i in found]
    kinds = {"of": pl.String, "parameter": pl.String}
    kinds_of_numbers = dict.fromkeys(["mu_star", "mu_star_half", "sigma"], pl.Float64)
    return pl.DataFrame(rows, schema={**kinds, **kinds_of_numbers}, orient="row").fill_nan(None)


def _parameter_table(results: FitResults) -> Table:
    head = ["parameter", "unit", "prior, 90 %", "mean", "90 % interval", "width", "R̂", "effective samples"]
    rows: list[Cells] = [
        [
            row["parameter"],
            row["unit"] or "–",
            f"{significant(row['prior_low'])} to {significant(row['prior_high'])}",
            Cell(significant(row["mean"], 4), bold=True),
            f"{significant(row['low'], 4)} to {significant(row['high'], 4)}",
            number(row["width_ratio"]),
            number(row["r_hat"], 3),
            f"{row['effective_samples']:,.0f}",
        ]
        for row in results.parameter_table.iter_rows(named=True)
    ]
    return Table(head, rows, left=(0, 1))


def _target_table(results: FitResults) -> Table:
    head = ["target", "when", "use", "observed", "simulated", "z", "emulator", "explains", "source"]
    rows: list[Cells] = []
    for target, row in zip(results.targets, results.target_table.iter_rows(named=True), strict=True):
        rows.append(
            [
                target.what,
                results.base.step_name(row["step"]),
                "held out" if target.use == "predict" else "fitted",
                f"{row['observed']:.4g} ± {row['error']:.2g}",
                f"{row['simulated']:.4g} ± {row['simulated_sd']:.2g}",
                Cell(signed(row["z"], 1), bold=not row["covered"]),
                row["emulator"],
                f"{100 * row['emulator_explains']:.0f} %",
                " – ".join(filter(None, [target.source, target.note])),
            ]
        )
    return Table(head, rows, left=(0, 1, 2, 6, 8))


def _pull_rows(found: Sequence[Any], names: Sequence[str]) -> Table:
    rows: list[Cells] = [
        [pull.label, *(signed(float(shift), 2) for shift in pull.shift), number(pull.surprise, 1)] for pull in found
    ]
    return Table(["target", *names, "deviation from the others"], rows)


def _emulator_rows(results: FitResults) -> Table:
    """Return how many targets each sort of emulator serves, and the mean share of variance that each explains."""
    kinds: list[str] = [surface.kind for surface in results.emulator.surfaces]
    rows: list[Cells] = []
    for kind, errors in results.emulator.errors.items():
        spread = results.emulator.spread
        known = np.isfinite(errors) & (spread > 0)
        explained = 1 - (errors[known] / spread[known]) ** 2
        share = f"{100 * float(explained.mean()):.1f} %" if known.any() else "–"
        rows.append([kind, str(kinds.count(kind)), share])
    return Table(["emulator", "targets that use it", "variance explained, leaving one point out"], rows)
