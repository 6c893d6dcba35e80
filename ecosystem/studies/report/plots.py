"""The charts of a study as methods that return Altair charts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ecosystem.errors import EcosystemError, nearest
from ecosystem.notebook.chart_set import ChartSet
from ecosystem.report.charts import LIGHT, Scheme
from ecosystem.studies.report import study_charts
from ecosystem.studies.report.build import SECTIONS
from ecosystem.studies.report.data import StudyReportData
from ecosystem.studies.results import Results
from ecosystem.studies.spec.measure import Measure

if TYPE_CHECKING:
    from altair.typing import ChartType


class StudyPlots(ChartSet):
    """The charts of a study. Methods draw one chart; ``plot["name"]`` is any chart of the report by its name.

    ``measure`` is the name of one of the study's measures (default: the first), ``world`` one of its worlds.
    """

    def __init__(self, results: Results, scheme: Scheme = LIGHT) -> None:
        super().__init__(scheme)
        self._data = StudyReportData(results)

    def effects(self, measure: str | None = None, world: str | None = None) -> ChartType:
        """Draw the difference of each arm from the base arm, with paired and unpaired 95 % intervals."""
        chosen, where = self._measure(measure), self._world(world)
        rows = self._data.rows_of(chosen, where)
        chart = study_charts.effects(self._data, chosen, where, rows) if rows else None
        return self._drawn(chart, f"the effect of arms on {chosen.name}")

    def course(self, measure: str | None = None, world: str | None = None) -> ChartType:
        """Draw the metric of a measure over steps: mean over seeds of each arm ± one standard error."""
        chosen = self._measure(measure)
        return self._drawn(study_charts.course(self._data, chosen, self._world(world)), chosen.metric)

    def tradeoff(self, measure: str | None = None) -> ChartType:
        """Draw a measure against the cost of a run of each arm; the study must have prices."""
        chosen = self._measure(measure)
        chart = study_charts.tradeoff(self._data, chosen) if self._data.study.prices else None
        return self._drawn(chart, "cost (the study has no prices)")

    def _measure(self, name: str | None) -> Measure:
        by_name = {measure.name: measure for measure in self._data.study.measures}
        if name is None:
            return next(iter(by_name.values()))
        if name not in by_name:
            raise EcosystemError(
                f'there is no measure "{name}"{nearest(str(name), by_name)}; the study has {", ".join(by_name)}.'
            )
        return by_name[name]

    def _world(self, name: str | None) -> str:
        worlds = self._data.worlds
        if name is not None and name not in worlds:
            named = ", ".join(filter(None, worlds)) or "one world without a name"
            raise EcosystemError(f'there is no world "{name}"{nearest(str(name), worlds)}; the study has {named}.')
        return worlds[0] if name is None else name

    @cached_property
    def _all(self) -> Mapping[str, dict[str, Any]]:
        for _, section in SECTIONS.values():
            section(self._data)
        return self._data.specs

    def _specs(self) -> Mapping[str, dict[str, Any]]:
        return self._all
