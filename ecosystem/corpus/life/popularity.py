"""PageRank of the living sites of a web that changes at every step."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from ecosystem.types import Floats

DAMPING = 0.85
_PRECISION = 1e-10  # of a site, on average
_ITERATIONS = 1000


def page_rank(links: Iterable[tuple[int, int, float]], alive: NDArray[np.bool_]) -> Floats:
    """Return the PageRank of each site (Page et al. 1999), [sites]: 0 if dead; the others sum to one.

    ``links`` are (from, to, weight); those of dead sites do not count. Conventions and precision are those of networkx,
    which takes ten times as long to convert a graph of some hundred sites. The order of the links has no effect.
    """
    table = np.array(list(links), dtype=np.float64).reshape(-1, 3)
    ends = table[:, :2].astype(np.int64)
    between = alive[ends].all(axis=1)
    table, ends = table[between], ends[between]
    order = np.lexsort((ends[:, 0], ends[:, 1]))  # sums of floating-point numbers depend on it
    (a, b), weight = ends[order].T, table[order, 2]
    leaving = np.bincount(a, weights=weight, minlength=alive.size)
    share = weight / leaving[a]
    jump = alive / max(1, int(alive.sum()))
    dangling = alive & (leaving == 0)
    rank = jump.copy()
    for _ in range(_ITERATIONS):
        last = rank
        rank = np.bincount(b, weights=rank[a] * share, minlength=alive.size) + rank[dangling].sum() * jump
        rank = DAMPING * rank + (1 - DAMPING) * jump
        if np.abs(rank - last).sum() < alive.sum() * _PRECISION:
            break
    return np.asarray(rank, dtype=np.float64)
