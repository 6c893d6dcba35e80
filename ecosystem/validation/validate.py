"""``ecosystem validate``: compare the simulation with the closed forms of the literature.

A check is a ``[[theory]]`` entry of a scenario with steps to ``check``. The scenario runs as a world (agents, gates,
corpus) in which each trainer has its own site and is one replicate; the mean over trainers is compared with the law.
Checks that take hundreds of generations (such as times to collapse) are in :mod:`ecosystem.validation.long_checks`.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl

from ecosystem.errors import EcosystemError, nearest
from ecosystem.interpreter import cores
from ecosystem.runs.files import io_errors
from ecosystem.scenario.presets import bundled
from ecosystem.scenario.scenario import Scenario
from ecosystem.sources.base import Truth
from ecosystem.theory.laws import predict
from ecosystem.validation.long_checks import LIMIT, LONG, Check, long_checks


def files() -> dict[str, Path]:
    """Return the bundled validation scenarios by name."""
    scenarios: dict[str, Path] = {}
    for place in bundled("scenarios"):
        for file in sorted((place / "validation").glob("*.toml")):
            scenarios.setdefault(file.stem, file)
    return scenarios


def validate(names: Sequence[str] = (), *, seed: int | None = None, replicates: int | None = None) -> list[Check]:
    """Run the checks of these scenarios (default: all) and return them.

    ``replicates`` is the number of trainers of every population. Scenarios run in parallel, one process per core. Raise
    EcosystemError for an unknown name.
    """
    choices = {**files(), LONG: None}
    for name in names:
        if name not in choices:
            raise EcosystemError(
                f'--check: unknown check "{name}"{nearest(name, choices)}; choose {", ".join(choices)}.'
            )
    chosen = [(name, choices[name]) for name in dict.fromkeys(names or choices)]
    workers = min(cores(), len(chosen))
    if workers == 1:
        return [check for name, file in chosen for check in _checks(file, seed, replicates)]
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        jobs = [pool.submit(_checks, file, seed, replicates) for _, file in chosen]
        return [check for job in jobs for check in job.result()]


def _checks(file: Path | None, seed: int | None, replicates: int | None) -> list[Check]:
    return long_checks(seed or 1, replicates or 2000) if file is None else run_checks(file, seed, replicates)


def run_checks(file: Path, seed: int | None = None, replicates: int | None = None) -> list[Check]:
    """Run one scenario as a world, and compare it with its laws."""
    from ecosystem.simulation.world import World

    scenario = sized(Scenario.load(file), replicates)
    world = World(scenario, seed, base=file.parent)
    metrics = [world.snapshot().metrics]
    last = max((step for theory in scenario.theory for step in theory.check), default=0)
    while world.t < last:
        world.step()
        metrics.append(world.snapshot().metrics)
    return list(compare(file.stem, scenario, pl.concat(metrics), world.truth))


def sized(scenario: Scenario, replicates: int | None) -> Scenario:
    """Return the scenario with ``replicates`` trainers in every population and the same documents per site.

    Populations of writers who choose get as many communities of the same size.
    """
    if replicates is None:
        return scenario
    communities = {
        f"writers.{name}.{key}": value
        for name, writer in scenario.writers.items()
        if writer.choice is not None
        for key, value in (
            ("count", writer.count // writer.choice.communities * replicates),
            ("choice.communities", replicates),
        )
    }
    if not scenario.trainers:
        return scenario.override(communities)
    initial, sites = scenario.web.initial, scenario.web.sites
    if scenario.web.graph not in ("isolated", "parallel") or initial is None or sites is None:
        raise EcosystemError(
            f"{scenario.name}: only trainers of an isolated web or of parallel webs can be replicated; remove "
            "--replicates."
        )
    parallel = scenario.web.graph == "parallel"
    people = 0 if parallel else sum(writer.count * writer.sites for writer in scenario.writers.values())
    new = replicates * (1 if parallel else len(scenario.trainers)) + people
    values = communities | {f"trainers.{name}.count": replicates for name in scenario.trainers}
    values |= {f"writers.{name}.count": replicates for name in scenario.writers if parallel}
    return scenario.override({**values, "web.sites": new, "web.initial.documents": initial.documents * new // sites})


def compare(name: str, scenario: Scenario, metrics: pl.DataFrame, truth: Truth | None) -> Iterable[Check]:
    """Compare the theory of a scenario with measurements (columns of ``schema.METRICS``); yield the checks.

    Replicates are the trainers of a population, or the communities of a population of writers.
    """
    by_population = metrics.with_columns(population=pl.col("id").str.split("/").list.first())
    for theory in scenario.theory:
        rows = by_population.filter(
            pl.col("scope") == ("trainer" if theory.population in scenario.trainers else "community")
        )
        measured = rows.filter((pl.col("population") == theory.population) & (pl.col("metric") == theory.metric))
        steps = np.array(theory.check, dtype=np.int64)
        for step, predicted in zip(
            theory.check, predict(theory.law, steps + theory.first, theory.parameters, truth), strict=True
        ):
            values = measured.filter(pl.col("step") == step)["value"].to_numpy()
            if values.size < 2:
                raise EcosystemError(
                    f"{name}: {theory.population} has {values.size} measurements of {theory.metric} at step {step}; "
                    "a check needs two or more trainers or communities."
                )
            label = f"{name}/{theory.population}/{theory.metric}@{step}"
            yield Check.of(label, theory.source, float(predicted), values)


def table(checks: Sequence[Check]) -> pl.DataFrame:
    """Return the checks as a table: check, source, predicted, relation, simulated, error, z, replicates, verdict.

    ``relation`` is the relation of the simulated value to the prediction: equal, or a bound.
    """
    return pl.DataFrame(
        {
            "check": [c.name for c in checks],
            "source": [c.source for c in checks],
            "predicted": [c.predicted for c in checks],
            "relation": [c.relation for c in checks],
            "simulated": [c.simulated for c in checks],
            "error": [c.error for c in checks],
            "z": [c.z for c in checks],
            "replicates": [c.replicates for c in checks],
            "verdict": ["agrees" if c.passed else "differs" for c in checks],
        }
    )


def text(checks: Sequence[Check]) -> str:
    """Format the table for a terminal, with a summary in the last line."""
    width = max(len(c.name) for c in checks)
    lines = [f"{'check':{width}}  {'predicted':>11}  {'simulated ± SE':>22}  {'z':>6}  {'verdict':7}  source"]
    for c in checks:
        simulated = f"{c.simulated:.5g} ± {c.error:.2g}"
        verdict = "agrees" if c.passed else "DIFFERS"
        lines.append(
            f"{c.name:{width}}  {c.relation.strip('='):1}{c.predicted:>10.5g}  {simulated:>22}  {c.z:>+6.2f}"
            f"  {verdict:7}  {c.source}"
        )
    failed = sum(not c.passed for c in checks)
    lines.append(f"{len(checks) - failed} of {len(checks)} checks agree with theory (|z| <= {LIMIT:g})")
    return "\n".join(lines)


def write(checks: Sequence[Check], folder: Path) -> Path:
    """Write the table as ``validation.parquet`` and ``validation.html``; return the path of the page."""
    from ecosystem.report.html import render

    frame = table(checks)
    rows = [[f"{value:.5g}" if isinstance(value, float) else str(value) for value in row] for row in frame.iter_rows()]
    agreeing = sum(check.passed for check in checks)
    page = render("validation.html", head=frame.columns, rows=rows, agreeing=agreeing, limit=f"{LIMIT:g}")
    with io_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        frame.write_parquet(folder / "validation.parquet")
        (folder / "validation.html").write_text(page, encoding="utf-8")
    return folder / "validation.html"
