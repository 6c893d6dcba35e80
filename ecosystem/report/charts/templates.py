"""Charts that are drawn over and over: what stays is made by Altair once, what changes is put in.

Altair takes twenty times as long over such a chart as its numbers do, and a page draws one anew at every step.
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
    """A chart: Vega-Lite that names its data, and the tables of these names."""

    spec: dict[str, Any]
    tables: dict[str, pl.DataFrame]

    @classmethod
    def of(
        cls, form: dict[str, Any], labels: ChartLabels, tables: Mapping[str, pl.DataFrame], **domains: Sequence[float]
    ) -> ChartTemplate:
        """Fill in a form: the words above it, the data, and the domains of channels by name."""
        spec = copy.deepcopy(form)
        for name, domain in domains.items():
            for channel in scaled(spec, name):
                channel["scale"]["domain"] = list(domain)
        return cls({**spec, "title": {"text": labels.title, "subtitle": labels.below}}, dict(tables))

    def datasets(self) -> dict[str, list[dict[str, Any]]]:
        """Return the rows of every table by name; what is no finite number is null."""
        finite = pl.when(cs.float().is_finite()).then(cs.float())
        return {name: table.with_columns(finite).to_dicts() for name, table in self.tables.items()}


def named(names: Iterable[str]) -> dict[str, Any]:
    """Return, by name, what stands for tables in a form."""
    return {name: alt.NamedData(name=name) for name in names}


def formed(chart: alt.TopLevelMixin) -> dict[str, Any]:
    """Return a chart of Altair as plain Vega-Lite, without its default theme; one of named data is a form."""
    with alt.data_transformers.disable_max_rows():
        form: dict[str, Any] = chart.to_dict(validate=False)
    form.pop("config", None)
    return form


def scaled(spec: Mapping[str, Any], name: str) -> Iterator[dict[str, Any]]:
    """Yield a channel of every layer that has it and says something of the domain of its scale."""
    for layer in spec.get("layer", [spec]):
        channel = layer.get("encoding", {}).get(name, {})
        if "domain" in (channel.get("scale") or {}):
            yield channel
