"""The decoder of n-gram models: distributions after every row's context, for several members at once.

The distribution after a context is one row of the vocabulary, shifted, with the few tokens that occur after it written
over it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.families.language.ngram.counts import Table, find
from ecosystem.types import Floats, Ints

# Log-probability of the impossible where logits have to be finite; exp() of it is 0 at any usual temperature.
_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class _Rows:
    """A level of several members' tables in one: contexts are keys behind the number of the table."""

    contexts: Ints
    start: Ints
    size: Ints
    log_rest: NDArray[np.float32]
    tokens: Ints
    log_p: NDArray[np.float32]

    @classmethod
    def of(cls, tables: Sequence[Table], lag: int, vocabulary: int) -> _Rows | None:
        levels = [(number, table.levels[lag - 1]) for number, table in enumerate(tables) if table.levels]
        if not levels:
            return None
        before = np.cumsum([0, *(len(level.grams) for _, level in levels)])
        return cls(
            np.concatenate([number * vocabulary**lag + level.contexts for number, level in levels]),
            np.concatenate([n + level.start for n, (_, level) in zip(before, levels, strict=False)]),
            np.concatenate([level.size for _, level in levels]),
            _logits(np.concatenate([level.log_rest for _, level in levels])),
            np.concatenate([level.grams % vocabulary for _, level in levels]),
            _logits(np.concatenate([level.log_p for _, level in levels])),
        )


def _logits(log_p: Floats) -> NDArray[np.float32]:
    return np.maximum(log_p, _LOWEST).astype(np.float32)


class CountDecoder:
    """Rows of documents of several members, equally many each, member by member."""

    def __init__(self, tables: Sequence[Table], rows: int, order: int, end: int) -> None:
        """``rows`` is the number of documents of each of the tables."""
        self._vocabulary, self._end, self._order = len(tables[0].first), end, order
        self._chained = tables[0].chained
        uniform = np.full(self._vocabulary, -np.log(self._vocabulary))
        self._first = _logits(np.stack([*(table.first for table in tables), uniform]))
        self._levels = [_Rows.of(tables, lag, self._vocabulary) for lag in range(1, order)]
        self._table = np.repeat(np.arange(len(tables)), rows)  # the number of each row's table
        self._history = np.zeros((0, 0), np.int64)  # [order - 1, rows], oldest first
        self._logits = np.empty((len(self._table), self._vocabulary), np.float32)

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        ends = np.full((self._order - 1, len(ids)), self._end)
        self._history = np.concatenate([ends, ids.numpy().T])[ids.shape[1] :]
        return self._row()

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        self._history = np.concatenate([self._history, ids.numpy()[None]])[1:]
        return self._row()

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor), of which ``used`` positions have been read."""
        kept = rows.numpy()
        self._table, self._history = self._table[kept], self._history[:, kept]

    def _row(self) -> Tensor:
        """Return the log-probabilities after every row's history, which the next call overwrites."""
        rows = len(self._table)
        places = self._places()
        base = self._table
        if not self._chained:  # only the longest context that occurs counts, and below it the uniform distribution
            longer = np.zeros(rows, dtype=bool)
            for _, at in reversed(places):
                at[longer] = -1
                longer |= at >= 0
            base = np.where(longer, len(self._first) - 1, base)
        left = np.zeros(rows, np.float32)  # log of the mass that the longer contexts leave to the level at hand
        seen = [self._seen(level, at, left) for level, at in reversed(places)]
        logits = self._logits[:rows]
        np.take(self._first, base, axis=0, out=logits, mode="clip")
        logits += left[:, None]
        flat = logits.reshape(-1)
        for cell, log_p in reversed(seen):  # the longest context is written last
            flat[cell] = log_p
        return torch.from_numpy(logits)

    def _places(self) -> list[tuple[_Rows, Ints]]:
        """Return the place of every row's context in each level, the shortest first; -1 where it does not occur."""
        places: list[tuple[_Rows, Ints]] = []
        context, power = np.zeros(len(self._table), np.int64), 1
        for level, before in zip(self._levels, self._history[::-1], strict=True):
            context, power = context + before * power, power * self._vocabulary
            if level is not None:
                places.append((level, find(level.contexts, self._table * power + context)))
        return places

    def _seen(self, level: _Rows, at: Ints, left: NDArray[np.float32]) -> tuple[Ints, NDArray[np.float32]]:
        """Return the cells of the logits of the tokens seen after the contexts at ``at``, and their values.

        ``left`` [rows] gets the mass that these contexts leave to the level below, in place.
        """
        here = np.flatnonzero(at >= 0)
        at = at[here]
        size = level.size[at]
        after = np.cumsum(size)
        # These arrays have an entry per seen token: they are added to in place and taken into existing memory.
        entry = np.repeat(level.start[at] - after + size, size)
        entry += np.arange(len(entry))
        cell, log_p = level.tokens.take(entry), level.log_p.take(entry)
        cell += np.repeat(here * self._vocabulary, size)
        log_p += np.repeat(left[here], size)
        left[here] += level.log_rest[at]
        return cell, log_p
