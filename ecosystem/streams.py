"""Random numbers: named streams, each a pure function of (seed, name, step).

A stream holds no generator state. So an exact resume needs no saved state, two runs that differ in one policy share
the noise of everything else, and adding an agent does not change the draws of other agents.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

_BLOCK = 1 << 15  # numbers that fit the cache of a core
_SHIFTS = ((np.uint64(30), np.uint64(0xBF58476D1CE4E5B9)), (np.uint64(27), np.uint64(0x94D049BB133111EB)))


@dataclass(frozen=True, slots=True)
class Stream:
    """One named source of random numbers at one step; a repeated call returns the same numbers.

    ``name`` is a path such as ``trainer/naive/0/generate``; ``t`` is the step.
    """

    seed: int
    name: str
    t: int = 0

    def child(self, name: str) -> Stream:
        """Return the stream ``<this name>/<name>`` at the same step."""
        return Stream(self.seed, f"{self.name}/{name}", self.t)

    def _sequence(self) -> np.random.SeedSequence:
        digest = hashlib.blake2b(self.name.encode(), digest_size=16).digest()
        key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
        return np.random.SeedSequence(self.seed, spawn_key=(*key, self.t))

    def rng(self) -> np.random.Generator:
        """Return a NumPy generator at the beginning of this stream."""
        return np.random.Generator(np.random.PCG64(self._sequence()))

    def integer(self) -> int:
        """Return a 63-bit integer that seeds the generator of another library (``torch.Generator``)."""
        return int(self._sequence().generate_state(1, np.uint64)[0] >> np.uint64(1))

    def uniform(self, ids: ArrayLike) -> NDArray[np.float64]:
        """Return one uniform number in (0, 1) per id, a function of (seed, name, t, id) alone.

        The number of a row therefore depends neither on the order of the rows nor on the other rows. The mixing is
        the finaliser of SplitMix64 (Steele, Lea & Flood 2014), applied twice.
        """
        key = self._sequence().generate_state(2, np.uint64)
        x = np.array(ids, dtype=np.int64, ndmin=1).view(np.uint64)  # a copy
        noise = np.empty(x.shape)
        mixed, drawn = x.reshape(-1), noise.reshape(-1)
        for first in range(0, x.size, _BLOCK):
            _mix(mixed[first : first + _BLOCK], key)
            drawn[first : first + _BLOCK] = mixed[first : first + _BLOCK]
            _scale(drawn[first : first + _BLOCK])
        return noise


def _mix(x: NDArray[np.uint64], key: NDArray[Any]) -> None:
    """Scramble numbers in place; each keeps the 53 bits that make a fraction."""
    shifted = np.empty_like(x)
    for k in key:
        x += k
        x *= np.uint64(0x9E3779B97F4A7C15)
        for shift, factor in _SHIFTS:
            x ^= np.right_shift(x, shift, out=shifted)
            x *= factor
        x ^= np.right_shift(x, np.uint64(31), out=shifted)
    x >>= np.uint64(11)


def _scale(x: NDArray[np.float64]) -> None:
    """Turn whole numbers below 2^53 into fractions within (0, 1), in place."""
    x += 0.5
    x *= 2.0**-53
    np.minimum(x, 1 - 2.0**-53, out=x)  # the largest would round to 1


@dataclass(frozen=True, slots=True)
class Streams:
    """The streams of one run: ``Streams(seed).at(name, t)`` is the stream of that name at step ``t``."""

    seed: int

    def at(self, name: str, t: int = 0) -> Stream:
        """Return the stream ``name`` at step ``t``."""
        return Stream(self.seed, name, t)
