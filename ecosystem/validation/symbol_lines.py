"""Resample n documents of many replicates at once, by the counts of their symbols."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MANY = 20  # mean number of borders per replicate above which counting all copies is faster than comparing


class SymbolLines:
    """The n documents of each of many replicates, sorted by symbol into a line; only the borders are stored.

    Documents of one symbol are interchangeable, so a new generation draws n parents and counts how many of them are
    before each border. ``ends`` [symbols, replicates] is the end of each symbol's part of the line (n for the last
    symbol; that of the previous symbol for an extinct one), and ``symbol`` its index. Replicates are sorted by
    descending number of symbols: the first ``open[j]`` of them have a j-th border inside the line.
    """

    def __init__(self, ends: NDArray[Any], symbol: NDArray[Any], replicate: NDArray[np.int64], n: int) -> None:
        self.ends, self.symbol, self.replicate, self.n = ends, symbol, replicate, n
        self._inside = ends < n
        counts = np.count_nonzero(self._inside, axis=1)
        self.open: list[int] = counts[counts > 0].tolist()

    @classmethod
    def of(cls, drawn: NDArray[Any]) -> SymbolLines:
        """Return the lines of ``drawn`` symbols [replicates, n], which are sorted in each replicate."""
        size, n = drawn.shape
        ends = np.broadcast_to(np.arange(1, n + 1, dtype=np.min_scalar_type(n)), drawn.shape)
        last = np.ones(drawn.shape, np.bool_)
        np.not_equal(drawn[:, 1:], drawn[:, :-1], out=last[:, :-1])
        return cls._sorted(ends, drawn, np.arange(size), last)

    @classmethod
    def _sorted(
        cls, ends: NDArray[Any], symbol: NDArray[Any], replicate: NDArray[np.int64], keep: NDArray[np.bool_]
    ) -> SymbolLines:
        """Return lines with the borders selected by ``keep`` from arrays [replicates, borders]."""
        borders = np.count_nonzero(keep, axis=1)
        order = np.argsort(-borders, kind="stable")
        keep, borders, n = keep[order], borders[order], int(ends[0, -1])
        occupied = np.arange(borders[0]) < borders[:, None]

        def packed(values: NDArray[Any], fill: int) -> NDArray[Any]:
            table = np.full(occupied.shape, fill, values.dtype)
            table[occupied] = values[order][keep]
            return np.ascontiguousarray(table.T)

        return cls(packed(ends, n), packed(symbol, 0), replicate[order], n)

    def without(self, extinct: NDArray[np.bool_]) -> SymbolLines:
        """Return the lines without the ``extinct`` symbols [symbols, replicates]."""
        return self._sorted(self.ends.T, self.symbol.T, self.replicate, ~extinct.T)

    def counts(self) -> NDArray[Any]:
        """Return the number of documents of each symbol, [symbols, replicates]."""
        return np.diff(self.ends, axis=0, prepend=self.ends.dtype.type(0))

    def resample(self, rng: np.random.Generator) -> None:
        """Replace the n documents of each replicate by n random copies of them."""
        n, live = self.n, self.open[0]
        parents = _below(n, n * live, rng)
        if sum(self.open) > _MANY * live:
            rows = np.arange(live)[:, None] * (n + 1)
            places = (parents.reshape(live, n) + (rows + 1)).ravel()
            before = np.bincount(places, minlength=live * (n + 1)).reshape(live, n + 1).cumsum(axis=1)
            self.ends[:, :live] = before.ravel().take(self.ends[:, :live].T + rows).T
        else:
            parents = parents.reshape(n, live)
            repeated = np.concatenate([parents[:, :columns] for columns in self.open], axis=1)
            before = repeated < self.ends[self._inside]
            self.ends[self._inside] = before.view(np.uint8).sum(axis=0, dtype=self.ends.dtype)


def _below(n: int, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw ``count`` uniform integers below n, in the smallest type that can represent n.

    They are remainders of 16 random bits; bits that would favour small remainders are drawn again. NumPy's own method
    takes 1.5 times as long.
    """
    small = np.min_scalar_type(n)
    if n > 1 << 15:
        return rng.integers(0, n, count, dtype=small)
    limit = (1 << 16) // n * n
    bits = rng.bit_generator.random_raw(-(-count // 4)).view(np.uint16)[:count]
    rejected = np.flatnonzero(bits >= limit)
    bits[rejected] = rng.integers(0, limit, rejected.size)
    bits -= bits // n * np.uint16(n)
    return bits.astype(small, copy=False)
