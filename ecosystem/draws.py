"""Draws from many documents: the smallest of random keys, found in one pass of blocks that fit the cache."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from ecosystem.streams import Stream

Keys = Callable[[slice, float], tuple[NDArray[np.int64], NDArray[np.float64]]]
"""Positions and keys of a block, in ascending order of positions; keys that are not below the bound may be left out."""

_BLOCK = 1 << 16  # positions a block
_PART = 1 << 18  # positions that are worth a thread of their own


def smallest(count: int, k: int, keys: Keys, threads: int = 1) -> NDArray[np.int64]:
    """Return the positions, ascending, of the ``k`` smallest keys of ``count`` positions; fewer if there are fewer.

    Of equal keys, those at smaller positions come first. The result does not depend on ``threads``.
    """
    parts = max(1, min(threads, count // _PART))
    edges = [count * part // parts for part in range(parts + 1)]
    if parts == 1:
        return _smallest_within(0, count, k, keys)[0]
    with ThreadPoolExecutor(parts) as pool:
        found = list(pool.map(lambda a, b: _smallest_within(a, b, k, keys), edges[:-1], edges[1:]))
    return _first(np.concatenate([at for at, _ in found]), np.concatenate([key for _, key in found]), k)[0]


def _smallest_within(first: int, last: int, k: int, keys: Keys) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    at, key, bound = np.zeros(0, np.int64), np.zeros(0), np.inf
    for start in range(first, last, _BLOCK):
        more_at, more_key = keys(slice(start, min(start + _BLOCK, last)), bound)
        at, key = _first(np.concatenate([at, more_at]), np.concatenate([key, more_key]), k)
        bound = key.max() if at.size == k else np.inf  # a later key as large as the largest comes too late
    return at, key


def _first(at: NDArray[np.int64], key: NDArray[np.float64], k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the ``k`` smallest keys, in order of their positions."""
    if at.size <= k:
        return at, key
    chosen = np.sort(np.argsort(key, kind="stable")[:k])
    return at[chosen], key[chosen]


def lowest(ids: NDArray[np.int64], k: int, stream: Stream) -> NDArray[np.int64]:
    """Return the ``k`` ids, in their order in ``ids``, to which a stream gives the smallest numbers."""

    def keys(block: slice, bound: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        noise = stream.uniform(ids[block])
        below = np.flatnonzero(noise < bound)
        return block.start + below, noise[below]

    return ids[smallest(ids.size, k, keys)]


def first_arrivals(
    ids: NDArray[np.int64], appeal: NDArray[np.float64] | None, k: int, stream: Stream, threads: int = 1
) -> NDArray[np.int64]:
    """Draw ``k`` ids without replacement, in proportion to their ``appeal`` (None: 1 each); keep their order.

    Every id arrives after an exponential time, at a rate of its appeal; the first ``k`` are drawn (Efraimidis &
    Spirakis 2006). An id that can no longer be among the first is left out before its logarithm is taken.
    """
    if ids.size <= k:
        return ids
    fastest = 1.0 if appeal is None else float(appeal.max())

    def keys(block: slice, bound: float) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        noise = stream.uniform(ids[block])
        # With a margin for rounding; the exact test follows.
        least = np.exp(-bound * fastest) * (1 - 1e-9) if np.isfinite(bound) else 0.0
        early = np.flatnonzero(noise > least)
        with np.errstate(divide="ignore"):
            arrival = -np.log(noise[early])
            if appeal is not None:
                arrival /= appeal[block][early]
        before = np.flatnonzero(arrival < bound) if np.isfinite(bound) else slice(None)
        return block.start + early[before], arrival[before]

    return ids[smallest(ids.size, k, keys, threads)]
