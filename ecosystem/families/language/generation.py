"""Sampling: a distribution over the next token, and one uniform number that picks from it.

A token is the inverse of the cumulative distribution at one uniform number per row and position, instead of one
random number per entry of the vocabulary. The filters compute what transformers' logits processors compute, in
the same order: repetition penalty, temperature, top-k, top-p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import TrainingError
from ecosystem.families.base import Decoding
from ecosystem.families.language.watermark import Marker, marker
from ecosystem.streams import Stream

_DENSE = 0.8  # share of rows still being written below which the batch is compacted
_STRIDE = 1 << 20  # positions a document has room for in the keys of its uniform numbers


def adjust(logits: Tensor, decoding: Decoding, seen: Tensor | None = None) -> Tensor:
    """Apply the decoding to logits [N, V], in place where it can; refused tokens get minus infinity.

    ``seen`` [N, V] (bool) marks the tokens of each row so far, the start included, for the repetition penalty
    (Keskar et al. 2019); top-p keeps the smallest set of tokens that holds the mass (Holtzman et al. 2020).
    """
    if decoding.repetition_penalty != 1.0 and seen is not None:
        punished = torch.where(logits < 0, logits * decoding.repetition_penalty, logits / decoding.repetition_penalty)
        logits = torch.where(seen, punished, logits)
    if decoding.temperature != 1.0:
        logits = logits / decoding.temperature
    size = logits.shape[-1]
    if decoding.top_k is not None and decoding.top_k < size:
        least = _largest(logits, decoding.top_k)
        logits = logits.masked_fill(logits < least, -torch.inf)
    if decoding.top_p is not None and decoding.top_p < 1.0:
        p = torch.softmax(logits, -1)
        rising = _sorted(p)
        # Drop the tokens whose own and all smaller probabilities add up to no more than 1 - top_p; never the largest.
        dropped = (rising.cumsum(-1) <= 1 - decoding.top_p).sum(-1, keepdim=True).clamp(max=size - 1)
        logits = logits.masked_fill(p < rising.gather(-1, dropped), -torch.inf)
    return logits


def _largest(logits: Tensor, k: int) -> Tensor:
    """Return the k-th largest entry of every row, [N, 1]."""
    if logits.device.type == "cpu":  # NumPy's selection is vectorised, several times as fast as torch.topk
        place = logits.shape[-1] - k
        return torch.from_numpy(np.partition(logits.numpy(), place, axis=-1)[:, place : place + 1])
    return logits.topk(k, dim=-1).values[:, -1:]


def _sorted(p: Tensor) -> Tensor:
    if p.device.type == "cpu":
        return torch.from_numpy(np.sort(p.numpy(), axis=-1))  # vectorised; torch.sort takes 8 times as long
    return p.sort(dim=-1).values


def pick(p: Tensor, uniform: Tensor) -> Tensor:
    """Return the token of each row whose slice of the cumulative distribution holds ``uniform``: [N, V], [N, 1] → [N].

    The numbers are in [0, 1). The probabilities ``p`` are overwritten.
    """
    upto = p.cumsum_(-1)
    # right=True: the first token that goes beyond the goal, so that one without probability is never chosen.
    return torch.searchsorted(upto, upto.narrow(1, -1, 1) * uniform, right=True).squeeze(1)


def _marked(p: Tensor, end: int, marking: Marker, text: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
    """Mark all probabilities [N, V] but that of the end of text; the result need not add up to one.

    No reader sees the end of text. Marked too, all texts would be longer, or shorter, as the key happens to like it
    after a full stop.
    """
    ending = p[:, end].clone()
    p[:, end] = 0
    rest = p.sum(-1)
    marked = marking(p, text, rows)
    # A text that can only end, ends.
    marked[:, end] = torch.where(rest > 0, ending * marked.sum(-1) / rest, 1.0)
    return marked


def luck(stream: Stream, documents: NDArray[np.int64], length: int) -> NDArray[np.float32]:
    """Uniform numbers in (0, 1) for documents at positions 0..length-1, [documents, length]; keyed by both.

    A document's numbers depend neither on the size of the batch nor on which other documents are in it.
    """
    keys = documents[:, None] * _STRIDE + np.arange(length)
    numbers = stream.uniform(keys.ravel()).reshape(keys.shape).astype(np.float32)
    return np.minimum(numbers, np.float32(1 - 2.0**-24))  # the last ones would round to 1


class Decoder(Protocol):
    """A model in the middle of writing: rows of documents that all stand at the same position."""

    def begin(self, ids: Tensor) -> Tensor:
        """Take the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Take the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""

    def keep(self, rows: Tensor, used: int) -> None:
        """Go on with these rows only (an index tensor), of which ``used`` positions have been taken."""


