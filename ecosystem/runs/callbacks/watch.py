"""Call the callbacks of a run; one that fails is switched off, and the run goes on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import click
import polars as pl

from ecosystem.corpus.schema import TIMINGS, Snapshot, empty
from ecosystem.formats import visible
from ecosystem.runs.callbacks.base import Callback, RunEnd, RunStart, Status, StepReport
from ecosystem.runs.run import Run
from ecosystem.scenario.scenario import Scenario


class Watch:
    """The callbacks of one call. ``begin`` is called before its first step is reported, ``end`` if ``begin`` was."""

    def __init__(
        self, callbacks: Sequence[tuple[str, Callback]], scenario: Scenario, folder: Path, place: str, done: int
    ) -> None:
        """``callbacks``: each with its name (:func:`ecosystem.runs.callbacks.base.made`).

        ``folder`` is that of the run on this machine, ``place`` the folder or URL that users know, and ``done`` the
        last step that exists already, of this run or of the one that it branches from (-1: none).
        """
        self._callbacks = list(callbacks)
        self._scenario, self._folder, self._place = scenario, folder, place
        self._begun = False
        self._last = done

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.end("finished")
        else:
            self.end("failed" if isinstance(error, Exception) else "stopped", str(error))

    def step(self, snapshot: Snapshot) -> None:
        """Report a committed step."""
        if not self._callbacks:
            return
        self._begin(snapshot.t)
        timings = empty(TIMINGS) if snapshot.timings is None else snapshot.timings
        report = StepReport(snapshot.t, snapshot.metrics, timings, tuple(snapshot.state["events"]))
        self._each(lambda callback: callback.step(report))
        self._last = snapshot.t

    def end(self, status: Status, message: str = "") -> None:
        """Report the end of a call; a run that was finished before begins and ends at once."""
        if status == "finished" and self._callbacks:
            self._begin(self._last + 1)
        if self._begun:
            self._each(lambda callback: callback.end(RunEnd(status, self._last, message)))
        self._callbacks = []

    def _begin(self, first: int) -> None:
        if self._begun:
            return
        self._begun = True
        scenario, run = self._scenario, Run(self._folder)
        start = RunStart(
            place=self._place,
            folder=self._folder,
            name=scenario.name,
            seed=scenario.seed,
            fingerprint=scenario.fingerprint(),
            scenario=scenario.plain(),
            steps=scenario.steps,
            last=first - 1,
            metrics=run.store.table("metrics", range(first)),
            timings=run.store.timings().filter(pl.col("step") < first),
        )
        self._each(lambda callback: callback.begin(start))

    def _each(self, call: Callable[[Callback], Any]) -> None:
        """Call every callback; drop one that raises an error, with a sentence on standard error."""
        kept = []
        for name, callback in self._callbacks:
            try:
                call(callback)
            except Exception as error:  # of a plug-in or its service: the run does not depend on it
                problem = visible(str(error) or type(error).__name__)
                click.echo(f"note: the callback {name} is switched off, and the run goes on: {problem}", err=True)
            else:
                kept.append((name, callback))
        self._callbacks = kept
