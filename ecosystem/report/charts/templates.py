"""Templates for charts that are drawn often: Altair builds the fixed part once; titles, data and domains are filled in.

The interactive page redraws these charts at every step, and building one with Altair takes twenty times as long as
computing its numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl
import polars.selectors as cs

from ecosystem.report.charts.theme import ChartLabels


@dataclass(frozen=True)
class ChartTemplate:
    """A chart built from a template: Vega-Lite that refers to its data by name, and the tables by name."""

    spec: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    @classmethod
    def of(
        cls,
        template: dict[str, Any],
        labels: ChartLabels,
        tables: Mapping[str, pl.DataFrame],
        **domains: Sequence[float],
    ) -> ChartTemplate:
        """Fill in a template: the titles, the data, and the domains by channel (such as ``y=[0, 1]``)."""
        spec = copy.deepcopy(template)
        for name, domain in domains.items():
            for channel in scaled(spec, name):
                channel["scale"]["domain"] = list(domain)
        return cls({**spec, "title": {"text": labels.title, "subtitle": labels.subtitle}}, dict(tables))

    def datasets(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each table by name; numbers that are not finite become null."""
        finite = pl.when(cs.float().is_finite()).then(cs.float())
        return {name: table.with_columns(finite).to_dicts() for name, table in self.tables.items()}


def placeholders(names: Iterable[str]) -> dict[str, Any]:
    """Return placeholders for the tables of a template, by name."""
    return {name: alt.NamedData(name=name) for name in names}


def vega_lite(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return an Altair chart as plain Vega-Lite, without the default theme; a chart of placeholders is a template."""
    with alt.data_transformers.disable_max_rows():
        spec: dict[str, Any] = chart.to_dict(validate=False)
    spec.pop("config", None)
    return spec


def scaled(spec: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield the channel ``name`` of every layer in which its scale has a domain, for changes in place."""
    for layer in spec.get("layer", [spec]):
        channel = layer.get("encoding", {}).get(name, {})
        if "domain" in (channel.get("scale") or {}):
            yield channel
