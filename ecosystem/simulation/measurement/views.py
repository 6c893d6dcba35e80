"""What readers see of the web: the views that each live document gets, and the share of machine text in them."""

from __future__ import annotations

import numpy as np

from ecosystem.metrics.tables import rows
from ecosystem.simulation.state import State
from ecosystem.simulation.step import Step
from ecosystem.types import Floats


def views(state: State) -> Floats:
    """Return the relative number of views that each live document gets from readers, [live documents].

    Readers visit sites in proportion to their PageRank, and see the live documents of a site alike, except that the
    views of a document are multiplied by its prominence.
    """
    live = state.corpus.live()
    site = live.array("site")
    documents = np.bincount(site, minlength=state.web.sites)
    return np.asarray(live.array("weight") * (state.web.popularity() / np.maximum(documents, 1))[site], np.float64)


def measure_views(state: State, step: Step) -> None:
    """Append the share of machine text in what readers see of the web, and of each type of sites.

    There is no row where they see nothing.
    """
    live, sites = state.corpus.live(), state.web.population
    seen, share = views(state), live.array("ai_share")
    parts = [("web", "web", np.ones(len(live), np.bool_))]
    if sites is not None:
        types = sites.type[live.array("site")]
        parts += [("site_type", name, types == place) for place, name in enumerate(sites.names)]
    for scope, who, own in parts:
        if (total := seen[own].sum()) > 0:
            value = float((seen[own] * share[own]).sum() / total)
            step.metrics.append(rows(step.t, scope, who, {"read_synthetic_share": value}))
