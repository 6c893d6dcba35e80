"""Choose the points of the parameters that are simulated: a start that fills the prior, a search, and a screening."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ecosystem.errors import EcosystemError
from ecosystem.fitting.runs import Output, Request
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.targets import Target
from ecosystem.fitting.trials import Stage, State, Trial, described, means_over_replicates, misfits
from ecosystem.streams import Streams
from ecosystem.studies.spec.design import Design, unit_points
from ecosystem.types import Floats

FAR = 25.0  # a point is given up after its first run if its misfit exceeds the smallest of a first run by this, or by
# the number of targets if that is more: its likelihood is then far below that of the best point
INSTALL = "pip install 'ecosystem[fit]'"
_EPOCH = datetime(2000, 1, 1)  # of all trials in the study's file, so that the same fit gives the same file


@dataclass
class Search:
    """The trials of a fit, chosen in batches: the choice of a batch depends on the results of earlier ones only."""

    fit: Fit
    targets: Sequence[Target]
    runs: Callable[[str, Sequence[Request]], list[Output]]
    trials: list[Trial] = field(default_factory=list)
    between: Floats | float = 0.0  # variance between replicates of one point, [targets]; known after the start
    _first: list[float] = field(default_factory=list)  # misfit of the first replicate of earlier trials

    def execute(self, storage: Path | None = None) -> list[Trial]:
        """Run all trials and return them; ``storage``: where Optuna's study is written, as an SQLite file.

        Raises EcosystemError if most trials fail.
        """
        optuna = require_optuna()
        self.fill(-(-self.fit.trials // 2))
        with _quiet(optuna):
            study = optuna.create_study(direction="minimize")
            spaces = {name: optuna.distributions.FloatDistribution(0.0, 1.0) for name in self.fit.names}
            for trial in self.trials:
                study.add_trial(_frozen(optuna, trial, spaces))
            while len(self.trials) < self.fit.trials:
                batch = self.trials[-1].batch + 1
                study.sampler = self.sampler(optuna, self.seed("fit/sampler", batch) % 2**32)
                asked = [study.ask(spaces) for _ in range(min(self.fit.batch, self.fit.trials - len(self.trials)))]
                points = np.array([[trial.params[name] for name in self.fit.names] for trial in asked])
                for told, trial in zip(asked, self._run("search", batch, points), strict=True):
                    _tell(optuna, study, told, trial)
            if storage is not None:
                _store(optuna, self.fit.name, self.trials, spaces, storage)
        return self.trials

    def sampler(self, optuna: Any, seed: int) -> Any:
        """Return the sampler of Optuna that chooses a batch; see ``python -m benchmarks.fits search`` for others."""
        return optuna.samplers.TPESampler(seed=seed, multivariate=True, constant_liar=True, n_startup_trials=0)

    def fill(self, count: int) -> list[Trial]:
        """Run the first trials, which fill the prior, and return them; raise EcosystemError if most of them fail."""
        points = sobol(count, len(self.fit.names), self.seed("fit/start"))
        for batch, first in enumerate(range(0, count, self.fit.batch)):
            self._run("start", batch, points[first : first + self.fit.batch])
        self._require_enough()
        self._count_noise()
        return self.trials

    def screen(self) -> list[Trial]:
        """Run the trajectories of the Morris screening with the first seed, and return their trials."""
        if not self.fit.morris:
            return []
        points = np.array(unit_points(len(self.fit.names), morris_design(self.fit)))
        return self._run("morris", 0, points)

    def seed(self, name: str, batch: int = 0) -> int:
        """Return the seed of one of the random choices of the fit."""
        return Streams(self.fit.seed).at(name, batch).integer()

    def _run(self, stage: Stage, batch: int, points: Floats) -> list[Trial]:
        """Run a batch: the first replicate of every point, then the others of points that are not given up."""
        fit, values = self.fit, [self.fit.values(u) for u in points]
        first = len(self.trials)
        names = [f"{'screening' if stage == 'morris' else 'trial'} {first + i}" for i in range(len(points))]
        title = f"{fit.name}, screening"
        if stage != "morris":
            title = f"{fit.name}, points {first + 1} to {first + len(points)} of {max(fit.trials, first + len(points))}"
        requests = [Request(f"{name}, seed {fit.seed}", v, fit.seed) for name, v in zip(names, values, strict=True)]
        firsts = self.runs(title, requests)
        scores = [self._misfit(output.values) for output in firsts]
        replicates = 1 if stage == "morris" else fit.replicates
        go_on = [
            i
            for i, output in enumerate(firsts)
            if not output.error and not (stage == "search" and self._far(scores[i]))
        ]
        more = [
            Request(f"{names[i]}, seed {fit.seed + r}", values[i], fit.seed + r)
            for i in go_on
            for r in range(1, replicates)
        ]
        rest = self.runs(title, more) if more else []
        trials = []
        for i, output in enumerate(firsts):
            place = go_on.index(i) * (replicates - 1) if i in go_on else 0
            own = [output, *(rest[place : place + replicates - 1] if i in go_on else [])]
            trials.append(self._trial(first + i, stage, batch, points[i], values[i], own, complete=i in go_on))
        if stage != "morris":
            self.trials += trials
            self._first += [score for score in scores if np.isfinite(score)]  # computed anew after the start
        return trials

    def _far(self, score: float) -> bool:
        """Return whether a point is given up after its first replicate."""
        if not self._first or not np.isfinite(score):
            return not np.isfinite(score)
        margin = max(FAR, sum(target.use == "fit" for target in self.targets))
        return score > min(self._first) + margin

    def _misfit(self, outputs: Floats) -> float:
        return float(misfits(outputs, self.targets, self.between))

    def _count_noise(self) -> None:
        """Compute the misfits of the start again, with the variance between replicates that it has shown."""
        good = [trial for trial in self.trials if trial.state != "failed"]
        self.between = means_over_replicates(np.array([trial.outputs for trial in good]))[1]
        self._first = [self._misfit(trial.outputs[0]) for trial in good]
        self.trials = [
            trial if trial.state == "failed" else replace(trial, misfit=self._misfit(trial.outputs.mean(axis=0)))
            for trial in self.trials
        ]

    def _trial(
        self,
        number: int,
        stage: Stage,
        batch: int,
        u: Floats,
        values: dict[str, float],
        own: Sequence[Output],
        *,
        complete: bool,
    ) -> Trial:
        outputs = np.full((self.fit.replicates, len(self.targets)), np.nan)
        outputs[: len(own)] = [output.values for output in own]
        error = next((output.error for output in own if output.error), "")
        misfit = self._misfit(outputs[: len(own)].mean(axis=0))
        state: State = "failed" if error else "complete" if complete else "pruned"
        return Trial(number, stage, batch, u, values, outputs, state, float("nan") if error else misfit, error)

    def _require_enough(self) -> None:
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if 2 * len(failed) > len(self.trials):
            raise EcosystemError(
                f"{self.fit.where}: {len(failed)} of the first {len(self.trials)} trials failed, for instance at "
                f"{described(failed[0].values)}: {failed[0].error}"
            )


def morris_design(fit: Fit) -> Design:
    """Return the design of the screening."""
    return Design(method="morris", points=fit.morris, seed=fit.seed)


def sobol(count: int, k: int, seed: int) -> Floats:
    """Return the first points of a scrambled Sobol sequence in the unit cube, shape [count, k]."""
    from scipy.stats import qmc

    power = max(0, int(np.ceil(np.log2(max(1, count)))))
    points: Floats = qmc.Sobol(k, rng=np.random.default_rng(seed)).random_base2(power)
    return points[:count]


def require_optuna() -> Any:
    """Import and return Optuna; raise EcosystemError if it is not installed."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import optuna
    except ImportError:
        raise EcosystemError(f"a fit needs Optuna and emcee, which are not installed: {INSTALL}") from None
    return optuna