def write(
    decoder: Decoder,
    starts: Sequence[NDArray[np.int32]],
    decoding: Decoding,
    uniform: NDArray[np.float32],
    end: int,
    context: int,
    device: torch.device,
    report: Callable[[int], None],
    members: int = 1,
    mark: WatermarkSpec | None = None,
) -> list[list[int]]:
    """Write one document per start; return each document's tokens, those of its start included, without the end.

    ``starts`` are the prompts (perhaps empty), before which the end-of-text token is put; ``uniform`` is of shape
    [documents, at least decoding.max_tokens]. A document ends before the end-of-text token, after ``max_tokens`` new
    tokens, or when the context is full. With a stack of ``members`` the documents come member by member, equally
    many of each. A ``mark`` is put on every document, after all that ``decoding`` does. ``report`` is told the tokens
    written, and those that will not be because a document has ended.
    """
    sizes = np.array([len(start) for start in starts])
    limits = np.minimum(sizes + decoding.max_tokens, context)  # tokens a document can have, its start included
    written = np.full((int(limits.max()), len(starts)), end, dtype=np.int64)  # [positions, documents]
    for row, start in enumerate(starts):
        written[: len(start), row] = start
    position = int(sizes.min())  # index, within the documents, of the token to be chosen
    longest, least = int(sizes.max()), int(limits.min())  # up to where prompts go, and from where documents are full
    ids = torch.from_numpy(np.concatenate([np.full((1, len(starts)), end), written[:position]]).T).to(device)
    # The number that chooses at a position, [positions, rows, 1]: the first one right after the prompt.
    place = np.clip(np.arange(len(written))[:, None] - sizes, 0, uniform.shape[1] - 1)
    numbers = torch.from_numpy(uniform[np.arange(len(starts)), place, None]).to(device)
    lengths = limits.copy()
    rows = np.arange(len(starts))  # the document of every row that is computed
    live = np.ones(len(starts), dtype=bool)  # rows whose document has not ended
    logits = decoder.begin(ids)
    if not torch.isfinite(logits).all():
        raise TrainingError(
            "a model's weights are no longer finite numbers; lower the learning rate it is trained with."
        )
    marking = None if mark is None else marker(mark, logits.shape[-1], written.shape)
    seen = None
    if decoding.repetition_penalty != 1.0:
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=device).scatter_(1, ids, True)
    while True:
        logits = adjust(logits, decoding, seen)
        p = torch.softmax(logits, -1)
        if marking is not None:
            p = _marked(p, end, marking, written[:position], rows)
        picked = pick(p, numbers[position])
        chosen = picked.cpu().numpy()
        ended, done = live & (chosen == end), int(live.sum())
        if position < longest:  # some documents are still inside prompts that are longer than the shortest
            inside = position < sizes[rows]
            chosen = np.where(inside, written[position, rows], chosen)
            picked = torch.from_numpy(chosen).to(device)
            ended, done = ended & ~inside, int((live & ~inside).sum())
        written[position, rows] = chosen  # what ended documents would go on with is never read
        position += 1
        if ended.any() or position >= least:
            lengths[rows[ended]] = position - 1
            ended |= live & (position >= limits[rows])
            done += int((limits[rows[ended]] - position).sum())
            live &= ~ended
            if live.any():
                least = int(limits[rows[live]].min())
        report(done)
        if not live.any():
            return [column[:length].tolist() for column, length in zip(written.T, lengths, strict=True)]
        # Rows that have ended go on being computed until leaving them out is worth the copying.
        most = int(live.reshape(members, -1).sum(1).max())
        if most * members <= _DENSE * len(rows):
            order = np.argsort(~live.reshape(members, -1), axis=1, kind="stable")[:, :most]
            kept = np.sort(order + np.arange(members)[:, None] * (len(rows) // members), axis=1).ravel()
            index = torch.from_numpy(kept).to(device)
            decoder.keep(index, position)
            rows, live, picked, numbers = rows[kept], live[kept], picked[index], numbers[:, index]
            seen = None if seen is None else seen[index]
        if seen is not None:
            seen.scatter_(1, picked.unsqueeze(1), True)
        logits = decoder.step(picked, position)
