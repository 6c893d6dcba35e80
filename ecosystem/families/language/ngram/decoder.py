"""The decoder of n-gram models: next-token distributions of all rows, for several members at once.

The distribution after a context is that of no context, scaled, in which the few tokens seen after the context are
overwritten.
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

# Log-probability of impossible tokens, since logits must be finite; its exp() is 0 at any usual temperature.
_LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class _MergedLevel:
    """One level of several members' tables, merged: contexts are keys prefixed by the number of the table."""

    contexts: Ints
    start: Ints
    size: Ints
    log_rest: NDArray[np.float32]
    tokens: Ints
    log_p: NDArray[np.float32]

    @classmethod
    def of(cls, tables: Sequence[Table], lag: int, vocabulary: int) -> _MergedLevel | None:
        levels = [(number, table.levels[lag - 1]) for number, table in enumerate(tables) if table.levels]
        if not levels:
            return None
        offsets = np.cumsum([0, *(len(level.grams) for _, level in levels)])
        return cls(
            np.concatenate([number * vocabulary**lag + level.contexts for number, level in levels]),
            np.concatenate([offset + level.start for offset, (_, level) in zip(offsets, levels, strict=False)]),
            np.concatenate([level.size for _, level in levels]),
            _logits(np.concatenate([level.log_rest for _, level in levels])),
            np.concatenate([level.grams % vocabulary for _, level in levels]),
            _logits(np.concatenate([level.log_p for _, level in levels])),
        )


def _logits(log_p: Floats) -> NDArray[np.float32]:
    return np.maximum(log_p, _LOWEST).astype(np.float32)


class CountDecoder:
    """The decoder of several members with equally many rows each, ordered by member."""

    def __init__(self, tables: Sequence[Table], rows: int, order: int, end: int) -> None:
        """``rows`` is the number of documents per table."""
        self._vocabulary, self._end, self._order = len(tables[0].first), end, order
        self._chained = tables[0].chained
        uniform = np.full(self._vocabulary, -np.log(self._vocabulary))
        self._first = _logits(np.stack([*(table.first for table in tables), uniform]))
        self._levels = [_MergedLevel.of(tables, lag, self._vocabulary) for lag in range(1, order)]
        self._table = np.repeat(np.arange(len(tables)), rows)  # of each row
        self._history = np.zeros((0, 0), np.int64)  # [order - 1, rows], oldest first
        self._logits = np.empty((len(self._table), self._vocabulary), np.float32)

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        ends = np.full((self._order - 1, len(ids)), self._end)
        self._history = np.concatenate([ends, ids.numpy().T])[ids.shape[1] :]
        return self._next_logits()

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        self._history = np.concatenate([self._history, ids.numpy()[None]])[1:]
        return self._next_logits()

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor), of which ``used`` positions have been read."""
        index = rows.numpy()
        self._table, self._history = self._table[index], self._history[:, index]

    def _next_logits(self) -> Tensor:
        """Return the log-probabilities after every row's history; the next call overwrites them."""
        rows = len(self._table)
        positions = self._context_positions()
        base = self._table
        if not self._chained:  # only the longest context that occurs matters, and below it the uniform distribution
            longer = np.zeros(rows, dtype=bool)
            for _, at in reversed(positions):
                at[longer] = -1
                longer |= at >= 0
            base = np.where(longer, len(self._first) - 1, base)
        rest = np.zeros(rows, np.float32)  # log of the mass that longer contexts leave to the current level
        seen = [self._seen(level, at, rest) for level, at in reversed(positions)]
        logits = self._logits[:rows]
        np.take(self._first, base, axis=0, out=logits, mode="clip")
        logits += rest[:, None]
        flat = logits.reshape(-1)
        for cell, log_p in reversed(seen):  # longer contexts overwrite shorter ones
            flat[cell] = log_p
        return torch.from_numpy(logits)

    def _context_positions(self) -> list[tuple[_MergedLevel, Ints]]:
        """Return the index of every row's context in each level, the shortest first; -1 if it does not occur."""
        positions: list[tuple[_MergedLevel, Ints]] = []
        context, power = np.zeros(len(self._table), np.int64), 1
        for level, before in zip(self._levels, self._history[::-1], strict=True):
            context, power = context + before * power, power * self._vocabulary
            if level is not None:
                positions.append((level, find(level.contexts, self._table * power + context)))
        return positions

    def _seen(self, level: _MergedLevel, at: Ints, rest: NDArray[np.float32]) -> tuple[Ints, NDArray[np.float32]]:
        """Return the flat indices and values of the logits of tokens seen after the contexts with index ``at``.

        The log of the mass that these contexts leave to the level below is added to ``rest`` [rows], in place.
        """
        found = np.flatnonzero(at >= 0)
        at = at[found]
        size = level.size[at]
        end = np.cumsum(size)
        # These arrays have an entry per seen token, so operations are in place.
        entry = np.repeat(level.start[at] - end + size, size)
        entry += np.arange(len(entry))
        cell, log_p = level.tokens.take(entry), level.log_p.take(entry)
        cell += np.repeat(found * self._vocabulary, size)
        log_p += np.repeat(rest[found], size)
        rest[found] += level.log_rest[at]
        return cell, log_p