@contextmanager
def _quiet(optuna: Any) -> Iterator[None]:
    """Keep Optuna's log and its notes on experimental options off the terminal."""
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(level)


def _tell(optuna: Any, study: Any, told: Any, trial: Trial) -> None:
    states = optuna.trial.TrialState
    if trial.state == "failed" or not np.isfinite(trial.misfit):
        study.tell(told, state=states.FAIL)
    elif trial.state == "pruned":
        told.report(trial.misfit, 0)
        study.tell(told, state=states.PRUNED)
    else:
        study.tell(told, trial.misfit)


def _frozen(optuna: Any, trial: Trial, spaces: dict[str, Any]) -> Any:
    """Return a trial as Optuna stores it."""
    states = optuna.trial.TrialState
    usable = trial.state != "failed" and bool(np.isfinite(trial.misfit))
    state = states.FAIL if not usable else states.PRUNED if trial.state == "pruned" else states.COMPLETE
    frozen = optuna.trial.create_trial(
        params=dict(zip(spaces, map(float, trial.u), strict=True)),
        distributions=spaces,
        value=trial.misfit if state == states.COMPLETE else None,
        intermediate_values={0: trial.misfit} if state == states.PRUNED else None,
        state=state,
        user_attrs={**trial.values, "stage": trial.stage, **({"error": trial.error} if trial.error else {})},
    )
    frozen.datetime_start = frozen.datetime_complete = _EPOCH
    return frozen


def _store(optuna: Any, name: str, trials: Sequence[Trial], spaces: dict[str, Any], file: Path) -> None:
    """Write the trials as a study of Optuna; its parameters are probabilities of the priors."""
    file.unlink(missing_ok=True)
    storage = optuna.storages.RDBStorage(f"sqlite:///{file}")
    study = optuna.create_study(study_name=name, storage=storage, direction="minimize")
    study.add_trials([_frozen(optuna, trial, spaces) for trial in trials])
    storage.engine.dispose()
