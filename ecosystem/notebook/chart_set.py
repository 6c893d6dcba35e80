"""The charts of a report as Altair objects, with the theme of the report."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Self

from ecosystem.cards import Grid, card
from ecosystem.errors import EcosystemError, nearest
from ecosystem.report import charts
from ecosystem.report.charts import DARK, LIGHT, Scheme

if TYPE_CHECKING:
    from altair.typing import ChartType

LISTED = 40  # charts in an error message, at most


def themed(spec: Mapping[str, Any], scheme: Scheme = LIGHT) -> ChartType:
    """Return a Vega-Lite specification as an Altair chart with the colours of a scheme."""
    import altair as alt

    chart: ChartType = alt.Chart.from_dict({**spec, "config": charts.configuration(scheme)})
    return chart


class ChartSet(ABC):
    """The charts of one report: ``set["name"]`` is any of them by the name of its file, and iteration gives the names.

    Charts are light, or those of :attr:`dark` for dark notebooks. They are Altair objects: ``chart.save("a.svg")``
    writes one, and ``chart.properties(width=900)`` changes one.
    """

    def __init__(self, scheme: Scheme = LIGHT) -> None:
        self._scheme = scheme

    @property
    def dark(self) -> Self:
        """The same charts with light lines on a dark background."""
        other = copy.copy(self)
        other._scheme = DARK
        return other

    def names(self) -> list[str]:
        """Return the names of the charts of the report, in its order."""
        return list(self._specs())

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def __len__(self) -> int:
        return len(self._specs())

    def __getitem__(self, name: str) -> ChartType:
        """Return a chart of the report by its name; raise EcosystemError with the nearest names if there is none."""
        specs = self._specs()
        if name not in specs:
            listed = ", ".join(list(specs)[:LISTED]) or "none"
            raise EcosystemError(f'there is no chart "{name}"{nearest(str(name), specs)}; this report has {listed}.')
        return themed(specs[name], self._scheme)

    def _repr_html_(self) -> str:
        rows = [(name, spec.get("title", {}).get("text", "")) for name, spec in self._specs().items()]
        return card("Charts", 'One of them: plot["name"]', {}, Grid("", ["name", "title"], rows, len(rows)))

    @abstractmethod
    def _specs(self) -> Mapping[str, dict[str, Any]]:
        """Return the specifications of all charts of the report by name."""

    def _drawn(self, chart: Any, what: str) -> ChartType:
        """Return a drawn chart with the theme; raise EcosystemError if there was nothing to draw (None)."""
        if chart is None:
            listed = ", ".join(self.names()[:LISTED]) or "none"
            raise EcosystemError(f"{what} was not measured, so there is no chart of it; this report has {listed}.")
        return themed(charts.specification(chart), self._scheme)
