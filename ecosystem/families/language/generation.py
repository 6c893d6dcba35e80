"""Generation: at each position, one uniform number per row picks the next token from its distribution.

The token is the inverse of the cumulative distribution at that number, so no random number per entry of the vocabulary
is needed. Decoding applies the same filters in the same order as the logits processors of transformers: repetition
penalty, temperature, top-k, top-p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import TrainingError
from ecosystem.families.language.watermark import Marker, marker
from ecosystem.families.requests import Decoding
from ecosystem.streams import Stream

_COMPACT_BELOW = 0.8  # share of open rows below which a batch is compacted
_STEPS_AT_ONCE = 16  # positions between two reports of progress
_STRIDE = 1 << 20  # positions per document in the keys of uniform numbers


def adjust(logits: Tensor, decoding: Decoding, seen: Tensor | None = None) -> Tensor:
    """Apply the decoding to logits [N, V] and return the result; excluded tokens get minus infinity.

    ``seen`` [N, V] (bool) flags the tokens in each row so far, prompt included, for the repetition penalty (Keskar et
    al. 2019); top-p keeps the smallest set of tokens with that probability mass (Holtzman et al. 2020).
    """
    if decoding.repetition_penalty != 1.0 and seen is not None:
        penalised = torch.where(logits < 0, logits * decoding.repetition_penalty, logits / decoding.repetition_penalty)
        logits = torch.where(seen, penalised, logits)
    if decoding.temperature != 1.0:
        logits = logits / decoding.temperature
    size = logits.shape[-1]
    if decoding.top_k is not None and decoding.top_k < size:
        threshold = _kth_largest(logits, decoding.top_k)
        logits = logits.masked_fill(logits < threshold, -torch.inf)
    if decoding.top_p is not None and decoding.top_p < 1.0:
        p = torch.softmax(logits, -1)
        ascending = _sorted(p)
        # Drop the least probable tokens as long as their probabilities sum to at most 1 - top_p; keep at least one.
        dropped = (ascending.cumsum(-1) <= 1 - decoding.top_p).sum(-1, keepdim=True).clamp(max=size - 1)
        logits = logits.masked_fill(p < ascending.gather(-1, dropped), -torch.inf)
    return logits


def _kth_largest(logits: Tensor, k: int) -> Tensor:
    """Return the k-th largest entry of every row, [N, 1]."""
    if logits.device.type == "cpu":  # NumPy's selection is vectorised and several times as fast as torch.topk
        rank = logits.shape[-1] - k
        return torch.from_numpy(np.partition(logits.numpy(), rank, axis=-1)[:, rank : rank + 1])
    return logits.topk(k, dim=-1).values[:, -1:]


def _sorted(p: Tensor) -> Tensor:
    if p.device.type == "cpu":
        return torch.from_numpy(np.sort(p.numpy(), axis=-1))  # vectorised; torch.sort takes 8 times as long
    return p.sort(dim=-1).values


def pick(p: Tensor, uniform: Tensor) -> Tensor:
    """Invert the cumulative distribution of each row at a number in [0, 1): p [N, V], uniform [N, 1] → tokens [N].

    Rows of ``p`` need not sum to one; ``p`` is overwritten.
    """
    cumulative = p.cumsum_(-1)
    # right=True never picks a token of probability 0.
    return torch.searchsorted(cumulative, cumulative.narrow(1, -1, 1) * uniform, right=True).squeeze(1)


def _watermarked(p: Tensor, end: int, mark: Marker, text: NDArray[np.int64], rows: NDArray[np.int64]) -> Tensor:
    """Watermark all probabilities [N, V] except that of the end of text; rows of the result need not sum to one.

    The end-of-text token is never watermarked: detectors do not see it, and a bias would change the lengths of texts by
    an amount that depends on the key.
    """
    p_end = p[:, end].clone()
    p[:, end] = 0
    rest = p.sum(-1)
    marked = mark(p, text, rows)
    # If only the end of text is possible, its probability is one.
    marked[:, end] = torch.where(rest > 0, p_end * marked.sum(-1) / rest, 1.0)
    return marked


def token_noise(stream: Stream, documents: NDArray[np.int64], length: int) -> NDArray[np.float32]:
    """Return uniform numbers in (0, 1), [documents, length], keyed by document and position.

    The numbers of a document depend neither on the size of the batch nor on the other documents in it.
    """
    keys = documents[:, None] * _STRIDE + np.arange(length)
    numbers = stream.uniform(keys.ravel()).reshape(keys.shape).astype(np.float32)
    return np.minimum(numbers, np.float32(1 - 2.0**-24))  # larger ones would round to 1


class Decoder(Protocol):
    """A model that is writing documents: one per row, all at the same position."""

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor), of which ``used`` positions have been read."""


