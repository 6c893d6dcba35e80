"""Watermarks in tokens: the bias of a distribution during generation, and its detection in a text.

Green lists are those of ``transformers.WatermarkLogitsProcessor`` with ``seeding_scheme = "lefthash"`` on a CPU: the
first tokens of a random permutation of the vocabulary, seeded by the key times the previous token. The permutations are
drawn on the CPU for every device, so that one machine can detect the watermarks of another. The bits of ``synthid`` are
those of ``transformers.SynthIDTextWatermarkLogitsProcessor`` with its default table.

Both schemes watermark a token only if the tokens that its bias depends on are in the document or its prompt; other
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
from ecosystem.families.requests import Radioactivity
from ecosystem.types import Floats, Ints

# The hash of SynthID: a linear congruential generator, of which the table uses the lowest 16 bits.
_FACTOR = 6364136223846793005
_TABLE = 1 << 16
_UNPACKED_TYPES = 4096  # largest vocabulary with unpacked green lists for writing, of at most 64 MB


class Marker(Protocol):
    """The watermark of one batch of documents during generation."""

    def __call__(self, p: Tensor, text: Ints, rows: Ints) -> Tensor:
        """Turn probabilities of the next token [N, V] into watermarked weights; ``p`` is overwritten.

        ``text`` holds the tokens of all documents so far, [positions, documents]; ``rows`` the document of each row.
        """


def marker(mark: WatermarkSpec, types: int, size: tuple[int, ...]) -> Marker:
    """Make the marker of a batch of documents over ``types`` tokens; ``size`` is (maximum positions, documents)."""
    return _GreenMarker(mark, types) if mark.scheme == "green_list" else _TournamentMarker(mark, types, size)


def detect(mark: WatermarkSpec, tokens: Sequence[NDArray[np.int32]], types: int) -> tuple[Floats, Ints]:
    """Detect a watermark in the tokens of documents; return z-scores and numbers of scored tokens, [documents] each.

    Without a watermark, z has mean 0 and variance 1. ``green_list``: z is the excess of green tokens over chance in
    standard deviations; each pair of adjacent tokens counts once, as in ``transformers.WatermarkDetector`` with
    ``ignore_repeated_ngrams``. ``synthid``: z is that of the weighted mean of the bits, with weights falling from 10 in
    the first round to 1 in the last (Dathathri et al. 2024). A document without scored tokens has z = 0.
    """
    sizes = np.array([len(ids) for ids in tokens], dtype=np.int64)
    ids = np.concatenate([np.zeros(0, np.int64), *tokens]).astype(np.int64)
    document = np.repeat(np.arange(len(sizes)), sizes)
    position = np.arange(len(ids)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    at = np.flatnonzero(position >= mark.reach)
    before = np.stack([ids[at - lag] for lag in range(mark.reach, 0, -1)])
    repeated = before[0] * types + ids[at] if mark.scheme == "green_list" else _hash(before)
    first = _first_occurrences(document[at], repeated)
    excess, variance = _excess(mark, before[:, first], ids[at[first]], types)
    document = document[at[first]]
    scored = np.bincount(document, minlength=len(sizes))
    total = np.bincount(document, weights=excess, minlength=len(sizes))
    return total / np.sqrt(np.maximum(scored, 1) * variance), scored


def radioactivity(mark: WatermarkSpec, contexts: Ints, predicted: Ints, types: int) -> Radioactivity:
    """Test whether a model has learnt from watermarked text, by its most likely tokens after unmarked contexts.

    ``contexts`` [N, tokens] and ``predicted`` [N]. Each combination of a prediction and the tokens that its mark
    depends on counts once, so that predictions are independent of each other if the model does not depend on the key:
    they are green with the share of green tokens, and the number of green ones is binomial (Sander et al. 2024,
    2402.14904). For ``synthid``, z is taken as normal.
    """
    before = contexts[:, contexts.shape[1] - mark.reach :].T.astype(np.int64)
    different = np.unique(np.vstack([before, predicted[None]]), axis=1)
    scored = different.shape[1]
    if not scored:
        return Radioactivity(0.0, 0.0, 0)
    from scipy.stats import binom, norm

    excess, variance = _excess(mark, different[:-1], different[-1], types)
    z = float(excess.sum() / math.sqrt(scored * variance))
    if mark.scheme == "synthid":
        log_p = norm.logsf(z)
    else:
        green = round(float((excess + mark.green_share).sum()))
        log_p = binom.logsf(green - 1, scored, int(types * mark.green_share) / types)
    return Radioactivity(z, float(log_p) / math.log(10), scored)


def _excess(mark: WatermarkSpec, before: Ints, tokens: Ints, types: int) -> tuple[Floats, float]:
    """Return by how much each token [N] is marked above chance, shape [N], and the variance of that by chance.

    ``before`` [reach, N] holds the tokens before each, the oldest first.
    """
    if mark.scheme == "green_list":
        green = green_lists(types, mark.green_share, mark.key).green(before[0], tokens)
        return green.astype(np.float64) - mark.green_share, mark.green_share * (1 - mark.green_share)
    weight = np.linspace(10, 1, mark.depth)
    return (bits(mark, _hash(before), tokens) - 0.5) @ weight, float(weight @ weight) / 4


def _first_occurrences(document: Ints, key: Ints) -> Ints:
    """Return the indices at which a key occurs for the first time in its document, in ascending order."""
    order = np.lexsort((key, document))  # stable: among equal keys, the earliest comes first
    new = (np.diff(document[order], prepend=-1) != 0) | (np.diff(key[order], prepend=0) != 0)
    new[:1] = True
    return np.sort(order[new])


class GreenLists:
    """The green tokens after each token: one bit per pair of tokens, drawn on first use.

    A vocabulary of 1,024 tokens takes 128 KB and about 10 ms, one of 50,257 tokens 316 MB and 20 s once all have
    occurred.
    """

    def __init__(self, types: int, share: float, key: int) -> None:
        self._types, self._size, self._key = types, int(types * share), key
        self._packed = np.zeros((types, -(-types // 8)), np.uint8)  # the system allocates pages on first write
        self._drawn = np.zeros(types, dtype=bool)

    def rows(self, before: Ints) -> NDArray[np.uint8]:
        """Return the lists after tokens ``before`` [N], packed as [N, types / 8] with the lowest bit first."""
        new = np.unique(before[~self._drawn[before]])
        generator = torch.Generator()  # local, since several threads may call this method
        for token in new.tolist():
            generator.manual_seed(self._key * token % (2**64 - 1))
            green = np.zeros(self._types, dtype=bool)
            green[torch.randperm(self._types, generator=generator)[: self._size].numpy()] = True
            self._packed[token] = np.packbits(green, bitorder="little")
            self._drawn[token] = True
        return self._packed[before]

    def green(self, before: Ints, after: Ints) -> NDArray[np.uint8]:
        """Return 1 for each pair of adjacent tokens of which the second is green, else 0; shape [N]."""
        self.rows(np.unique(before))
        packed: NDArray[np.uint8] = self._packed[before, after >> 3]
        return packed >> (after & 7).astype(np.uint8) & np.uint8(1)


@lru_cache(maxsize=8)
def green_lists(types: int, share: float, key: int) -> GreenLists:
    """Return the lists of a watermark, which are shared by generation and detection."""
    return GreenLists(types, share, key)


@lru_cache(maxsize=8)
def _odds(mark: WatermarkSpec, types: int) -> Tensor:
    """Return the factor of every token's odds after every token, [types, types] (float32)."""
    packed = green_lists(types, mark.green_share, mark.key).rows(np.arange(types))
    green = np.unpackbits(packed, axis=1, count=types, bitorder="little")
    return torch.from_numpy(np.where(green, np.float32(math.exp(mark.bias)), np.float32(1)))


