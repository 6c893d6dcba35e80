"""Cohorts of language models: tokenization, generation, scoring, and the rest of :class:`TextCohort`.

A subclass implements the architecture: training, a decoder, and the nats of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import chain, pairwise
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import Progress, silent
from ecosystem.families.footprint import CACHED_VALUES, WRITTEN_ROWS
from ecosystem.families.language import generation, rewriting, scoring, watermark
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.requests import (
    FitRecord,
    FitRequest,
    GenerateRequest,
    Member,
    Radioactivity,
    Rewriting,
    Rewritten,
    Score,
    ScoreRequest,
    WriteRecord,
)
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.streams import Stream

Nll = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Inputs, targets (int64), scored (bool), [rows, length] each → nats of the scored targets, in row order."""
Piece = tuple[int, NDArray[np.int64]]
"""The index of a request and the numbers of some of its documents."""
Report = Callable[[int], None]

_SCORED_TOKENS = 2048  # positions in a scored batch on a CPU, so that activations of a small model stay in its cache
_CONTEXT = 16  # tokens before a prediction that is tested for a watermark
_CACHED_VALUES = {"cpu": CACHED_VALUES, "cuda": 1 << 32}
"""Maximum keys and values in a cache: 256 MB in float32 on a CPU (per thread), 8 GB in bfloat16 on a GPU."""


@dataclass(frozen=True)
class CohortSettings:
    """Settings of every cohort of language models."""

    name: str
    """Name of the model in the scenario."""
    members: int
    tokenizer: Tokenizer
    context: int
    """Longest input in tokens."""
    fingerprint: str = ""
    """Identifies the foundation or checkpoint that members start from."""