@dataclass(frozen=True)
class Texts:
    """Documents that are being written, as arrays that a decoder changes in place.

    ``written`` (int64) and ``noise`` (float32) are [positions, documents]; ``sizes`` (of the starts), ``limits`` (the
    most tokens) and ``lengths`` (int64) are [documents], as is ``open`` (bool). Ids in ``never`` are not picked.
    """

    written: NDArray[np.int64]
    noise: NDArray[np.float32]
    sizes: NDArray[np.int64]
    limits: NDArray[np.int64]
    lengths: NDArray[np.int64]
    open: NDArray[np.bool_]
    never: NDArray[np.int64]
    end: int
    temperature: float


@runtime_checkable
class Advancing(Protocol):
    """A decoder that can also pick tokens itself, at a temperature and without other settings."""

    def advance(self, texts: Texts, first: int, last: int) -> None:
        """Append tokens to the open documents, from position ``first`` until ``last`` are written."""


@dataclass(frozen=True)
class Task:
    """Documents to write in one batch, one per start: a prompt, which may be empty.

    ``noise``: uniform numbers, [documents, at least decoding.max_tokens]. A document ends before the end-of-text token
    ``end``, after ``max_tokens`` new tokens, or when the ``context`` is full. In a stack of ``members``, documents are
    ordered by member, equally many of each. ``mark`` is the watermark, applied after the rest of the decoding.
    """

    starts: Sequence[NDArray[np.int32]]
    decoding: Decoding
    noise: NDArray[np.float32]
    end: int
    context: int
    members: int = 1
    mark: WatermarkSpec | None = None
    never: Tensor | None = None
    """Ids that are never picked, since they have no text."""


def write(decoder: Decoder, task: Task, device: torch.device, report: Callable[[int], None]) -> list[list[int]]:
    """Write the documents of a task; return each document's tokens, its start included, without the end of text.

    ``report`` is called with the number of tokens written; a document that ends early counts in full.
    """
    batch = _Batch(task, device)
    ids = batch.begin()
    logits = decoder.begin(ids)
    if not torch.isfinite(logits).all():
        raise TrainingError("a model's weights are no longer finite numbers; lower its learning rate.")
    marking = None if task.mark is None else marker(task.mark, logits.shape[-1], batch.written.shape)
    seen = None
    if task.decoding.repetition_penalty != 1.0:
        seen = torch.zeros(logits.shape, dtype=torch.bool, device=device).scatter_(1, ids, True)
    advancing = decoder if isinstance(decoder, Advancing) and _is_plain(task, logits.shape[-1]) else None
    while True:
        if task.never is not None:
            logits = logits.index_fill(1, task.never, -torch.inf)
        p = torch.softmax(adjust(logits, task.decoding, seen), -1)
        if marking is not None:
            p = _watermarked(p, task.end, marking, batch.written[: batch.position], batch.rows)
        picked, done = batch.append(pick(p, batch.noise[batch.position]))
        report(done)
        if not batch.open.any():
            return batch.texts()
        if advancing is not None:
            return batch.advanced(advancing, report)
        index = batch.compact()
        if index is not None:
            decoder.keep(index, batch.position)
            picked, seen = picked[index], None if seen is None else seen[index]
        if seen is not None:
            seen.scatter_(1, picked.unsqueeze(1), True)
        logits = decoder.step(picked, batch.position)


