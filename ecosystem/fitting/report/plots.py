"""The charts of a fit as methods that return Altair charts."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ecosystem.errors import EcosystemError, nearest
from ecosystem.fitting.report.build import drawn, screening
from ecosystem.fitting.results import FitResults
from ecosystem.notebook.chart_set import ChartSet
from ecosystem.report import charts
from ecosystem.report.charts import LIGHT, Scheme

if TYPE_CHECKING:
    from altair.typing import ChartType


class FitPlots(ChartSet):
    """The charts of a fit. Methods draw one chart; ``plot["name"]`` is any chart of the report by its name."""

    def __init__(self, results: FitResults, scheme: Scheme = LIGHT) -> None:
        super().__init__(scheme)
        self._results = results

    def posterior(self, parameter: str | None = None) -> ChartType:
        """Draw what is known of a parameter after the fit, over its prior; default: the first parameter."""
        names = self._results.fit.names
        chosen = names[0] if parameter is None else parameter
        if chosen not in names:
            raise EcosystemError(
                f'there is no parameter "{chosen}"{nearest(str(chosen), names)}; the fit has {", ".join(names)}.'
            )
        return self[f"posterior_{chosen}"]

    def targets(self, quantity: str | None = None) -> ChartType:
        """Draw the measurements of one quantity over runs of the fitted scenario; default: the first quantity."""
        quantities = list(dict.fromkeys(target.what for target in self._results.targets))
        chosen = quantities[0] if quantity is None else quantity
        if chosen not in quantities:
            listed = ", ".join(quantities)
            raise EcosystemError(
                f'there is no quantity "{chosen}"{nearest(str(chosen), quantities)}; the targets are of {listed}.'
            )
        return self[f"target_{quantities.index(chosen)}"]

    def correlations(self) -> ChartType:
        """Draw which parameters the targets hardly tell apart."""
        return self["correlations"]

    def pulls(self) -> ChartType:
        """Draw how far each group of targets moves each parameter."""
        return self["pulls"]

    @cached_property
    def _all(self) -> Mapping[str, dict[str, Any]]:
        found = drawn(self._results, screening(self._results)[0])
        return {name: charts.specification(chart) for name, chart in found.items()}

    def _specs(self) -> Mapping[str, dict[str, Any]]:
        return self._all
