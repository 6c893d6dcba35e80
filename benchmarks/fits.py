"""How honest fits are, and which search serves them best: ``python -m benchmarks.fits coverage`` (or ``search``).

Both simulate scenarios/mixed_loop.toml in memory, without run folders. The figures are in docs/fit.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
from scipy import stats
from threadpoolctl import threadpool_limits

from ecosystem.fitting.emulator import Emulator
from ecosystem.fitting.likelihood import Likelihood, Noise
from ecosystem.fitting.posterior import MOST, ROUGH, Posterior, sample
from ecosystem.fitting.runs import Output, Request, values_of
from ecosystem.fitting.search import Search
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.targets import Target
from ecosystem.fitting.trials import Trial
from ecosystem.scenario.scenario import Scenario
from ecosystem.simulation.world import World
from ecosystem.types import Floats

FILE = Path(__file__).parent.parent / "scenarios/fits/mixed_loop.toml"
LEVEL = 0.9


@dataclass
class WorldRuns:
    """Runs worlds in memory; a substitute for :class:`ecosystem.fitting.runs.Runs`."""

    fit: Fit
    base: Scenario
    targets: Sequence[Target]
    count: int = 0

    @classmethod
    def of(cls, file: Path = FILE, **changed: object) -> WorldRuns:
        """Open a fit file, with other values of its keys."""
        fit = Fit.load(file).resolved(file.parent)
        fit = fit.model_copy(update=changed)
        base = fit.scenario(file.parent)[0]
        return cls(fit, base, fit.dated(base))

    def __call__(self, name: str, requests: Sequence[Request]) -> list[Output]:
        """Run worlds one after another and return what they give at the targets."""
        outputs = []
        for request in requests:
            scenario = self.fit.scenario_at(self.base, request.values, FILE.parent)
            world = World(scenario, request.seed)
            tables = [world.snapshot().metrics]
            for _ in range(max(target.step or 0 for target in self.targets)):
                world.step()
                tables.append(world.snapshot().metrics)
            outputs.append(Output(values_of(pl.concat(tables), self.targets)))
            self.count += 1
        return outputs


@dataclass(frozen=True)
class DataSet:
    """A simulated data set: its true parameters as probabilities of the prior, its targets, and the posterior."""

    truth: Floats
    targets: Sequence[Target]
    posterior: Posterior

    @property
    def ranks(self) -> Floats:
        """Share of the posterior below the truth, [parameters]: uniform if the posterior is right."""
        return np.asarray((self.posterior.u < self.truth).mean(axis=0))


def data_sets(runs: WorldRuns, count: int, points: int, seed: int = 1, most: int = MOST) -> list[DataSet]:
    """Simulate data sets at parameters drawn from the prior, each with its own seed and errors, and fit each.

    The emulator is common to all: ``points`` fill the prior. All else is done as in a fit: noise runs at a first
    posterior, and the final posterior, of at most ``most`` steps.
    """
    fit, k = runs.fit, len(runs.fit.names)
    search = Search(fit, runs.targets, runs)
    emulator = Emulator.fit(search.fill(points), search.seed("fit/emulator"))
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        truth = rng.random(k)
        [output] = runs("truth", [Request("truth", fit.values(truth), 10_000 + number)])
        values = output.values + rng.normal(0, [np.hypot(t.error, t.discrepancy) for t in runs.targets])
        targets = [t.model_copy(update={"value": float(v)}) for t, v in zip(runs.targets, values, strict=True)]
        rough = Likelihood.of(emulator, Noise.between_replicates(emulator), targets)
        first = sample(rough, k, number, "first posterior", most=ROUGH)
        u = first.u[rng.choice(len(first.u), fit.noise, replace=False)]
        seeds = range(20_000 + number * fit.noise, 20_000 + (number + 1) * fit.noise)
        noisy = runs("noise", [Request("noise", fit.values(x), s) for x, s in zip(u, seeds, strict=True)])
        noise = Noise.of_runs(emulator, u, np.array([output.values for output in noisy]))
        posterior = sample(Likelihood.of(emulator, noise, targets), k, number, "posterior", most=most)
        found.append(DataSet(truth, targets, posterior))
    return found


def scores(sets: Sequence[DataSet]) -> Floats:
    """Return the ranks of the truths as normal scores, [data sets, parameters]: standard normal if they are right."""
    ranks = np.array([one.ranks for one in sets])
    return np.asarray(stats.norm.ppf(np.clip(ranks, 1e-3, 1 - 1e-3)))


def covered(sets: Sequence[DataSet], level: float = LEVEL) -> Floats:
    """Return in how many data sets the central interval contains the truth, [parameters]."""
    ranks = np.array([one.ranks for one in sets])
    return np.asarray((np.abs(ranks - 0.5) <= level / 2).sum(axis=0))


@click.group()
def main() -> None:
    """Measure fits of simulated data."""


@main.command()
@click.option("--sets", type=click.IntRange(min=4), default=100, show_default=True, help="Simulated data sets.")
@click.option("--points", type=click.IntRange(min=16), default=48, show_default=True, help="Points of the emulator.")
@click.option("--noise", type=click.IntRange(min=4), default=12, show_default=True, help="Noise runs of a fit.")
def coverage(sets: int, points: int, noise: int) -> None:
    """Print how often 90 % intervals contain the true parameters of simulated data."""
    runs = WorldRuns.of(noise=noise)
    with threadpool_limits(1):
        found = data_sets(runs, sets, points)
    counts, z = covered(found), scores(found)
    click.echo(f"{sets} data sets, {runs.count} runs; expected {LEVEL * sets:g} ± {np.sqrt(sets * LEVEL * 0.1):.1f}")
    for i, name in enumerate(runs.fit.names):
        width = np.mean([one.posterior.u[:, i].std() for one in found]) * np.sqrt(12)
        click.echo(
            f"{name}: {counts[i]} of {sets} intervals contain the truth; scores {z[:, i].mean():+.2f} ± "
            f"{z[:, i].std(ddof=1):.2f} (0 ± 1); width {width:.2f} of the prior's"
        )


class SobolSearch(Search):
    """Trials that all fill the prior."""

    def execute(self, storage: Path | None = None) -> list[Trial]:
        """Run as many trials of the start as there are trials."""
        return self.fill(self.fit.trials)


class ProcessSearch(Search):
    """A search by Optuna's Gaussian process instead of Parzen estimators."""

    def sampler(self, optuna: Any, seed: int) -> Any:
        """Return the sampler."""
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=0)


