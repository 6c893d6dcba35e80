"""Charts that are drawn often: Altair makes the fixed part once, and titles, data and domains are filled in.

Altair takes twenty times as long to make such a chart as its numbers take to compute, and a page draws it at every
step.
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
    """A chart made from a template: Vega-Lite that names its data, and the tables of these names."""

    spec: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    @classmethod
    def of(
        cls, form: dict[str, Any], labels: ChartLabels, tables: Mapping[str, pl.DataFrame], **domains: Sequence[float]
    ) -> ChartTemplate:
        """Fill in a template: the title, the data, and the domains of channels by name."""
        spec = copy.deepcopy(form)
        for name, domain in domains.items():
            for channel in scaled(spec, name):
                channel["scale"]["domain"] = list(domain)
        return cls({**spec, "title": {"text": labels.title, "subtitle": labels.below}}, dict(tables))

    def datasets(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of every table by name; numbers that are not finite are null."""
        finite = pl.when(cs.float().is_finite()).then(cs.float())
        return {name: table.with_columns(finite).to_dicts() for name, table in self.tables.items()}


def named(names: Iterable[str]) -> dict[str, Any]:
    """Return the placeholders of tables in a template, by name."""
    return {name: alt.NamedData(name=name) for name in names}


def formed(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Turn a chart of Altair into plain Vega-Lite, without the default theme; with named data, it is a template."""
    with alt.data_transformers.disable_max_rows():
        form: dict[str, Any] = chart.to_dict(validate=False)
    form.pop("config", None)
    return form


def scaled(spec: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield the channel ``name`` of every layer in which its scale has a domain."""
    for layer in spec.get("layer", [spec]):
        channel = layer.get("encoding", {}).get(name, {})
        if "domain" in (channel.get("scale") or {}):
            yield channel
