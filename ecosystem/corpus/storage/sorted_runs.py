"""Pairs of an integer key and an integer value that only grow in number, beyond memory if need be.

Pairs are kept in sorted runs that are merged by levels (a log-structured merge: O'Neil et al. 1996). Small runs stay in
memory; larger ones live in files of a scratch folder, with every 256th key in memory. Files are read in blocks and not
mapped, since every page of a map that was touched counts as memory of the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ecosystem.corpus.storage.scratch import Scratch
from ecosystem.corpus.storage.stored_arrays import FileArray

_MEMORY = 1 << 22  # pairs above which a run moves to a file
_BLOCK = 256  # keys between two that are kept in memory
_MERGED = 1 << 16  # pairs of every run that are merged at a time
_KEYS_PER_WORD = 8  # at most, of a filter
_SEARCHED = 1 << 14  # keys searched in a file at a time, each in a block of its own in the worst case


class SortedRuns:
    """Pairs of a key and a value; later pairs of a key have larger values."""

    def __init__(self, scratch: Scratch) -> None:
        """Begin empty; ``scratch`` takes the files of large runs."""
        self._scratch = scratch
        self.runs: list[Run] = []  # from old to new; all values of a key in a run are smaller than those in newer runs

    def __len__(self) -> int:
        """Return the number of pairs."""
        return sum(map(len, self.runs))

    def append(self, keys: NDArray[np.uint64], values: NDArray[np.int64]) -> None:
        """Add pairs, sorted by key and, within a key, by value; values of a known key exceed those known."""
        if not keys.size:
            return
        self.runs.append(_MemoryRun(keys, values))
        sizes = np.array([len(run) for run in self.runs])
        newer = np.cumsum(sizes[::-1])[::-1] - sizes
        small = np.flatnonzero(2 * sizes < newer)
        first = int(small[0]) if small.size else len(self.runs) - 1
        if small.size or keys.size > _MEMORY:
            self.runs[first:] = [self._merged(self.runs[first:])]

    def first(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Return the smallest value of each key, or -1; ``keys`` ascend."""
        smallest = np.full(keys.size, -1)
        for run in self.runs:
            unknown = np.flatnonzero(smallest < 0)
            start, stop = run.find(keys[unknown])
            found = start < stop
            smallest[unknown[found]] = run.values(start[found])
        return smallest

    def _merged(self, runs: list[Run]) -> Run:
        if sum(map(len, runs)) <= _MEMORY:
            return _MemoryRun(*map(np.concatenate, zip(*_merge(runs), strict=True)))
        merged = _FileRun(self._scratch, sum(map(len, runs)))
        for keys, values in _merge(runs):
            merged.append(keys, values)
        for run in runs:
            run.delete()
        return merged


class FirstCopies:
    """The first document with each hash, for a collection of documents that only grows."""

    def __init__(self, scratch: Scratch) -> None:
        """Begin empty; ``scratch`` takes the files of large indexes."""
        self._first = SortedRuns(scratch)

    def register(self, hashes: NDArray[np.uint64], first_id: int) -> NDArray[np.int64]:
        """Add documents whose ids count from ``first_id``; return the earliest document with the hash of each, or -1.

        Ids must exceed all earlier ones.
        """
        unique, place, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        earliest = self._first.first(unique)
        new = earliest < 0
        earliest[new] = first_id + place[new]
        self._first.append(unique[new], earliest[new])
        copies = earliest[inverse]
        copies[copies == first_id + np.arange(copies.size)] = -1
        return copies


