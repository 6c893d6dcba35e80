"""Decoding with PyTorch: the weights of a member, or of a stack of members, and their keys and values."""

from __future__ import annotations

from torch import Tensor

from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.shape import Shape


class Gpt2Decoder:
    """The decoder of one member, or of a stack of members with equally many rows each, ordered by member."""

    def __init__(self, weights: transformer.Weights, shape: Shape, rows: int, length: int) -> None:
        """``length`` is the maximum number of positions."""
        self._weights, self._shape = weights, shape
        table = weights[transformer.WTE]
        self._lead = (len(table), -1) if table.dim() == 3 else (-1,)
        self._pads = table.dim() == 2
        self._cache = transformer.Cache(shape, max(rows, transformer.LEAST_ROWS), length, table)
        self._blocks = transformer.decoding_blocks(weights, shape)

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        n, length = ids.shape
        ids = self._padded(ids)
        x = transformer.hidden(self._weights, self._shape, ids.view(*self._lead, length), self._cache)
        last = x.view(len(ids), length, -1)[:, -1]
        return self._logits(last.view(*self._lead, last.shape[-1]))[:n]

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        n, ids = len(ids), self._padded(ids)
        x = transformer.decode(self._weights, self._blocks, self._shape, ids.view(self._lead), position, self._cache)
        return self._logits(x)[:n]

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor), of which ``used`` positions have been read."""
        self._cache.keep(self._padded(rows), used)

    def _padded(self, rows: Tensor) -> Tensor:
        """Repeat the first row if there are few, since products of few rows are summed in another order on a CPU."""
        return transformer.padded(rows) if self._pads else rows

    def _logits(self, x: Tensor) -> Tensor:
        return transformer.logits(self._weights, x).flatten(0, -2).float()
