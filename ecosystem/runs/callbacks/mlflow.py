"""MLflow: the curves of a run as an MLflow run, by default in the folder ``mlruns`` beside the runs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from itertools import islice
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.runs.callbacks.base import RunEnd, RunStart, StepReport

_MOST = 1000  # metrics that MLflow takes at once
_RUN, _STEP = "ecosystem.run", "ecosystem.step"  # tags: which run it is, and the last step that is there
_STATUS = {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}


class MLflow:
    """Writes one MLflow run for each run; a resumed one continues it after the last step that is there."""

    def __init__(self) -> None:
        """Raise EcosystemError if the package is missing."""
        try:
            import mlflow
        except ImportError:
            raise EcosystemError(
                'MLflow needs the package mlflow-skinny; install it with: pip install "ecosystem[mlflow]".'
            ) from None
        self._mlflow: Any = mlflow
        self._client: Any = None
        self._run = ""

    def begin(self, run: RunStart) -> None:
        """Find or create the MLflow run, and write the steps that it lacks."""
        if not os.environ.get("MLFLOW_TRACKING_URI"):
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # releases from 3.17 refuse folders without it
            self._mlflow.set_tracking_uri((run.folder.absolute().parent.parent / "mlruns").as_uri())
        self._client = self._mlflow.MlflowClient()
        name = f"{run.fingerprint}/{run.seed}"
        experiment = self._mlflow.set_experiment(run.name).experiment_id
        found = self._client.search_runs([experiment], f"tags.`{_RUN}` = '{name}'", max_results=1)
        made = found[0] if found else self._client.create_run(experiment, tags={_RUN: name, _STEP: "-1"}, run_name=name)
        self._run, last = made.info.run_id, int(made.data.tags[_STEP])
        if not found:
            self._client.log_param(self._run, "seed", run.seed)
            self._client.log_text(self._run, json.dumps(dict(run.scenario), indent=1), "scenario.json")
        self._client.update_run(self._run, "RUNNING")
        self._write(run.curves(after=last))
        self._client.set_tag(self._run, _STEP, str(max(last, run.last)))

    def step(self, step: StepReport) -> None:
        """Write the values of a step and the time of its phases."""
        self._write(step.curves())
        self._client.set_tag(self._run, _STEP, str(step.t))

    def end(self, run: RunEnd) -> None:
        """Set the status."""
        self._client.set_terminated(self._run, _STATUS[run.status])

    def _write(self, values: Iterable[tuple[int, str, float]]) -> None:
        now = round(1000 * time.time())
        metric = self._mlflow.entities.Metric
        metrics = (metric(tag, value, now, step) for step, tag, value in values)
        while part := list(islice(metrics, _MOST)):
            self._client.log_batch(self._run, metrics=part)