class Run(Protocol):
    """A sorted run: pairs in ascending order of keys and, within a key, of values."""

    def __len__(self) -> int:
        """Return the number of pairs."""

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return the places of the first pair of each key and of the one after its last; ``keys`` ascend."""

    def values(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the values at places."""

    def read(self, first: int, last: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the keys and the values from place ``first`` to ``last``."""

    def delete(self) -> None:
        """Delete the files of the run."""


class _MemoryRun:
    """A run in memory."""

    def __init__(self, keys: NDArray[np.uint64], values: NDArray[np.int64]) -> None:
        self._keys, self._values = keys, values

    def __len__(self) -> int:
        return self._keys.size

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return np.searchsorted(self._keys, keys), np.searchsorted(self._keys, keys, side="right")

    def values(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._values[places]

    def read(self, first: int, last: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        return self._keys[first:last], self._values[first:last]

    def delete(self) -> None:
        pass


class _FileRun:
    """A run in two files, with the first key of every block in memory, and a filter that tells most missing keys."""

    def __init__(self, scratch: Scratch, pairs: int) -> None:
        self._filter = _Filter(pairs)
        self._keys, self._values = FileArray(scratch, np.uint64), FileArray(scratch, np.int64)
        self._fences: list[NDArray[np.uint64]] = []  # the first key of every block, in parts

    def __len__(self) -> int:
        return len(self._keys)

    def append(self, keys: NDArray[np.uint64], values: NDArray[np.int64]) -> None:
        self._filter.add(keys)
        self._fences.append(keys[-len(self) % _BLOCK :: _BLOCK].copy())
        self._keys.append(keys)
        self._values.append(values)

    def find(self, keys: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        if len(self._fences) > 1:
            self._fences = [np.concatenate(self._fences)]
        start, stop = np.zeros((2, keys.size), np.int64)
        likely = np.flatnonzero(self._filter.may_contain(keys))
        for i in range(0, likely.size, _SEARCHED):
            part = likely[i : i + _SEARCHED]
            start[part], present = self._search(keys[part], "left")
            stop[part] = start[part]
            if present.any():
                stop[part[present]] = self._search(keys[part[present]], "right")[0]
        return start, stop

    def _search(
        self, keys: NDArray[np.uint64], side: Literal["left", "right"]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return where each key would be inserted, as np.searchsorted does, and whether the key there is equal."""
        [fences] = self._fences
        block = np.maximum(np.searchsorted(fences, keys, side) - 1, 0)
        new = np.diff(block, prepend=-1) > 0
        blocks, which = block[new], np.cumsum(new) - 1
        apart = np.diff(blocks, prepend=-2) > 1
        starts = blocks[apart] * _BLOCK
        stops = (blocks[np.append(apart[1:], True)] + 1) * _BLOCK
        # The blocks one after the other are sorted, so all keys are searched at once.
        read = self._keys.spans(starts, np.minimum(stops, len(self)))
        at = np.searchsorted(read, keys, side)
        equal = read[np.minimum(at, read.size - 1)] == keys
        equal |= fences[np.minimum(block + 1, fences.size - 1)] == keys  # the next block, which was perhaps not read
        return at + (blocks - np.arange(blocks.size))[which] * _BLOCK, equal

    def values(self, places: NDArray[np.int64]) -> NDArray[np.int64]:
        return self._values.take(places)

    def read(self, first: int, last: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        return self._keys.read(first, last), self._values.read(first, last)

    def delete(self) -> None:
        self._keys.delete()
        self._values.delete()


class _Filter:
    """A Bloom filter in which all bits of a key are in one word (Putze et al. 2007).

    Words are chosen by the first bits of a key. So sorted keys fill them from left to right; keys should be hashes.
    """

    def __init__(self, keys: int) -> None:
        """Begin empty, with 4 to 8 of ``keys`` keys per word, so that 1 to 5 % of missing keys seem present."""
        bits = max(1, (keys // _KEYS_PER_WORD).bit_length())
        self._words = np.zeros(1 << bits, np.uint64)
        self._shift = np.uint64(64 - bits)

    def add(self, keys: NDArray[np.uint64]) -> None:
        """Add keys, which ascend."""
        word = keys >> self._shift
        first = np.flatnonzero(np.append(True, word[1:] != word[:-1]))
        self._words[word[first]] |= np.bitwise_or.reduceat(self._bits(keys), first)

    def may_contain(self, keys: NDArray[np.uint64]) -> NDArray[np.bool_]:
        """Return True for all keys that were added, and for few others."""
        bits = self._bits(keys)
        likely: NDArray[np.bool_] = (self._words[keys >> self._shift] & bits) == bits
        return likely

    @staticmethod
    def _bits(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
        one, last = np.uint64(1), np.uint64(63)
        bits: NDArray[np.uint64]
        bits = one << (keys & last) | one << (keys >> np.uint64(6) & last) | one << (keys >> np.uint64(12) & last)
        return bits


class _Reader:
    """Reads a run from its start, a block at a time."""

    def __init__(self, run: Run) -> None:
        self._run, self._next = run, 0
        self.keys, self._values = np.empty(0, np.uint64), np.empty(0, np.int64)

    @property
    def is_last(self) -> bool:
        """Whether nothing follows the pairs that have been read."""
        return self._next == len(self._run)

    def fill(self) -> bool:
        """Read a block if none is at hand; return whether there are pairs."""
        if not self.keys.size:
            self.keys, self._values = self._run.read(self._next, self._next + _MERGED)
            self._next += self.keys.size
        return self.keys.size > 0

    def take(self, count: int) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
        """Return the first pairs that have been read, and forget them."""
        taken = self.keys[:count], self._values[:count]
        self.keys, self._values = self.keys[count:], self._values[count:]
        return taken


def _merge(runs: Sequence[Run]) -> Iterator[tuple[NDArray[np.uint64], NDArray[np.int64]]]:
    """Merge runs, oldest first, into blocks of keys and values."""
    readers = [_Reader(run) for run in runs]
    while readers := [reader for reader in readers if reader.fill()]:
        unfinished = [reader.keys[-1] for reader in readers if not reader.is_last]
        limit = min(unfinished) if unfinished else None
        # Of pairs with the key ``limit``, those of a newer run must wait until all of the older ones have been read.
        side: Literal["left", "right"] = "right"
        parts = []
        for reader in readers:
            waits = not reader.is_last and reader.keys[-1] == limit
            parts.append(reader.take(reader.keys.size if limit is None else int(reader.keys.searchsorted(limit, side))))
            side = "left" if waits else side
        keys, values = (np.concatenate(part) for part in zip(*parts, strict=True))
        order = np.argsort(keys, kind="stable")
        yield keys[order], values[order]