SEARCHES = {"Sobol points only": SobolSearch, "Parzen estimators": Search, "Gaussian process": ProcessSearch}


@main.command()
@click.option("--points", type=click.IntRange(min=4), default=40, show_default=True, help="Points of the comparison.")
def search(points: int) -> None:
    """Print how wrong emulators are at the posterior, after searches of different sorts with as many trials."""
    runs = WorldRuns.of()
    fit, k = runs.fit, len(runs.fit.names)
    used = [i for i, target in enumerate(runs.targets) if target.use == "fit"]
    errors = np.array([runs.targets[i].error for i in used])
    with threadpool_limits(1):
        emulators, misfit = {}, {}
        for name, sort in SEARCHES.items():
            trials = sort(fit, runs.targets, runs).execute()
            emulators[name] = Emulator.fit(trials, 1)
            misfit[name] = min(trial.misfit for trial in trials if trial.state == "complete")
        first = next(iter(emulators.values()))
        posterior = sample(Likelihood.of(first, Noise.between_replicates(first), runs.targets), k, 1, "posterior")
        u = posterior.u[np.random.default_rng(1).choice(len(posterior.u), points, replace=False)]
        replicates = [
            runs("reference", [Request("", fit.values(x), fit.seed + r) for x in u]) for r in range(fit.replicates)
        ]
    truth = np.mean([[output.values for output in outputs] for outputs in replicates], axis=0)
    for name, emulator in emulators.items():
        wrong = (emulator.predict(u)[0] - truth)[:, used] / errors
        click.echo(
            f"{name}: error of the emulators {np.sqrt((wrong**2).mean()):.3f} of the targets' errors; smallest misfit "
            f"{misfit[name]:.2f}"
        )


if __name__ == "__main__":
    main()
