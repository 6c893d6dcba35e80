"""Resampling n documents of many replicates at once without making them: only the counts of each symbol are kept."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_MANY = 20  # borders a replicate, on average, beyond which a generation is counted and not compared


class SymbolLines:
    """The n documents of each of many replicates as a line sorted by symbol, of which only the borders are known.

    Which of a symbol's documents is copied makes no difference, so a new generation needs n parents, but of its
    documents only how many have a parent before each border. ``ends`` [symbols, replicates] is where each symbol's part
    ends (n after the last, where the one before does for a symbol that has died), ``symbol`` its name. Replicates are
    sorted by falling number of symbols: the first ``open[j]`` of them have a j-th border inside the line.
    """

    def __init__(self, ends: NDArray[Any], symbol: NDArray[Any], replicate: NDArray[np.int64], n: int) -> None:
        self.ends, self.symbol, self.replicate, self.n = ends, symbol, replicate, n
        self._inside = ends < n
        counts = np.count_nonzero(self._inside, axis=1)
        self.open: list[int] = counts[counts > 0].tolist()

    @classmethod
    def of(cls, drawn: NDArray[Any]) -> SymbolLines:
        """Begin with symbols [replicates, n], sorted in each replicate."""
        size, n = drawn.shape
        ends = np.broadcast_to(np.arange(1, n + 1, dtype=np.min_scalar_type(n)), drawn.shape)
        last = np.ones(drawn.shape, np.bool_)
        np.not_equal(drawn[:, 1:], drawn[:, :-1], out=last[:, :-1])
        return cls._sorted(ends, drawn, np.arange(size), last)

    @classmethod
    def _sorted(
        cls, ends: NDArray[Any], symbol: NDArray[Any], replicate: NDArray[np.int64], keep: NDArray[np.bool_]
    ) -> SymbolLines:
        """Take the borders to ``keep`` from arrays [replicates, places]."""
        number = np.count_nonzero(keep, axis=1)
        order = np.argsort(-number, kind="stable")
        keep, number, n = keep[order], number[order], int(ends[0, -1])
        place = np.arange(number[0]) < number[:, None]

        def packed(values: NDArray[Any], rest: int) -> NDArray[Any]:
            table = np.full(place.shape, rest, values.dtype)
            table[place] = values[order][keep]
            return np.ascontiguousarray(table.T)

        return cls(packed(ends, n), packed(symbol, 0), replicate[order], n)

    def without(self, dead: NDArray[np.bool_]) -> SymbolLines:
        """Return the lines without the symbols that have died [symbols, replicates]."""
        return self._sorted(self.ends.T, self.symbol.T, self.replicate, ~dead.T)

    def counts(self) -> NDArray[Any]:
        """Return the documents of each symbol, [symbols, replicates]."""
        return np.diff(self.ends, axis=0, prepend=self.ends.dtype.type(0))

    def resample(self, rng: np.random.Generator) -> None:
        """Copy n documents of each replicate at random."""
        n, live = self.n, self.open[0]
        parents = _below(n, n * live, rng)
        if sum(self.open) > _MANY * live:  # borders for which it pays to count the copies of every document
            rows = np.arange(live)[:, None] * (n + 1)
            places = (parents.reshape(live, n) + (rows + 1)).ravel()
            before = np.bincount(places, minlength=live * (n + 1)).reshape(live, n + 1).cumsum(axis=1)
            self.ends[:, :live] = before.ravel().take(self.ends[:, :live].T + rows).T
        else:
            parents = parents.reshape(n, live)
            near = np.concatenate([parents[:, :columns] for columns in self.open], axis=1)
            below = near < self.ends[self._inside]
            self.ends[self._inside] = below.view(np.uint8).sum(axis=0, dtype=self.ends.dtype)


def _below(n: int, count: int, rng: np.random.Generator) -> NDArray[Any]:
    """Return whole numbers below n, all equally likely, in the smallest type that holds n.

    They are remainders of 16 random bits, of which those are drawn again that would favour small ones; NumPy's own
    take half as long again.
    """
    small = np.min_scalar_type(n)
    if n > 1 << 15:
        return rng.integers(0, n, count, dtype=small)
    fair = (1 << 16) // n * n
    bits = rng.bit_generator.random_raw(-(-count // 4)).view(np.uint16)[:count]
    again = np.flatnonzero(bits >= fair)
    bits[again] = rng.integers(0, fair, again.size)
    bits -= bits // n * np.uint16(n)
    return bits.astype(small, copy=False)