class _GreenMarker:
    def __init__(self, mark: WatermarkSpec, types: int) -> None:
        self._lists, self._types = green_lists(types, mark.green_share, mark.key), types
        self._unpacked = types <= _UNPACKED_TYPES
        # For a large vocabulary, only the eight factors of each possible byte of a list are computed in advance.
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
        self._odds = _odds(mark, types) if self._unpacked else torch.from_numpy(np.exp(bits * np.float32(mark.bias)))

    def __call__(self, p: Tensor, text: Ints, rows: Ints) -> Tensor:
        if not len(text):
            return p
        self._odds, before = self._odds.to(p.device), text[-1, rows]
        if self._unpacked:
            return p.mul_(self._odds.index_select(0, torch.from_numpy(before).to(p.device)))
        lists = torch.from_numpy(self._lists.rows(before)).to(p.device)
        return p.mul_(torch.embedding(self._odds, lists.int()).flatten(1)[:, : self._types])


def _hash(tokens: Ints) -> Ints:
    """Return the 64-bit hash of each column of ``tokens`` [length, N], oldest token first."""
    hashes = np.ones(tokens.shape[1], np.int64)
    for row in tokens:
        hashes = (hashes + row) * _FACTOR + 1  # modulo 2**64, by overflow
    return hashes


