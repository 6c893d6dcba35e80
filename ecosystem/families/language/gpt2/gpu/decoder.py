"""Decoding on a GPU: a cache of fixed size, and one recorded function for all operations of a token.

The same recording serves every position: the position is a tensor, and keys after it are masked. Keys are read in
whole multiples of 128 positions, so that a document of 100 tokens does not read those of the whole context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.families.language.generation import Texts, pick, remaining_rows
from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.shape import Shape

_POSITIONS = 128  # keys and values are read in multiples of these
Step = Callable[..., Tensor]
Recording = Callable[[Callable[..., Sequence[Tensor]]], Callable[..., Sequence[Tensor]]]


def step(
    weights: transformer.Weights,
    layers: list[transformer.Block],
    shape: Shape,
    ids: Tensor,
    position: Tensor,
    caches: list[Tensor],
    used: int,
) -> Tensor:
    """Read one more token per row, ids [B] (or [M, B]), at ``position`` [1]; return logits [B, V] (or [M, B, V]).

    ``layers`` are :func:`transformer.decoding_blocks`; ``caches`` are [2, rows, heads, positions, head width] each, of
    which the first ``used`` positions are read.
    """
    rows, heads, width, eps = ids.numel(), shape.n_head, shape.n_embd // shape.n_head, shape.eps
    places = weights[transformer.WPE].index_select(-2, position)
    x = transformer.embed({transformer.WTE: weights[transformer.WTE], transformer.WPE: places}, ids.unsqueeze(-1))
    later = torch.arange(used, device=ids.device) > position
    for block, cache in zip(layers, caches, strict=True):
        a = transformer.layer_norm(x, block.ln_1_weight, block.ln_1_bias, eps)
        qkv = transformer.linear(a, block.c_attn_weight, block.c_attn_bias).view(rows, 3, heads, width)
        cache.index_copy_(3, position, qkv[:, 1:].transpose(0, 1).unsqueeze(3))
        keys, values = cache[:, :, :, :used].flatten(1, 2).unbind(0)
        scores = torch.bmm(qkv[:, 0].reshape(rows * heads, 1, width), keys.mT).masked_fill(later, -torch.inf)
        a = torch.bmm(torch.softmax(scores, -1), values).view(x.shape)
        x = x + transformer.linear(a, block.attn_proj_weight, block.attn_proj_bias)
        x = x + transformer.feed_forward(x, block, eps)
    return transformer.logits(weights, transformer.final(weights, x, eps)).float()


class StaticDecoder:
    """The decoder of one member, or of a stack of members with equally many rows each, ordered by member."""

    def __init__(
        self, weights: transformer.Weights, shape: Shape, rows: int, length: int, step: Step, recording: Recording
    ) -> None:
        """``length`` is the maximum number of positions; ``step`` is :func:`step`, compiled or not."""
        self._weights, self._shape, self._step, self._recording = weights, shape, step, recording
        table = weights[transformer.WTE]
        self._members = len(table) if table.dim() == 3 else 1
        self._lead = (self._members, -1) if table.dim() == 3 else (-1,)
        self._cache = transformer.Cache(shape, rows, length, table)
        for layer in self._cache.layers:
            layer.zero_()  # masked positions have weight zero, which must not be multiplied with NaN
        self._blocks = transformer.decoding_blocks(weights, shape)
        self._length = length
        self._steps: dict[tuple[int, int], Callable[..., Sequence[Tensor]]] = {}  # by rows and positions read
        self._documents = np.arange(rows)

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        n, length = ids.shape
        x = transformer.hidden(self._weights, self._shape, ids.view(*self._lead, length), self._cache)
        last = x.view(n, length, -1)[:, -1]
        last = last.view(*self._lead, last.shape[-1])
        return transformer.logits(self._weights, last).flatten(0, -2).float()

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32).

        They are overwritten by the next call.
        """
        used = min(-(-(position + 1) // _POSITIONS) * _POSITIONS, self._length)
        key = (len(ids), used)
        if key not in self._steps:
            self._steps[key] = self._recording(self._computed(used))
        return self._steps[key](ids, torch.full((1,), position, device=ids.device))[0]

    def _computed(self, used: int) -> Callable[..., Sequence[Tensor]]:
        caches = list(self._cache.layers)

        def compute(ids: Tensor, position: Tensor) -> list[Tensor]:
            ids = ids.view(self._lead)
            logits = self._step(self._weights, self._blocks, self._shape, ids, position, caches, used)
            return [logits.flatten(0, -2)]

        return compute

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor), of which ``used`` positions have been read."""
        self._cache.keep(rows, used)
        self._documents = self._documents[rows.cpu().numpy()]
        self._steps = {}  # of views with other rows

    def advance(self, texts: Texts, first: int, last: int) -> None:
        """Append tokens to the open documents, from position ``first`` until ``last`` are written.

        The tokens come back from the device together, so documents that end are noticed at ``last`` only.
        """
        kept = remaining_rows(texts.open[self._documents], self._members)
        if kept is not None:
            self.keep(torch.from_numpy(kept).to(self._weights[transformer.WTE].device), first)
        documents = self._documents
        tokens = self._picked(texts, first, last, documents).cpu().numpy()
        for t in range(first, last):
            texts.written[t, documents] = tokens[t - first]
            ended = texts.open & (texts.written[t] == texts.end) & (t >= texts.sizes)
            texts.lengths[ended] = t
            texts.open[ended | (t + 1 >= texts.limits)] = False

    def _picked(self, texts: Texts, first: int, last: int, documents: NDArray[np.int64]) -> Tensor:
        """Return the tokens of the rows' documents at positions ``first`` to ``last``, [positions, rows]."""
        device = self._weights[transformer.WTE].device
        place, window = np.arange(first, last)[:, None], slice(first, last)
        # Rows that are still inside their prompts get the next token of the prompt instead of one that is picked.
        given = torch.from_numpy(np.where(place < texts.sizes[documents], texts.written[window][:, documents], -1))
        noise = torch.from_numpy(texts.noise[window][:, documents])
        ids = torch.from_numpy(texts.written[first - 1, documents])
        given, noise, ids, never = (t.to(device) for t in (given, noise, ids, torch.from_numpy(texts.never)))
        written = []
        for t in range(last - first):
            logits = self.step(ids, first + t).index_fill(1, never, -torch.inf)
            p = torch.softmax(logits / texts.temperature, -1)
            ids = torch.where(given[t] >= 0, given[t], pick(p, noise[t].unsqueeze(1)))
            written.append(ids)
        return torch.stack(written)