def remaining_rows(open_rows: NDArray[np.bool_], members: int) -> NDArray[np.int64] | None:
    """Return the rows to continue with if enough of them are closed, equally many of each member; None: all of them."""
    rows_per_member = int(open_rows.reshape(members, -1).sum(1).max())
    if rows_per_member * members > _COMPACT_BELOW * len(open_rows):
        return None
    order = np.argsort(~open_rows.reshape(members, -1), axis=1, kind="stable")[:, :rows_per_member]
    first = np.arange(members)[:, None] * (len(open_rows) // members)
    return np.sort(order + first, axis=1).astype(np.int64).ravel()


def _is_plain(task: Task, types: int) -> bool:
    """Tell whether tokens are picked from the distribution at a temperature, and nothing else."""
    decoding = task.decoding
    every_token = decoding.top_k is None or decoding.top_k >= types
    all_mass = decoding.top_p is None or decoding.top_p >= 1.0
    return every_token and all_mass and decoding.repetition_penalty == 1.0 and task.mark is None


class _Batch:
    """Documents that are being written: ``written`` [positions, documents] holds their tokens up to ``position``.

    ``rows`` holds the document of each computed row, ``open`` whether it has not ended.
    """

    def __init__(self, task: Task, device: torch.device) -> None:
        self._task, self._device = task, device
        count = len(task.starts)
        self._sizes = np.array([len(start) for start in task.starts])
        # Maximum tokens of a document, its start included.
        self._limits = np.minimum(self._sizes + task.decoding.max_tokens, task.context)
        self._lengths = self._limits.copy()
        self.written = np.full((int(self._limits.max()), count), task.end, dtype=np.int64)
        for row, start in enumerate(task.starts):
            self.written[: len(start), row] = start
        self.position = int(self._sizes.min())
        self._longest_start, self._next_limit = int(self._sizes.max()), int(self._limits.min())
        self.rows = np.arange(count)
        self.open = np.ones(count, dtype=bool)
        # The uniform number for each position, [positions, rows, 1]; the first is for the token after the start.
        index = np.clip(np.arange(len(self.written))[:, None] - self._sizes, 0, task.noise.shape[1] - 1)
        self.noise = torch.from_numpy(task.noise[np.arange(count), index, None]).to(device)

    def begin(self) -> Tensor:
        """Return the end-of-text token and as many tokens as all starts have, [documents, T]."""
        ends = np.full((1, len(self.rows)), self._task.end)
        return torch.from_numpy(np.concatenate([ends, self.written[: self.position]]).T).to(self._device)

    def append(self, picked: Tensor) -> tuple[Tensor, int]:
        """Append a token [rows] to every row; return the appended tokens and the progress in tokens.

        Rows that are still inside their prompts get the next token of the prompt instead.
        """
        tokens = picked.cpu().numpy()
        ended, done = self.open & (tokens == self._task.end), int(self.open.sum())
        if self.position < self._longest_start:
            in_prompt = self.position < self._sizes[self.rows]
            tokens = np.where(in_prompt, self.written[self.position, self.rows], tokens)
            picked = torch.from_numpy(tokens).to(self._device)
            ended, done = ended & ~in_prompt, int((self.open & ~in_prompt).sum())
        self.written[self.position, self.rows] = tokens  # tokens after the end of a document are never read
        self.position += 1
        if ended.any() or self.position >= self._next_limit:
            done += self._close(ended)
        return picked, done

    def _close(self, ended: NDArray[np.bool_]) -> int:
        """Close rows that have ended or reached their limit; return the number of tokens that are not needed."""
        self._lengths[self.rows[ended]] = self.position - 1
        ended = ended | (self.open & (self.position >= self._limits[self.rows]))
        self.open &= ~ended
        if self.open.any():
            self._next_limit = int(self._limits[self.rows[self.open]].min())
        return int((self._limits[self.rows[ended]] - self.position).sum())

    def compact(self) -> Tensor | None:
        """Drop closed rows if enough of them are closed; return the index of the remaining rows, or None."""
        kept = remaining_rows(self.open, self._task.members)
        if kept is None:
            return None
        index = torch.from_numpy(kept).to(self._device)
        self.rows, self.open, self.noise = self.rows[kept], self.open[kept], self.noise[:, index]
        return index

    def advanced(self, decoder: Advancing, report: Callable[[int], None]) -> list[list[int]]:
        """Let the decoder write the rest of all documents; return the tokens of every document."""
        never = np.zeros(0, np.int64) if self._task.never is None else self._task.never.cpu().numpy()
        noise = np.ascontiguousarray(self.noise.cpu().numpy()[:, :, 0])
        decoding, end = self._task.decoding, self._task.end
        texts = Texts(
            *(self.written, noise, self._sizes, self._limits, self._lengths, self.open, never, end),
            temperature=decoding.temperature,
        )
        done = self._done()
        while self.open.any():
            last = min(self.position + _STEPS_AT_ONCE, len(self.written))
            decoder.advance(texts, self.position, last)
            self.position = last
            before, done = done, self._done()
            report(done - before)
        return self.texts()

    def _done(self) -> int:
        """Return the progress in tokens; documents that have ended count in full."""
        written = np.clip(self.position - self._sizes, 0, None)
        return int(np.where(self.open, written, self._limits - self._sizes).sum())

    def texts(self) -> list[list[int]]:
        """Return the tokens of every document."""
        return [column[:length].tolist() for column, length in zip(self.written.T, self._lengths, strict=True)]
