"""The cohorts of a world by the name of their model."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ecosystem.families.base import Cohort


class Cohorts(dict[str, Cohort]):
    """Cohorts by the name of their model; one that is asked for and not there is built."""

    def __init__(self, build: Callable[[str], Cohort]) -> None:
        super().__init__()
        self._build = build

    def build(self, names: Iterable[str]) -> None:
        """Build the cohorts of these models now, in this order."""
        for name in names:
            self[name]

    def __missing__(self, name: str) -> Cohort:
        self[name] = cohort = self._build(name)
        return cohort
