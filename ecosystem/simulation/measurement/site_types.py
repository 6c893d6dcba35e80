"""Measurements of the types of sites: how many sites and documents there are, what is new, and what left and why."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ecosystem.corpus.life.sites import Sites
from ecosystem.metrics import tables
from ecosystem.metrics.tables import rows
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step
from ecosystem.simulation.transitions.web_life import PAGE, SITE
from ecosystem.types import Floats

LEFT = ("left_page_died", "left_site_died", "left_curated", "left_filtered")
"""Metrics of what left the web, by reason."""


def measure_site_types(state: State, step: Step) -> None:
    """Measure every type of sites, and how much of the web crawlers may not read; nothing on a web without types."""
    sites = state.web.population
    if sites is None:
        return
    live, kinds = state.corpus.live(), len(sites.names)
    kind = sites.type[live.array("site")]
    documents = np.bincount(kind, minlength=kinds)
    values = {
        "documents": documents,
        "synthetic_share": _mean(live.array("ai_share"), kind, documents),
        "depth": _mean(live.array("depth"), kind, documents),
        "sites": np.bincount(sites.type[sites.alive], minlength=kinds),
        "sites_born": np.bincount(sites.type[sites.born == state.t], minlength=kinds),
        "sites_died": np.bincount(sites.type[sites.died == state.t], minlength=kinds),
        "documents_published": _published(state, sites),
        **dict(zip(LEFT, _departures(state, sites), strict=True)),
    }
    refusing = state.refusing()
    if refusing is not None:
        refused = refusing[live.array("site")]
        values["crawl_refused_share"] = _mean(refused, kind, documents)
        if refused.size:
            step.metrics.append(rows(step.t, "web", "web", {"crawl_refused_share": float(refused.mean())}))
    counts = {name: np.asarray(column, dtype=np.float64) for name, column in values.items()}
    step.metrics.append(tables.many(step.t, "site_type", np.array(sites.names), counts, {}))


def _mean(values: NDArray[np.generic], kind: NDArray[np.int64], documents: NDArray[np.int64]) -> Floats:
    """Return the mean over the documents of each type, [types]; NaN for a type without documents."""
    total = np.bincount(kind, weights=values.astype(np.float64), minlength=documents.size)
    mean: Floats = np.divide(total, documents, out=np.full(documents.size, np.nan), where=documents > 0)
    return mean


def _published(state: State, sites: Sites) -> NDArray[np.int64]:
    first, last = np.searchsorted(state.corpus.array("t"), [state.t, state.t + 1])
    new = state.corpus.array("site")[first:last][state.corpus.array("published")[first:last]]
    return np.bincount(sites.type[new], minlength=len(sites.names))


def _departures(state: State, sites: Sites) -> NDArray[np.int64]:
    """Return how many documents left at this step, [reasons of LEFT, types]."""
    corpus, kinds = state.corpus, len(sites.names)
    sort = np.array([_sort(reason) for reason in corpus.reasons], dtype=np.int64)
    gone = np.flatnonzero((corpus.array("retired_at") == state.t) & (corpus.array("left_by") >= 0))
    place = sort[corpus.array("left_by")[gone]] * kinds + sites.type[corpus.array("site")[gone]]
    return np.bincount(place, minlength=len(LEFT) * kinds).reshape(len(LEFT), kinds)


def _sort(reason: str) -> int:
    """Return the place in LEFT of the reason for which a document left."""
    if reason in (PAGE, SITE):
        return (PAGE, SITE).index(reason)
    return 2 if reason.startswith("curators/") else 3  # else the name of a policy, which has no slash
