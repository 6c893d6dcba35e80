"""Axes and names of charts: ticks of dates, costs from zero, names that do not cover one another, empty charts."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from ecosystem.fitting.report.build import _has_effects
from ecosystem.report import charts
from ecosystem.report.charts import ChartLabels, ChartTheme
from ecosystem.report.run_charts import _spans_decades
from ecosystem.studies.sensitivity import Index

LABELS = ChartLabels("title", "subtitle", "value", ".3~g")


@pytest.mark.parametrize(
    ("first", "last", "width", "ticks", "words"),
    [
        (date(2022, 6, 1), date(2022, 12, 1), 400, ["2022-07", "2022-09", "2022-11"], "%B"),
        (date(2022, 5, 20), date(2024, 8, 1), 400, ["2022-07", "2023-01", "2023-07", "2024-01", "2024-07"], "%b %Y"),
        (date(2020, 1, 1), date(2030, 1, 1), 400, ["2022-01", "2025-01", "2028-01"], "%Y"),
        (date(2022, 6, 1), date(2022, 6, 20), 400, None, None),  # days: the browser chooses
    ],
)
def test_dates_have_ticks_at_months_that_fit(first, last, width, ticks, words):
    axis = charts.dates_axis(first, last, width).to_dict(validate=False)["axis"]
    found = [f"{tick['year']}-{tick['month']:02}" for tick in axis["values"]] if "values" in axis else None
    assert found == ticks and axis.get("format") == words
    assert ticks is None or len(ticks) <= width // 80


def test_costs_begin_at_zero_and_names_keep_apart():
    rows = [("near", 0.0, 4.0), ("above", 10.0, 4.05), ("far", 1000.0, 3.0)]
    frame = pl.DataFrame(
        [
            {"population": name, "cost": cost, "cost_low": cost, "cost_high": cost, "value": value}
            | {"low": value - 0.5, "high": value + 0.5, "best": True}
            for name, cost, value in rows
        ]
    )
    spec = charts.specification(charts.tradeoff(frame, ChartTheme(["near", "above", "far"], 1), LABELS, "cost"))
    places = {row["population"]: row["_place"] for row in spec["datasets"]["arms"]}
    assert places == {"near": "below right", "above": "above right", "far": "above left"}
    assert next(charts.scaled(spec, "x"))["scale"]["domain"][0] == 0
    assert charts.describe(spec).endswith("near: 4 at cost 0; above: 4.05 at cost 10; far: 3 at cost 1000.")


def test_an_axis_is_logarithmic_only_for_positive_values_over_three_decades():
    assert _spans_decades(pl.Series([1.5, 2.0, 1e6, None, float("inf")]))
    assert not _spans_decades(pl.Series([1.5, 200.0])) and not _spans_decades(pl.Series([-1.0, 1e6]))
    assert not _spans_decades(pl.Series([], dtype=pl.Float64))


def test_a_target_without_any_effect_has_no_chart():
    still, moved = (Index("rate", main, 0.0, 0.0, 0.0) for main in (0.0, 0.3))
    assert not _has_effects([still, still]) and _has_effects([still, moved])


def test_bars_reach_their_error_bars_and_begin_at_zero():
    frame = pl.DataFrame({"row": ["a", "a"], "origin": ["human", "synthetic"], "flagged": [1, 2], "total": [2, 4]})
    frame = frame.with_columns(rate=pl.Series([0.5, 0.5]), error=pl.Series([0.35, 0.25]))
    spec = charts.specification(charts.rates(frame, LABELS))
    low, high = next(charts.scaled(spec, "x"))["scale"]["domain"]
    assert low == 0 and high > 0.85
