"""Weights & Biases: the curves of a run, by default offline in the folder ``wandb`` of the run."""

from __future__ import annotations

import os
from collections.abc import Iterable
from itertools import groupby
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.runs.callbacks.base import RunEnd, RunStart, StepReport
from ecosystem.runs.records import WANDB_FOLDER


class WandB:
    """Writes one W&B run for each run, offline unless WANDB_MODE says otherwise; ``wandb sync FOLDER`` uploads it.

    A resumed run writes another part with the same id, which a sync joins to the first.
    """

    def __init__(self) -> None:
        """Raise EcosystemError if the package is missing."""
        try:
            import wandb
        except ImportError:
            raise EcosystemError(
                'Weights & Biases needs the package wandb; install it with: pip install "ecosystem[wandb]".'
            ) from None
        self._wandb: Any = wandb
        self._run: Any = None

    def begin(self, run: RunStart) -> None:
        """Begin a part of the W&B run; the first has all steps so far."""
        first = not any((run.folder / WANDB_FOLDER).glob(f"*run-*-{run.fingerprint}-{run.seed}"))
        self._run = self._wandb.init(
            project=run.name,
            id=f"{run.fingerprint}-{run.seed}",
            dir=str(run.folder),
            config=dict(run.scenario),
            mode=os.environ.get("WANDB_MODE", "offline"),
            resume="allow",
            settings=self._wandb.Settings(console="off", silent=True),
        )
        if first:
            self._write(sorted(run.curves(), key=lambda value: value[0]))

    def step(self, step: StepReport) -> None:
        """Write the values of a step and the time of its phases."""
        self._write(step.curves())

    def end(self, run: RunEnd) -> None:
        """End the part."""
        self._run.finish(exit_code=0 if run.status == "finished" else 1)

    def _write(self, values: Iterable[tuple[int, str, float]]) -> None:
        for step, part in groupby(values, key=lambda value: value[0]):
            self._run.log({tag: value for _, tag, value in part}, step=step)
