"""Charts as the page shows them: a specification that stays, and the data that change from step to step."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import polars as pl

from ecosystem import charts
from ecosystem.app.film import Film
from ecosystem.charts import Words
from ecosystem.report import drawings, figures


@dataclass(frozen=True)
class Picture:
    """A chart: its title and the line below it, its specification without data, and its data by name."""

    name: str
    title: str
    below: str
    spec: dict[str, Any]
    data: dict[str, list[dict[str, Any]]]

    @classmethod
    def of(cls, name: str, chart: Any) -> Picture:
        """Take a chart apart; data are named by their place, so that two steps can have the same specification."""
        spec = charts.specification(chart)
        title = spec.pop("title", {})
        data = spec.pop("datasets", {})
        names = {old: f"d{number}" for number, old in enumerate(data)}
        text = json.dumps(spec)
        for old, new in names.items():
            text = text.replace(f'"{old}"', f'"{new}"')
        fluid = {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
        return cls(
            name,
            title.get("text", ""),
            title.get("subtitle", ""),
            {**json.loads(text), **fluid},
            {names[old]: rows for old, rows in data.items()},
        )


def web(film: Film, step: int) -> Picture:
    """Draw the site graph after a step: area is documents, colour their synthetic share, an outline a curated site."""
    nodes = film.sites(step).drop("site").rename({"name": "site"})
    if not nodes["curated"].any():
        nodes = nodes.drop("curated")
    shown = f"{nodes.height:,} sites, {len(film.links):,} links drawn"
    words = Words(f"The web at step {step}", shown, "synthetic share", ".0%")
    return Picture.of("web", charts.site_graph(nodes, film.links, words, film.most))


def contamination(film: Film, metric: str) -> Any:
    """Draw a key of ``drawings.CONTAMINATION``."""
    return drawings.contamination(film.book, metric)


def qualities(film: Film) -> dict[str, str]:
    """Return the measures of quality that this run has, by name, with what each is called."""
    there = set(film.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    if film.scenario.modality == "text":
        found = {metric: label for metric, (label, *_) in drawings.QUALITY.items() if metric in there}
        return found | ({"change": "Change since the start"} if "cross_entropy" in there else {})
    return {metric: drawings.called(metric) for metric in drawings.parameters(film.book) if metric in there}


def quality(film: Film, metric: str) -> Any:
    """Draw a key of :func:`qualities`."""
    if film.scenario.modality != "text":
        return drawings.parameter(film.book, metric)
    return drawings.quality_change(film.book) if metric == "change" else drawings.quality(film.book, metric)


def diversities(film: Film) -> dict[str, str]:
    """Return the measures of diversity and of tails that this run has, by name, with what each is called."""
    there = set(film.metrics.filter(pl.col("scope") == "trainer")["metric"].unique())
    if film.scenario.modality != "text":
        return qualities(film)
    named = drawings.TEXT | drawings.LATE | {metric: words.title for metric, words in drawings.OTHERS.items()}
    found = {metric: label for metric, label in named.items() if metric in there}
    kept = "vocabulary_kept_1" in there
    return found | ({"vocabulary": "Human vocabulary kept, by frequency"} if kept else {})


def diversity(film: Film, metric: str) -> Any:
    """Draw a key of :func:`diversities`."""
    if film.scenario.modality != "text":
        return drawings.parameter(film.book, metric)
    if metric == "vocabulary":
        return drawings.vocabulary(film.book)
    return drawings.diversity(film.book, metric) if metric in drawings.TEXT else drawings.tails(film.book).get(metric)


def ledger(film: Film, step: int) -> Any:
    """Draw what each policy refused at a step, and what curators suspected, by true origin; None where nobody did."""
    now = film.metrics.filter(pl.col("step") == step)
    refused = figures.refusals(now).with_columns(row=pl.format("{} · {}", "who", "what"))
    caught = figures.detections(now).with_columns(row=pl.format("{} (curators)", "who"))
    rows = pl.concat([refused, caught])
    if rows.is_empty():
        return None
    words = Words(
        f"Who refused what at step {step}, by true origin",
        "share of the documents that reached a policy or curator; grey: human, violet: synthetic; ± one standard error",
        "share refused or suspected",
    )
    return charts.rates(rows, words)


class Gallery:
    """Pictures of a film that were drawn before; those that depend on all steps are drawn anew when one is added."""

    def __init__(self, film: Film) -> None:
        self.film = film
        self._known: dict[tuple[Any, ...], Picture | None] = {}
        self._at = (-1, 0)

    def picture(self, draw: Callable[..., Any], *arguments: Any) -> Picture | None:
        """Return ``draw(film, *arguments)`` as a picture; None where there is nothing to draw."""
        at = self.film.last, id(self.film.scenario)
        if at != self._at:
            self._known.clear()
            self._at = at
        key = draw.__name__, *arguments
        if key not in self._known:
            drawn = draw(self.film, *arguments)
            name = "-".join(str(part) for part in key)
            self._known[key] = drawn if isinstance(drawn, Picture | None) else Picture.of(name, drawn)
        return self._known[key]
