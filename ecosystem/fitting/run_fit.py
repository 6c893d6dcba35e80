"""Running a fit: search, screening, noise, posterior, predictions, tables and report."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from ecosystem.cards import Grid, card
from ecosystem.errors import EcosystemError, ScenarioError, path_argument, path_of
from ecosystem.fitting.emulator import Emulator
from ecosystem.fitting.findings import sentences, summary
from ecosystem.fitting.likelihood import Likelihood, Noise
from ecosystem.fitting.posterior import ROUGH, Posterior, sample
from ecosystem.fitting.results import FitResults
from ecosystem.fitting.runs import Request, Runs, missing_problem
from ecosystem.fitting.search import Search, require_optuna
from ecosystem.fitting.spec.fit import DRAW_SEEDS, NOISE_SEEDS, Fit
from ecosystem.fitting.spec.targets import Target
from ecosystem.fitting.trials import described
from ecosystem.input_files import is_url
from ecosystem.placement.spec import IGNORED_BY_STUDIES
from ecosystem.plugins import load_plugins
from ecosystem.runs.files import archive_existing
from ecosystem.runs.remote.places import open_run
from ecosystem.scenario.inputs import require_inputs
from ecosystem.scenario.presets import FITS, located
from ecosystem.scenario.scenario import Scenario
from ecosystem.streams import Streams
from ecosystem.studies.executors.options import ExecutionKeywords, ExecutionOptions
from ecosystem.studies.progress import StudyProgress
from ecosystem.studies.run_study import StudyRunner, study_folder
from ecosystem.types import Floats

if TYPE_CHECKING:
    import pandas as pd

    from ecosystem.fitting.report.plots import FitPlots


@dataclass(frozen=True)
class FitResult:
    """The result of a fit: its numbers, its folder, its report and its duration."""

    results: FitResults
    folder: Path
    report: Path
    seconds: float
    run_seconds: float  # sum over the runs that this call executed

    @cached_property
    def plot(self) -> FitPlots:
        """The charts of this fit as Altair objects: ``result.plot.posterior("rate")``, ``result.plot["pulls"]``."""
        from ecosystem.fitting.report.plots import FitPlots

        return FitPlots(self.results)

    def to_pandas(self) -> pd.DataFrame:
        """Return a row for each parameter: prior and posterior in its units, and diagnostics."""
        return self.results.parameter_table.to_pandas()

    def __repr__(self) -> str:
        return f"<FitResult {self.results.fit.name}: {len(self.results.fit.names)} parameters, report {self.report}>"

    def _repr_html_(self) -> str:
        columns = ["parameter", "unit", "prior_low", "prior_high", "median", "low", "high", "width_ratio"]
        rows = self.results.parameter_table.select(columns).rows()
        facts = {"points": len(self.results.trials), "report": str(self.report)}
        about = " ".join(sentences(self.results)).replace("**", "")
        return card(f"Fit {self.results.fit.name}", about, facts, Grid("Parameters", columns, rows))

    def summary(self) -> dict[str, Any]:
        """Return a machine-readable summary."""
        return {
            "fit": str(self.folder),
            "report": str(self.report),
            **summary(self.results),
            "seconds": round(self.seconds, 1),
            "seconds_of_runs": round(self.run_seconds, 1),
        }


def fit(
    file: Fit | str | Path,
    out: str | Path = "outputs",
    *,
    quiet: bool = True,
    base: Path = Path(),
    plugins: Iterable[str | Path] = (),
    **options: Unpack[ExecutionKeywords],
) -> FitResult:
    """Fit a scenario to measurements (a Fit or the path of a file), write the report and return the results.

    ``base`` is the folder to which the paths of a Fit object are relative. ``plugins`` are Python files with kinds
    that the scenario uses (:func:`ecosystem.load_plugin`), and ``options`` are fields of :class:`ExecutionOptions`.
    The command ``ecosystem fit`` does the same. Raises EcosystemError for errors that the user can correct.
    """
    load_plugins(plugins)
    if not isinstance(file, Fit):
        path = located(path_of(file, "Fit"), prefer=FITS)
        base, file = path.parent, Fit.load(path)
    return run_fit(
        file, base, ExecutionOptions.of(options), StudyProgress(quiet=quiet), out=str(path_argument(out, "out"))
    )


def run_fit(
    spec: Fit,
    folder: Path,
    options: ExecutionOptions,
    progress: StudyProgress,
    *,
    out: str = "outputs",
    fresh: bool = False,
) -> FitResult:
    """Run a fit; ``folder`` is that of its file. Finished runs are reused, and interrupted ones resumed.

    Results are in ``<out>/fits/<name>-<fingerprint>``; the runs of all fits share ``<out>/fits/runs``. ``fresh`` moves
    both aside first.

    The state of a fit is that of its runs alone: everything else is computed anew from their numbers, so that a fit
    that was killed gives the same files as one that was not. Raises ScenarioError for an invalid file, and
    EcosystemError if most trials fail.
    """
    started = time.monotonic()
    require_optuna()
    spec = spec.resolved(folder)
    _, scenarios, base_folder = spec.check(folder)
    require_inputs(scenarios, base_folder, spec.where)
    base = spec.scenario(folder)[0]
    if base.placement is not None:
        progress.say(f"note: {IGNORED_BY_STUDIES}.")
    targets = spec.dated(base)
    if fresh:
        move_aside(spec, out)
    with study_folder(spec, out, "fits", "spec.json") as store, StudyRunner(options, progress) as runner:
        runs = Runs(spec, base, base_folder, targets, options, f"{out.rstrip('/')}/fits/runs", runner)
        with threadpool_limits(1):  # so that sums have one order on every machine
            results = _Fitting(spec, base, base_folder, targets, runs, progress).execute(store.folder / "study.db")
        from ecosystem.fitting.report import write_fit

        report = write_fit(results, store)
        for sentence in sentences(results):
            progress.say(sentence.replace("**", ""))
    return FitResult(results, store.folder, report, time.monotonic() - started, runs.seconds)


def move_aside(spec: Fit, out: str) -> None:
    """Move the results of a fit and the runs of all fits aside; raise EcosystemError for a URL."""
    if is_url(out):
        raise EcosystemError(f"{out}: nothing is moved in an object store; start again at another URL (--out).")
    for name in (f"{spec.name}-{spec.fingerprint()}", "runs"):
        archive_existing(Path(out, "fits", name))


@dataclass(frozen=True)
class _Fitting:
    """The stages of a fit, each from the numbers of the earlier ones."""

    fit: Fit
    base: Scenario
    folder: Path
    targets: list[Target]
    runs: Runs
    progress: StudyProgress

    def execute(self, storage: Path) -> FitResults:
        """Run all stages and return the results; ``storage``: the file of Optuna's study."""
        fit = self.fit
        self._check_targets()
        search = Search(fit, self.targets, self.runs)
        trials = [*search.execute(storage), *search.screen()]
        failed = [trial for trial in trials if trial.state == "failed"]
        if failed:
            first = failed[0]
            self.progress.say(
                f"{len(failed)} of {len(trials)} trials failed and are left out, for instance "
                f"{described(first.values)}: {first.error}"
            )
        emulator = Emulator.fit(trials, search.seed("fit/emulator"))
        k = len(fit.names)
        rough = Likelihood.of(emulator, Noise.between_replicates(emulator), self.targets)
        first_posterior = sample(rough, k, fit.seed, "first posterior", most=ROUGH)
        noise_u, noise_outputs = self._own_seeds("noise", first_posterior, fit.noise, NOISE_SEEDS)
        noise = Noise.of_runs(emulator, noise_u, noise_outputs)
        likelihood = Likelihood.of(emulator, noise, self.targets)
        posterior = sample(likelihood, k, fit.seed, "posterior")
        draw_u, draws = self._own_seeds("predictions", posterior, fit.draws, DRAW_SEEDS)
        return FitResults(
            fit, self.base, self.targets, trials, emulator, likelihood, posterior, noise_u, noise_outputs, draw_u, draws
        )

    def _check_targets(self) -> None:
        """Run the scenario at the middle of the prior and refuse targets that it does not measure."""
        point = np.full(len(self.fit.names), 0.5)
        request = Request(f"middle of the prior, seed {self.fit.seed}", self.fit.values(point), self.fit.seed)
        [output] = self.runs(f"{self.fit.name}, middle of the prior", [request])
        if output.error:
            raise EcosystemError(f"{self.fit.where}: the run at the middle of the prior failed: {output.error}")
        if np.isfinite(output.values).all():
            return
        metrics = open_run(output.place).metrics
        problems = []
        for number, target in enumerate(self.targets):
            if not np.isfinite(output.values[number]):
                problem = missing_problem(metrics, target) or "value: is not a finite number in the runs"
                problems.append(f"{self.fit.where}: targets.{number}.{problem}.")
        raise ScenarioError("\n".join(problems))

    def _own_seeds(self, stage: str, posterior: Posterior, count: int, first_seed: int) -> tuple[Floats, Floats]:
        """Run points of a posterior, each with its own seed; return the points and outputs of runs without errors.

        Shapes: [runs, parameters] and [runs, targets].
        """
        rng = Streams(self.fit.seed).at(f"fit/{stage}").rng()
        points = posterior.u[rng.choice(len(posterior.u), count, replace=False)]
        requests = [
            Request(f"{stage} {i}, seed {seed}", self.fit.values(u), seed)
            for i, (u, seed) in enumerate(zip(points, range(self.fit.seed + first_seed, 2**31), strict=False))
        ]
        outputs = self.runs(f"{self.fit.name}, {stage}", requests)
        good = [i for i, output in enumerate(outputs) if not output.error and np.isfinite(output.values).all()]
        if len(good) < max(2, count // 2):
            error = next((output.error for output in outputs if output.error), "targets without a value")
            raise EcosystemError(f"{self.fit.where}: {count - len(good)} of {count} runs of {stage} failed: {error}")
        return points[good], np.array([outputs[i].values for i in good])


def planned(spec: Fit, folder: Path) -> dict[str, Any]:
    """Check a fit and return its plan: parameters, targets with their steps, and the number of runs of each stage."""
    spec = spec.resolved(folder)
    _, scenarios, base_folder = spec.check(folder)
    require_inputs(scenarios, base_folder, spec.where)
    targets = spec.dated(spec.scenario(folder)[0])
    k = len(spec.names)
    stages = {
        "trials": spec.trials * spec.replicates,
        "screening": spec.morris * (k + 1),
        "noise": spec.noise,
        "predictions": spec.draws,
        "middle of the prior": 1,
    }
    return {
        "parameters": {name: parameter.plain() for name, parameter in spec.parameters.items()},
        "targets": [target.plain() for target in targets],
        "runs": stages,
        "runs_at_most": sum(stages.values()),
    }


def plan_text(plan: Mapping[str, Any]) -> str:
    """Return a plan as text."""
    lines = [f"parameter {name}: {json.dumps(entry)}" for name, entry in plan["parameters"].items()]
    for entry in plan["targets"]:
        target = Target.model_validate(entry | {"date": None} if entry.get("date") else entry)
        lines.append(
            f"{'target' if target.use == 'fit' else 'held out'} {target.what} at step {target.step}: "
            f"{target.value:g} ± {np.hypot(target.error, target.discrepancy):.3g}"
        )
    stages = ", ".join(f"{count} of {stage}" for stage, count in plan["runs"].items() if count)
    return "\n".join([*lines, f"{plan['runs_at_most']} runs at most: {stages}"])
