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
    """Append the share of machine text in what readers see, of the web; no row if they see nothing."""
    seen, share = views(state), state.corpus.live().array("ai_share")
    if seen.sum() > 0:
        value = float((seen * share).sum() / seen.sum())
        step.metrics.append(rows(step.t, "web", "web", {"read_synthetic_share": value}))