class LanguageCohort(ABC):
    """M members with the same tokenizer and context."""

    def __init__(
        self,
        settings: CohortSettings,
        *,
        device: str,
        workers: tuple[int, int],
        stacks: bool = False,
        cached_values: int = 1,
    ) -> None:
        """``workers``: number of threads, and of compute threads in each; ``stacks``: decode members in one stack.

        ``cached_values``: number of keys and values that a decoder stores per position and document.
        """
        self.name = settings.name
        self.members = settings.members
        self.tokenizer = settings.tokenizer
        self.context = settings.context
        self.fingerprint = settings.fingerprint
        self.device = torch.device(device)
        self._workers = workers
        self._stacks = stacks
        self._cached_values = cached_values
        self.written: list[WriteRecord] = []

    # Implemented by architectures.

    @abstractmethod
    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents, with at most one request per member.

        Raises MemberError (a TrainingError) if there is nothing to train on or a loss is not finite; no weights are
        changed then.
        """

    @abstractmethod
    def state(self) -> Mapping[str, NDArray[Any]]:
        """Return everything that fit() has changed."""

    @abstractmethod
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if it does not fit."""

    @abstractmethod
    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> generation.Decoder:
        """Return a decoder for ``rows`` documents per member, of up to ``length`` tokens."""

    @abstractmethod
    def _nll(self, member: Member) -> Nll:
        """Return a function that scores batches under the weights of ``member``."""

    def flops_per_token(self, length: int) -> float | None:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens.

        None for models without matrix products, such as n-gram models.
        """
        return None

    @property
    def types(self) -> int:
        """Size of the output distribution in tokens; a checkpoint may have more than its tokenizer."""
        return self.tokenizer.size

    @cached_property
    def _without_text(self) -> Tensor | None:
        """Ids of the output that are not tokens, as in a padded vocabulary; None if there are none."""
        ids = torch.from_numpy(self.tokenizer.ids_without_text(self.types))
        return ids.to(self.device) if len(ids) else None

    # Generation.

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents, one Series of length ``n`` per request; a document may be empty.

        A document ends before the end-of-text token, after ``max_tokens`` new tokens, or when prompt and text fill the
        context. Raises TrainingError if prompts are missing or leave no room in the context.
        """
        written = self.tokens(requests, progress)
        return [pl.Series("text", self.tokenizer.decode(rows), dtype=pl.String) for rows in written]

    def tokens(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[list[list[int]]]:
        """Write documents as :meth:`generate` does, but return their tokens, per request and document."""
        _check_members([request.member for request in requests], self.members, once=False)
        starts = [self._starts(request) for request in requests]
        total = sum(
            min(request.decoding.max_tokens, self.context - len(start))
            for request, prompts in zip(requests, starts, strict=True)
            for start in prompts
        )
        pieces = self._pieces(requests)
        with WorkerPool(*self._workers) as pool:
            jobs = [partial(self._write, requests, starts, group, pool.report) for group in pieces]
            texts = pool.run(jobs, "generate", total, progress)
        tokens: list[list[list[int]]] = [[[] for _ in range(request.n)] for request in requests]
        self.written = [
            WriteRecord(np.zeros(request.n, np.int64), np.array([len(start) for start in prompts], np.int64))
            for request, prompts in zip(requests, starts, strict=True)
        ]
        for group, written in zip(pieces, texts, strict=True):
            documents = [(i, row) for i, rows in group for row in rows]
            for (i, row), text in zip(documents, written, strict=True):
                decoding, read = requests[i].decoding, len(starts[i][row])
                # A document shorter than its limit ended with the end of text, which was drawn too.
                limit = min(read + min(decoding.max_tokens, self.context), self.context)
                self.written[i].drawn[row] = min(len(text) + 1, limit) - read
                tokens[i][row] = text if decoding.prompt is None or decoding.prompt.keep else text[read:]
        return tokens

    def _write(
        self,
        requests: Sequence[GenerateRequest],
        starts: Sequence[Sequence[NDArray[np.int32]]],
        pieces: Sequence[Piece],
        report: Report,
    ) -> list[list[int]]:
        """Write documents of requests with the same decoding in one batch; return tokens, prompts included."""
        prompts = [starts[i][row] for i, rows in pieces for row in rows]
        decoding, mark = requests[pieces[0][0]].decoding, requests[pieces[0][0]].mark
        max_tokens = min(decoding.max_tokens, self.context)
        noise = np.concatenate(
            [generation.token_noise(requests[i].stream.child("token"), rows, max_tokens) for i, rows in pieces]
        )
        end, context = self.tokenizer.end, self.context
        task = generation.Task(prompts, decoding, noise, end, context, len(pieces), mark, self._without_text)
        length = min(max(len(start) for start in prompts) + max_tokens, self.context)
        with torch.inference_mode():
            decoder = self._decoder([requests[i].member for i, _ in pieces], len(pieces[0][1]), length)
            return generation.write(decoder, task, self.device, report)

    def _starts(self, request: GenerateRequest) -> list[NDArray[np.int32]]:
        prompt = request.decoding.prompt
        if prompt is None:
            return [np.zeros(0, dtype=np.int32)] * request.n
        if prompt.tokens + 1 > self.context:
            raise TrainingError(
                f"a prompt of {prompt.tokens} tokens and the end-of-text token before it do not fit the context of "
                f"{self.context}; lower prompt.tokens to at most {self.context - 1}."
            )
        if request.prompts is None or len(request.prompts) != request.n:
            count = "none" if request.prompts is None else str(len(request.prompts))
            raise TrainingError(f"{request.n} documents need as many prompts, but {count} are given.")
        return [ids[: prompt.tokens] for ids in self.tokenizer.encode(request.prompts)]

    def _pieces(self, requests: Sequence[GenerateRequest]) -> list[list[Piece]]:
        """Split the requests into jobs; the split depends on the requests alone, not on the number of threads."""
        on_cpu = self.device.type == "cpu"
        cached_rows = _CACHED_VALUES.get(self.device.type, 1 << 28) // (self._cached_values * self.context)
        groups: dict[Any, list[int]] = {}
        for i, request in enumerate(requests):
            key = (request.decoding, request.mark, request.n) if self._stacks else i
            if request.n:
                groups.setdefault(key, []).append(i)
        jobs: list[list[Piece]] = []
        for group in chain(*(self._together(same, requests, cached_rows) for same in groups.values())):
            n = requests[group[0]].n
            max_rows = max(1, min(WRITTEN_ROWS if on_cpu else 8 * WRITTEN_ROWS, cached_rows // len(group)))
            parts = 1 if n <= min(max_rows, 15 if on_cpu else n) else min(n, self._parts(n, max_rows))
            jobs += [[(i, rows) for i in group] for rows in np.array_split(np.arange(n), parts)]
        return jobs

    def _together(self, group: list[int], requests: Sequence[GenerateRequest], rows: int) -> list[list[int]]:
        """Divide requests that can be decoded in one stack; ``rows`` documents have room in a cache."""
        return [group]

    def _parts(self, n: int, max_rows: int) -> int:
        """Return the number of pieces of at most ``max_rows`` documents to split ``n`` into; even, for two threads."""
        return 2 * -(-n // (2 * max_rows))

    # Scoring.

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents in nats, one Score per request, with the end of text of each document.

        Raises TrainingError if the answer to a prompt is longer than the context.
        """
        _check_members([r.member for r in requests if isinstance(r.member, int)], self.members, once=False)
        indexes = [scoring.units(self.tokenizer.encode(request.docs), self.tokenizer.end) for request in requests]
        size = _SCORED_TOKENS if self.device.type == "cpu" else 8 * _SCORED_TOKENS
        batches = [
            scoring.padded(self._windows(request, index), size)
            for request, index in zip(requests, indexes, strict=True)
        ]
        functions = [self._nll(request.member) for request in requests]
        with WorkerPool(*self._workers) as pool:
            jobs = [
                partial(self._nats, nll, part, pool.report)
                for nll, parts in zip(functions, batches, strict=True)
                for part in parts
            ]
            nats = iter(pool.run(jobs))
        return [
            scoring.assemble(*index, parts, [next(nats) for _ in parts])
            for index, parts in zip(indexes, batches, strict=True)
        ]

    def _nats(self, nll: Nll, part: scoring.Padded, report: Report) -> NDArray[np.float32]:
        arrays = (torch.from_numpy(a).to(self.device) for a in (part.inputs, part.targets, part.scored))
        with torch.inference_mode():
            nats: NDArray[np.float32] = nll(*arrays).float().cpu().numpy()
        report(part.inputs.size)
        return nats

    def _windows(self, request: ScoreRequest, index: scoring.ScoreIndex) -> list[scoring.Window]:
        if request.prompts is None:
            return scoring.windows(*index, self.tokenizer.end, self.context)
        prompts = self.tokenizer.encode(request.prompts)
        return scoring.answers(prompts, *index, self.tokenizer.end, self.context)

    # Rewriting.

    def rewrite(self, docs: pl.Series, how: Rewriting, stream: Stream) -> Rewritten:
        """Draw tokens of documents again with the initial weights; documents longer than the context in windows."""
        unit, offsets = scoring.units(self.tokenizer.encode(docs), self.tokenizer.end)
        noise = rewriting.unit_noise(stream, offsets)
        windows = scoring.windows(unit, offsets, self.tokenizer.end, self.context)
        batches = scoring.padded(windows, _SCORED_TOKENS if self.device.type == "cpu" else 8 * _SCORED_TOKENS)
        with WorkerPool(*self._workers) as pool:
            parts = pool.run([partial(self._rewritten, batch, noise, how) for batch in batches])
        new = unit.copy()
        for batch, tokens in zip(batches, parts, strict=True):
            new[batch.place] = tokens
        spans = list(pairwise(offsets.tolist()))
        texts = self.tokenizer.decode([new[a : b - 1].tolist() for a, b in spans])
        changed = np.array([np.count_nonzero(new[a:b] != unit[a:b]) for a, b in spans], np.int64)
        kept = [new_text if n else text for new_text, text, n in zip(texts, docs.to_list(), changed, strict=True)]
        return Rewritten(pl.Series("text", kept, dtype=pl.String), changed, np.diff(offsets) - 1)

    def _rewritten(self, batch: scoring.Padded, noise: NDArray[np.float32], how: Rewriting) -> NDArray[np.int64]:
        with torch.inference_mode():
            decoder = self._decoder(["initial"], *batch.inputs.shape)
            return rewriting.rewrite(decoder, batch, noise, how, self.tokenizer.end, self._without_text, self.device)

    # Tokens and their distributions.

    def watermark(self, docs: pl.Series, mark: WatermarkSpec) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Detect a watermark in tokenized texts; return z-scores and numbers of scored tokens, [documents] each."""
        return watermark.detect(mark, self.tokenizer.encode(docs), self.types)

    def radioactivity(self, member: Member, docs: pl.Series, mark: WatermarkSpec, contexts: int) -> Radioactivity:
        """Test whether a member has learnt from watermarked text, by its predictions after tokens of unmarked ``docs``.

        The contexts are at most this many excerpts of 16 tokens, spread evenly over the documents.
        """
        tokens = max(_CONTEXT, mark.reach)
        parts = [ids for ids in self.tokenizer.encode(docs) if len(ids) >= tokens]
        windows = np.concatenate(
            [np.zeros((0, tokens), np.int32), *(sliding_window_view(ids, tokens) for ids in parts)]
        )
        chosen = windows[np.unique(np.linspace(0, len(windows) - 1, min(contexts, len(windows))).astype(np.int64))]
        with WorkerPool(*self._workers) as pool:
            batches = np.array_split(chosen.astype(np.int64), -(-len(chosen) // WRITTEN_ROWS) or 1)
            jobs = [partial(self._predicted, member, torch.from_numpy(ids).to(self.device)) for ids in batches]
            predicted = np.concatenate(pool.run(jobs))
        return watermark.radioactivity(mark, chosen, predicted, self.types)

    def _predicted(self, member: Member, ids: Tensor) -> NDArray[np.int64]:
        """Return the likeliest next token after each row of tokens, [rows]."""
        ids = ids[:, -self.context :]
        return self._distribution(member, ids).argmax(axis=1) if len(ids) else np.zeros(0, np.int64)

    def type_counts(self, docs: pl.Series) -> NDArray[np.int64]:
        """Count how often each token id occurs in documents, one end of text each included, shape [vocabulary]."""
        ids = np.concatenate([np.full(len(docs), self.tokenizer.end), *self.tokenizer.encode(docs)])
        return np.bincount(ids, minlength=self.tokenizer.size)

    def next_token(self, member: Member, docs: pl.Series, tokens: int) -> NDArray[np.float32]:
        """Return the next-token distribution after the first ``tokens`` tokens of each document, [documents, types].

        Documents of at most ``tokens`` tokens are left out. Raises DataError if the tokens, with the end-of-text token
        before them, do not fit the context.
        """
        if tokens >= self.context and len(docs):
            raise DataError(
                f'model "{self.name}": contexts of {tokens} tokens do not fit its context of {self.context}.'
            )
        contexts = [ids[:tokens] for ids in self.tokenizer.encode(docs) if len(ids) > tokens]
        if not contexts:
            return np.zeros((0, self.tokenizer.size), np.float32)
        ends = np.full((len(contexts), 1), self.tokenizer.end)
        ids = torch.from_numpy(np.hstack([ends, np.stack(contexts)]).astype(np.int64)).to(self.device)
        with WorkerPool(*self._workers) as pool:
            return pool.run([partial(self._distribution, member, ids)])[0]

    def _distribution(self, member: Member, ids: Tensor) -> NDArray[np.float32]:
        with torch.inference_mode():
            logits = self._decoder([member], len(ids), ids.shape[1]).begin(ids)
            p: NDArray[np.float32] = torch.softmax(logits, -1).cpu().numpy()
        return p

    def excerpts(self, docs: pl.Series, first: int, tokens: int) -> pl.Series:
        """Return the text of tokens ``first`` to ``first + tokens`` of each document; shorter ones are left out."""
        last = first + tokens
        rows = [ids[first:last].tolist() for ids in self.tokenizer.encode(docs) if len(ids) >= last]
        return pl.Series("text", self.tokenizer.decode(rows), dtype=pl.String)

    def _check_fit(self, requests: Sequence[FitRequest]) -> None:
        """Raise ValueError if a member does not exist or occurs twice."""
        _check_members([request.member for request in requests], self.members, once=True)


def _check_members(members: Sequence[int], size: int, once: bool) -> None:
    if any(not 0 <= member < size for member in members) or (once and len(set(members)) < len(members)):
        raise ValueError(
            f"members {list(members)} of a cohort of {size}: each from 0 to {size - 1} and, in a fit, at most once"
        )
