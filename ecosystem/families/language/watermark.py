"""Watermarks in tokens: the bias of a distribution during generation, and its detection in a text.

Green lists are those of ``transformers.WatermarkLogitsProcessor`` with ``seeding_scheme = "lefthash"`` on a CPU: the
first tokens of a random permutation of the vocabulary, whose seed is the key times the token before. The permutations
are drawn on the CPU whatever the device, so that one machine detects the watermarks of another. Bits of ``synthid`` are
those of ``transformers.SynthIDTextWatermarkLogitsProcessor`` with its default table.

Both watermark a token only if the tokens that its bias depends on are in the document, its prompt included: other
watermarks could not be detected. A context that is repeated in a document counts once, since its bias is the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Protocol

import numpy as np
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.types import Floats, Ints

# The hash of SynthID: a linear congruential generator; the size of the table keeps its lowest 16 bits.
_FACTOR = 6364136223846793005
_TABLE = 1 << 16
_WHOLE = 4096  # tokens of a vocabulary whose green lists are unpacked for writing, into at most 64 MB


class Marker(Protocol):
    """The watermark of one batch of documents during generation."""

    def __call__(self, p: Tensor, text: Ints, rows: Ints) -> Tensor:
        """Return the watermarked weights of the next token from its probabilities [N, V] (overwritten).

        ``text`` holds all documents' tokens so far, [positions, documents]; ``rows`` the document of each row.
        """


def marker(mark: WatermarkSpec, types: int, size: tuple[int, ...]) -> Marker:
    """Make the marker of a batch of documents over ``types`` tokens; ``size`` is (most positions, documents)."""
    return _GreenMarker(mark, types) if mark.scheme == "green_list" else _TournamentMarker(mark, types, size)


def detect(mark: WatermarkSpec, tokens: Sequence[NDArray[np.int32]], types: int) -> tuple[Floats, Ints]:
    """Detect a watermark in the tokens of documents; return z-scores and numbers of scored tokens, [documents] each.

    Without a watermark z has mean 0 and variance 1. ``green_list``: the excess of green tokens over chance in standard
    deviations, each pair of neighbours counted once, as ``transformers.WatermarkDetector`` with
    ``ignore_repeated_ngrams`` computes it. ``synthid``: the same of the weighted mean of the bits, with weights falling
    from 10 in the first round to 1 in the last (Dathathri et al. 2024). A document without scored tokens has z = 0.
    """
    sizes = np.array([len(ids) for ids in tokens], dtype=np.int64)
    ids = np.concatenate([np.zeros(0, np.int64), *tokens]).astype(np.int64)
    document = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    if mark.scheme == "green_list":
        at = np.flatnonzero(place >= 1)
        at = at[_first(document[at], ids[at - 1] * types + ids[at])]
        excess = green_lists(types, mark.green_share, mark.key).green(ids[at - 1], ids[at]) - mark.green_share
        variance = mark.green_share * (1 - mark.green_share)
    else:
        at = np.flatnonzero(place >= mark.context_width)
        contexts = _hash(np.stack([ids[at - lag] for lag in range(mark.context_width, 0, -1)]))
        first = _first(document[at], contexts)
        at, contexts = at[first], contexts[first]
        weight = np.linspace(10, 1, mark.depth)
        excess = (bits(mark, contexts, ids[at]) - 0.5) @ weight
        variance = float(weight @ weight) / 4
    scored = np.bincount(document[at], minlength=len(sizes))
    total = np.bincount(document[at], weights=excess, minlength=len(sizes))
    return total / np.sqrt(np.maximum(scored, 1) * variance), scored


def _first(document: Ints, key: Ints) -> Ints:
    """Return, in ascending order, the places where a key occurs for the first time in its document."""
    order = np.lexsort((key, document))  # stable: among equal ones the earliest comes first
    new = (np.diff(document[order], prepend=-1) != 0) | (np.diff(key[order], prepend=0) != 0)
    new[:1] = True
    return np.sort(order[new])


class GreenLists:
    """The green tokens after each token: one bit per pair of tokens, drawn on first use.

    A vocabulary of 1,024 tokens takes 128 KB and some 10 ms, one of 50,257 tokens 316 MB and 20 s once all have
    occurred.
    """

    def __init__(self, types: int, share: float, key: int) -> None:
        self._types, self._size, self._key = types, int(types * share), key
        self._packed = np.zeros((types, -(-types // 8)), np.uint8)  # the system allocates pages on first write
        self._drawn = np.zeros(types, dtype=bool)

    def rows(self, before: Ints) -> NDArray[np.uint8]:
        """Return the lists after these tokens, [N, types / 8], eight tokens a byte, the lowest bit first."""
        new = np.unique(before[~self._drawn[before]])
        generator = torch.Generator()  # a local one: several threads may call this
        for token in new.tolist():
            generator.manual_seed(self._key * token % (2**64 - 1))
            green = np.zeros(self._types, dtype=bool)
            green[torch.randperm(self._types, generator=generator)[: self._size].numpy()] = True
            self._packed[token] = np.packbits(green, bitorder="little")
            self._drawn[token] = True
        return self._packed[before]

    def green(self, before: Ints, after: Ints) -> NDArray[np.uint8]:
        """Return 1 for each pair of neighbours whose second token is green, else 0; shape [N]."""
        self.rows(np.unique(before))
        eight: NDArray[np.uint8] = self._packed[before, after >> 3]
        return eight >> (after & 7).astype(np.uint8) & np.uint8(1)


@lru_cache(maxsize=8)
def green_lists(types: int, share: float, key: int) -> GreenLists:
    """Return the lists of one watermark, shared by all its writers and readers."""
    return GreenLists(types, share, key)


@lru_cache(maxsize=8)
def _odds(mark: WatermarkSpec, types: int) -> Tensor:
    """Return the factor of every token's odds after every token, [types, types] (float32)."""
    every = green_lists(types, mark.green_share, mark.key).rows(np.arange(types))
    green = np.unpackbits(every, axis=1, count=types, bitorder="little")
    return torch.from_numpy(np.where(green, np.float32(math.exp(mark.bias)), np.float32(1)))