@lru_cache(maxsize=8)
def _patterns(mark: WatermarkSpec) -> NDArray[np.uint8]:
    """Return the bits of tokens after contexts, [depth, 2**16], at index (hash of the context + token) mod 2**16.

    The size of the table divides 2**64, so that the lowest 16 bits of a hash suffice, and context and token enter it as
    a sum.
    """
    table = torch.randint(0, 2, (_TABLE,), generator=torch.Generator().manual_seed(0)).numpy().astype(np.uint8)
    mask = _TABLE - 1
    factor, tokens = _FACTOR & mask, np.arange(_TABLE, dtype=np.int64) * (_FACTOR & mask) + 1
    return np.stack([table[((tokens + key) * factor + 1) & mask] for key in (mark.keys() & mask).tolist()])


def bits(mark: WatermarkSpec, contexts: Ints, tokens: Ints) -> NDArray[np.uint8]:
    """Return the bits of tokens [N] after contexts with these hashes [N], shape [N, depth]."""
    return _patterns(mark)[:, (contexts + tokens) & (_TABLE - 1)].T


class _TournamentMarker:
    def __init__(self, mark: WatermarkSpec, types: int, size: tuple[int, ...]) -> None:
        self._width, self._types = mark.context_width, types
        # The bits of all tokens after one context are contiguous: a window of these rows.
        self._bits = np.take(_patterns(mark), np.arange(_TABLE + types) % _TABLE, axis=1).astype(np.float32)
        self._windows = sliding_window_view(self._bits, types, axis=1)
        self._gpu_windows: Tensor | None = None
        self._contexts = np.zeros(size, np.int64)  # hashes of contexts, by position and document
        self._hashed = self._width  # contexts before this position have been hashed

    def __call__(self, p: Tensor, text: Ints, rows: Ints) -> Tensor:
        now = len(text)
        if now < self._width:
            return p
        for position in range(self._hashed, now + 1):
            self._contexts[position] = _hash(text[position - self._width : position])
        self._hashed = now + 1
        contexts = self._contexts[now, rows]
        # A repeated context is not watermarked: the same bias again would be noticeable in the text.
        repeated = np.flatnonzero((self._contexts[self._width : now, rows] == contexts).any(0))
        played = self._play(p, contexts)
        if len(repeated):
            played[repeated] = p[repeated]
        return played

    def _play(self, p: Tensor, contexts: Ints) -> Tensor:
        """Return the distribution of the tournament's winner: in each round, a bit of 1 doubles the odds against 0."""
        start, total = contexts & (_TABLE - 1), p.sum(-1, keepdim=True)
        p, product = p / total.clamp(min=torch.finfo(p.dtype).tiny), torch.empty_like(p)
        if p.device.type != "cpu":
            if self._gpu_windows is None:
                self._gpu_windows = torch.from_numpy(self._bits).to(p.device).unfold(1, self._types, 1)
            indices = torch.from_numpy(start).to(p.device)
        for level in range(len(self._bits)):
            if self._gpu_windows is None:
                bits = torch.from_numpy(self._windows[level][start])  # much faster than indexing a window in torch
            else:
                bits = self._gpu_windows[level][indices]
            p *= bits.add_(1 - torch.mul(p, bits, out=product).sum(-1, keepdim=True))
        return p.mul_(total)
