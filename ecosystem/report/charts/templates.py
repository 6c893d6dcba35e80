"""Charts as Vega-Lite that refers to its data by name, so that files and pages can name the parts of a chart.

Charts that are drawn often have a template: Altair builds the fixed part once; titles, data and domains are filled in.
The interactive page redraws these charts at every step, and building one with Altair takes twenty times as long as
computing its numbers.

A table whose name begins with an underscore holds positions of texts and the like: it is no data of the chart. So does
a column.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import polars as pl
import polars.selectors as cs

from ecosystem.report.charts.theme import ChartLabels


@dataclass(frozen=True)
class Chart:
    """A chart: Vega-Lite that refers to its data by name, and the tables by name."""

    spec: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    @classmethod
    def of(
        cls,
        template: dict[str, Any],
        labels: ChartLabels,
        tables: Mapping[str, pl.DataFrame],
        **domains: Sequence[float],
    ) -> Chart:
        """Fill in a template: the titles, the data, and the domains by channel (such as ``y=[0, 1]``)."""
        spec = copy.deepcopy(template)
        for name, domain in domains.items():
            for channel in scaled(spec, name):
                channel["scale"]["domain"] = list(domain)
        return cls({**spec, "title": {"text": labels.title, "subtitle": labels.subtitle}}, dict(tables))

    def datasets(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of each table by name; numbers that are not finite become null, dates milliseconds."""
        finite = pl.when(cs.float().is_finite()).then(cs.float())
        plain = {name: table.with_columns(finite, cs.date().dt.epoch("ms")) for name, table in self.tables.items()}
        return {name: table.to_dicts() for name, table in plain.items()}


class Tables(dict[str, pl.DataFrame]):
    """The tables of a chart while it is drawn, by name."""

    def chart(self, name: str, table: pl.DataFrame) -> alt.Chart:
        """Add a table and return an Altair chart of it, without marks."""
        self[name] = table
        return part(name)

    def drawn(self, layers: Sequence[Any], labels: ChartLabels, width: float, height: float, **shared: str) -> Chart:
        """Return the layers as one chart, of a size in pixels. ``shared``: how scales resolve, by channel."""
        title = alt.TitleParams(labels.title, subtitle=labels.subtitle)
        chart = alt.layer(*layers, width=width, height=height, title=title)
        return Chart(vega_lite(chart.resolve_scale(**shared) if shared else chart), dict(self))


def part(name: str) -> alt.Chart:
    """Return an Altair chart of the table with this name, without marks."""
    return alt.Chart(alt.NamedData(name=name))


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