class _GreenMarker:
    def __init__(self, mark: WatermarkSpec, types: int) -> None:
        self._lists, self._types = green_lists(types, mark.green_share, mark.key), types
        self._whole = types <= _WHOLE
        # For a large vocabulary only the factors of the eight odds in every byte of a list are computed beforehand.
        eight = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        self._odds = _odds(mark, types) if self._whole else torch.from_numpy(np.exp(eight * np.float32(mark.bias)))

    def __call__(self, p: Tensor, text: Ints, rows: Ints) -> Tensor:
        if not len(text):
            return p
        self._odds, before = self._odds.to(p.device), text[-1, rows]
        if self._whole:
            return p.mul_(self._odds.index_select(0, torch.from_numpy(before).to(p.device)))
        lists = torch.from_numpy(self._lists.rows(before)).to(p.device)
        return p.mul_(torch.embedding(self._odds, lists.int()).flatten(1)[:, : self._types])


def _hash(tokens: Ints) -> Ints:
    """Return the 64-bit hash of each column of ``tokens`` [length, N], oldest token first."""
    hashes = np.ones(tokens.shape[1], np.int64)
    for row in tokens:
        hashes = (hashes + row) * _FACTOR + 1  # overflows on purpose
    return hashes


@lru_cache(maxsize=8)
def _patterns(mark: WatermarkSpec) -> NDArray[np.uint8]:
    """Return the bits of every token after every context, [depth, 2**16], at (hash of the context + token) mod 2**16.

    The table's size divides 2**64, so that the lowest 16 bits of a hash decide, and a context and a token enter it as a
    sum.
    """
    table = torch.randint(0, 2, (_TABLE,), generator=torch.Generator().manual_seed(0)).numpy().astype(np.uint8)
    low = _TABLE - 1
    factor, tokens = _FACTOR & low, np.arange(_TABLE, dtype=np.int64) * (_FACTOR & low) + 1
    return np.stack([table[((tokens + key) * factor + 1) & low] for key in (mark.keys() & low).tolist()])


def bits(mark: WatermarkSpec, contexts: Ints, tokens: Ints) -> NDArray[np.uint8]:
    """Return the bits of tokens after contexts, given by their hashes: shape [N, depth]."""
    return _patterns(mark)[:, (contexts + tokens) & (_TABLE - 1)].T


class _TournamentMarker:
    def __init__(self, mark: WatermarkSpec, types: int, size: tuple[int, ...]) -> None:
        self._width, self._types = mark.context_width, types
        # After one context the bits of all tokens lie side by side: a window of these rows.
        self._bits = np.take(_patterns(mark), np.arange(_TABLE + types) % _TABLE, axis=1).astype(np.float32)
        self._windows = sliding_window_view(self._bits, types, axis=1)
        self._moved: Tensor | None = None  # the same on a GPU
        self._contexts = np.zeros(size, np.int64)  # their hashes, by position and document
        self._hashed = self._width  # contexts before this position have been hashed

    def __call__(self, p: Tensor, text: Ints, rows: Ints) -> Tensor:
        now = len(text)
        if now < self._width:
            return p
        for position in range(self._hashed, now + 1):
            self._contexts[position] = _hash(text[position - self._width : position])
        self._hashed = now + 1
        contexts = self._contexts[now, rows]
        # A context repeated in a document would get the same bias again, which would show in the text.
        repeated = np.flatnonzero((self._contexts[self._width : now, rows] == contexts).any(0))
        played = self._play(p, contexts)
        if len(repeated):
            played[repeated] = p[repeated]
        return played

    def _play(self, p: Tensor, contexts: Ints) -> Tensor:
        """Return the distribution of the tournament's winner: in each round a 1 doubles the odds against a 0."""
        start, total = contexts & (_TABLE - 1), p.sum(-1, keepdim=True)
        p, product = p / total.clamp(min=torch.finfo(p.dtype).tiny), torch.empty_like(p)
        if p.device.type != "cpu":
            if self._moved is None:
                self._moved = torch.from_numpy(self._bits).to(p.device).unfold(1, self._types, 1)
            place = torch.from_numpy(start).to(p.device)
        for level in range(len(self._bits)):
            if self._moved is None:
                one = torch.from_numpy(self._windows[level][start])  # much faster than indexing a window in torch
            else:
                one = self._moved[level][place]
            p *= one.add_(1 - torch.mul(p, one, out=product).sum(-1, keepdim=True))
        return p.mul_(total)
