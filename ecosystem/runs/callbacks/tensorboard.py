"""TensorBoard: the curves of a run as event files, in the folder ``tensorboard`` of the run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.runs.callbacks.base import RunEnd, RunStart, StepReport
from ecosystem.runs.records import EVENTS_FOLDER


class TensorBoard:
    """Writes event files.

    A resumed run writes the curves of all its steps anew, from the stored tables, so no step is missing or there
    twice, however the run was interrupted.
    """

    def __init__(self) -> None:
        """Raise EcosystemError if the package ``tensorboard`` is missing."""
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise EcosystemError(
                'TensorBoard needs the package tensorboard; install it with: pip install "ecosystem[tensorboard]".'
            ) from None
        self._maker: Any = SummaryWriter
        self._writer: Any = None

    def begin(self, run: RunStart) -> None:
        """Write the curves of all steps so far, in place of the event files that there are."""
        folder = run.folder / EVENTS_FOLDER
        for old in folder.glob("events.out.tfevents.*"):
            old.unlink()
        self._writer = self._maker(str(folder))
        self._write(run.curves())
        self._writer.flush()

    def step(self, step: StepReport) -> None:
        """Write the values of a step, the time of its phases, and its events as text."""
        self._write(step.curves())
        if step.events:
            self._writer.add_text("events", "\n\n".join(step.events), step.t)
        self._writer.flush()

    def end(self, run: RunEnd) -> None:
        """Close the file."""
        self._writer.close()

    def _write(self, values: Iterable[tuple[int, str, float]]) -> None:
        for step, tag, value in values:
            self._writer.add_scalar(tag, value, step)
