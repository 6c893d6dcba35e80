"""Results of a fit: its tables and the fitted scenario."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import stats

from ecosystem.fitting.emulator import Emulator
from ecosystem.fitting.identify import Pull, correlations, pulls, width_ratios
from ecosystem.fitting.likelihood import Likelihood
from ecosystem.fitting.posterior import Posterior
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.targets import Target
from ecosystem.fitting.trials import Trial
from ecosystem.runs.store import Store
from ecosystem.scenario.scenario import Scenario
from ecosystem.studies.results import write_table
from ecosystem.studies.spec.posterior import write_posterior
from ecosystem.types import Floats

LEVEL = 0.9  # of all intervals


@dataclass(frozen=True)
class FitResults:
    """All numbers of a fit. Arrays: u [runs, parameters], outputs [runs, targets]."""

    fit: Fit
    base: Scenario
    targets: Sequence[Target]
    trials: Sequence[Trial]  # of the search and of the screening
    emulator: Emulator
    likelihood: Likelihood
    posterior: Posterior
    noise_u: Floats
    noise_outputs: Floats
    draw_u: Floats
    draws: Floats

    @cached_property
    def samples(self) -> dict[str, Floats]:
        """Samples of the posterior in units of the parameters: name → [samples]."""
        u = self.posterior.u
        return {name: parameter.at(u[:, i]) for i, (name, parameter) in enumerate(self.fit.parameters.items())}

    @cached_property
    def fitted(self) -> dict[str, float]:
        """The posterior means of the parameters, rounded for those that are whole numbers."""
        means = {name: float(values.mean()) for name, values in self.samples.items()}
        return {name: round(x) if self.fit.parameters[name].whole else x for name, x in means.items()}

    @cached_property
    def width_ratios(self) -> Floats:
        """Posterior over prior standard deviation of each parameter, [parameters]."""
        return width_ratios(self.posterior)

    @cached_property
    def correlations(self) -> pl.DataFrame:
        """Posterior correlations of the parameters: x, y, value."""
        return correlations(self.samples)

    @cached_property
    def pulls(self) -> list[Pull]:
        """What leaving out each group of targets, and each target, does to the parameters."""
        return pulls(self.likelihood, self.posterior, self.targets, self.fit.seed)

    @cached_property
    def parameter_table(self) -> pl.DataFrame:
        """A row for each parameter: prior and posterior in its units, and diagnostics."""
        rows = []
        for i, (name, parameter) in enumerate(self.fit.parameters.items()):
            values = self.samples[name]
            prior = parameter.at(np.linspace(0.0005, 0.9995, 1000))
            tails = ((1 - LEVEL) / 2, (1 + LEVEL) / 2)
            rows.append(
                {
                    "parameter": name,
                    "unit": parameter.unit or "",
                    "prior_mean": float(prior.mean()),
                    "prior_low": float(parameter.at(np.array([tails[0]]))[0]),
                    "prior_high": float(parameter.at(np.array([tails[1]]))[0]),
                    "mean": float(values.mean()),
                    "sd": float(values.std(ddof=1)),
                    "low": float(np.quantile(values, tails[0])),
                    "median": float(np.median(values)),
                    "high": float(np.quantile(values, tails[1])),
                    "width_ratio": float(self.width_ratios[i]),
                    "r_hat": float(self.posterior.ratio[i]),
                    "autocorrelation_time": float(self.posterior.time[i]),
                    "effective_samples": float(self.posterior.effective[i]),
                }
            )
        return pl.DataFrame(rows)

    @cached_property
    def target_table(self) -> pl.DataFrame:
        """A row for each target: observed and simulated at posterior samples, standardised difference, emulator."""
        n = len(self.draws)
        mean, sd = self.draws.mean(axis=0), self.draws.std(axis=0, ddof=1)
        ends = np.quantile(self.draws, [0.05, 0.95], axis=0)
        limit = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
        rows = []
        for i, target in enumerate(self.targets):
            measured = float(np.hypot(target.error, target.discrepancy))
            total = float(np.sqrt(sd[i] ** 2 * (1 + 1 / n) + measured**2))
            z = (target.value - mean[i]) / total
            rows.append(
                {
                    **{name: getattr(target, name) for name in ("date", "step", "quantity", "scope", "id")},
                    "use": target.use,
                    "observed": target.value,
                    "error": measured,
                    "simulated": float(mean[i]),
                    "simulated_sd": float(sd[i]),
                    "low": float(ends[0][i]),
                    "high": float(ends[1][i]),
                    "z": float(z),
                    "covered": bool(abs(z) <= limit),
                    "emulator": self.emulator.surfaces[i].kind,
                    "emulator_explains": float(self.emulator.explained[i]),
                    "group": target.part,
                    "source": target.source,
                    "note": target.note,
                }
            )
        texts = ("date", "quantity", "scope", "id", "use", "emulator", "group", "source", "note")
        kinds = dict.fromkeys(texts, pl.String) | {"step": pl.Int64, "covered": pl.Boolean}
        return pl.DataFrame(rows, schema={name: kinds.get(name, pl.Float64) for name in rows[0]})

    @cached_property
    def trial_table(self) -> pl.DataFrame:
        """A row for each point that was simulated: stage, state, misfit, error and the values of the parameters."""
        rows = [
            {
                "trial": trial.number,
                "stage": trial.stage,
                "batch": trial.batch,
                "state": trial.state,
                "misfit": trial.misfit,
                "error": trial.error or None,
                **trial.values,
            }
            for trial in self.trials
        ]
        kinds: dict[str, Any] = {"trial": pl.Int64, "stage": pl.String, "batch": pl.Int64, "state": pl.String}
        kinds |= {"misfit": pl.Float64, "error": pl.String} | dict.fromkeys(self.fit.names, pl.Float64)
        return pl.DataFrame(rows, schema=kinds, strict=False)

    @cached_property
    def output_table(self) -> pl.DataFrame:
        """A row for each run and target: stage, number, replicate, target and value."""
        rows: list[tuple[str, int, int, int, float]] = []
        for trial in self.trials:
            for replicate, outputs in enumerate(trial.outputs):
                rows += [
                    (trial.stage, trial.number, replicate, target, float(value))
                    for target, value in enumerate(outputs)
                    if np.isfinite(value)
                ]
        for stage, table in (("noise", self.noise_outputs), ("draw", self.draws)):
            rows += [
                (stage, number, 0, target, float(value))
                for number, outputs in enumerate(table)
                for target, value in enumerate(outputs)
            ]
        columns = {"stage": pl.String, "number": pl.Int64, "replicate": pl.Int64, "target": pl.Int64}
        return pl.DataFrame(rows, schema={**columns, "value": pl.Float64}, orient="row")

    def coverage(self, use: str) -> tuple[int, int]:
        """Return how many targets of a use are within their 90 % interval of prediction, and how many there are."""
        rows = self.target_table.filter(pl.col("use") == use)
        return int(rows["covered"].sum()), rows.height

    def fitted_toml(self) -> str:
        """Return the scenario at the posterior means, with what is known of each parameter as comments."""
        scenario = self.fit.scenario_at(self.base, self.fitted, Path())  # presets are resolved already
        lines = [
            f"# Fitted by the fit {self.fit.name}: posterior means of {len(self.fit.names)} parameters.",
            "# Parameter, path, fitted value, 90 % interval:",
        ]
        for row in self.parameter_table.iter_rows(named=True):
            parameter = self.fit.parameters[row["parameter"]]
            lines.append(
                f"# {row['parameter']}: {', '.join(parameter.targets)} = "
                f"{parameter.written(self.fitted[row['parameter']])} "
                f"({row['low']:.4g} to {row['high']:.4g}; prior {row['prior_low']:.4g} to {row['prior_high']:.4g})"
            )
        return "\n".join([*lines, "", scenario.to_toml()])

    def write(self, store: Store) -> None:
        """Write all tables into the folder of the fit, the posterior and the fitted scenario."""
        for name, table in (
            ("trials", self.trial_table),
            ("outputs", self.output_table),
            ("targets", self.target_table),
            ("parameters", self.parameter_table),
            ("correlations", self.correlations),
        ):
            write_table(store, name, table)
        write_posterior(store, self.fit.parameters, self.samples, self.posterior.log_likelihood)
        store.write("fitted.toml", self.fitted_toml().encode())
