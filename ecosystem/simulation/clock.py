"""The wall time of a step, by phase and agent; nothing that is computed depends on it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

import polars as pl

from ecosystem.corpus.schema import TIMINGS

REST = "web"  # what is spent on no single agent


class _Named(Protocol):
    name: str


A = TypeVar("A", bound=_Named)


class Clock:
    """Seconds by (phase, agent) since they were last taken."""

    def __init__(self) -> None:
        self._seconds: dict[tuple[str, str], float] = {}
        self._phase = ""

    @staticmethod
    def now() -> float:
        """Return the present time in seconds, from an arbitrary origin."""
        return time.perf_counter()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Measure a phase; what no agent is charged for inside is charged to REST."""
        self._phase, started, before = name, self.now(), sum(self._seconds.values())
        try:
            yield
        finally:
            charged = sum(self._seconds.values()) - before
            self._charge(REST, self.now() - started - charged)
            self._phase = ""

    def each(self, sort: str, agents: Iterable[A]) -> Iterator[A]:
        """Yield agents of one sort ("trainers", …), and charge each for the time until the next is asked for."""
        for agent in agents:
            started = self.now()
            yield agent
            self._charge(f"{sort}/{agent.name}", self.now() - started)

    def divide(self, sort: str, names: Sequence[str], amounts: Sequence[float], started: float) -> None:
        """Charge agents for the time since ``started``, in proportion to ``amounts``, or equally if all are zero."""
        spent, total = self.now() - started, sum(amounts)
        for name, amount in zip(names, amounts, strict=True):
            self._charge(f"{sort}/{name}", spent * (amount / total if total else 1 / len(names)))

    def take(self) -> pl.DataFrame:
        """Return the seconds as a table (columns of ``schema.TIMINGS``) by first charge, and start anew."""
        rows = [(phase, who, seconds) for (phase, who), seconds in self._seconds.items()]
        self._seconds = {}
        return pl.DataFrame(rows, schema=TIMINGS, orient="row")

    def _charge(self, who: str, seconds: float) -> None:
        key = self._phase, who
        self._seconds[key] = self._seconds.get(key, 0.0) + seconds
