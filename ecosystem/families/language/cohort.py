"""What every cohort of language models shares: documents to tokens, tokens to documents, and the requests.

A subclass brings the architecture: how to train members, the decoder of some rows, and the nats of a batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.errors import DataError, TrainingError
from ecosystem.families.base import (
    Budget,
    FitRecord,
    FitRequest,
    GenerateRequest,
    Member,
    MemberError,
    Progress,
    Score,
    ScoreRequest,
    Surroundings,
    WriteRecord,
    silent,
)
from ecosystem.families.language import generation, scoring, watermark
from ecosystem.families.language.packing import Answers, Batches, Packing
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import Crew
from ecosystem.streams import Stream

Nll = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Inputs, targets (int64), scored (bool), [rows, length] each → nats of the scored targets, in row order."""
Piece = tuple[int, NDArray[np.int64]]
"""The position of a request and the numbers of some of its documents."""

_SCORED_TOKENS = 2048  # positions in a batch to score on a CPU; the activations of a small model stay in the cache
_WRITTEN_ROWS = 128  # most documents written at once by a thread; 8 times as many on a GPU
_CACHED_VALUES = {"cpu": 1 << 26, "cuda": 1 << 32}
"""Most keys and values in a cache: 256 MB in float32 on a CPU (per thread), 8 GB in bfloat16 on a GPU."""


class LanguageCohort(ABC):
    """M members that share a tokenizer, a context and a way of training.

    ``crew`` says (threads, compute threads of each); ``stacks`` whether members are computed in one stack.
    """

    def __init__(
        self,
        name: str,
        members: int,
        tokenizer: Tokenizer,
        context: int,
        training: Training,
        around: Surroundings,
        crew: tuple[int, int],
        stacks: bool,
        fingerprint: str,
        cached_values: int,
    ) -> None:
        """``context`` is the longest input in tokens; ``fingerprint`` names what the members start from.

        ``cached_values`` is how many keys and values one position of one document takes.
        """
        self.name = name
        self.members = members
        self.tokenizer = tokenizer
        self.context = context
        self.training = training
        self.fingerprint = fingerprint
        self.device = torch.device(around.device)
        self.random_stream = around.streams.at(f"model/{name}/random")
        self._crew = crew
        self._stacks = stacks
        self._cached_values = cached_values
        self.written: list[WriteRecord] = []

    # What an architecture brings.

    @abstractmethod
    def _fit(
        self, requests: Sequence[FitRequest], packings: Sequence[Batches], peaks: Sequence[float], progress: Progress
    ) -> list[FitRecord]:
        """Train the members of the requests on their packings, with these peak learning rates."""

    @abstractmethod
    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> generation.Decoder:
        """Return a decoder of ``rows`` documents of each of these members, of up to ``length`` tokens."""

    @abstractmethod
    def _nll(self, member: Member) -> Nll:
        """Return the function that scores batches under these weights."""

    def flops_per_token(self, length: int) -> float | None:
        """Return the floating-point operations per token of one forward pass over ``length`` tokens.

        None where a model does no matrix products, as one that counts.
        """
        return None

    @abstractmethod
    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's parameters by their checkpoint names, with a leading member axis."""

    @abstractmethod
    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError if it belongs to another shape."""

    # The requests.

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents, at most one request per member.

        Raises MemberError (a TrainingError) if there is nothing to train on or a loss is not finite; the members of
        the call then keep the weights they had.
        """
        _check_members([request.member for request in requests], self.members, once=True)
        packings = []
        for request in requests:
            try:
                packings.append(self._batches(request))
            except TrainingError as error:
                raise MemberError(request.member, f"member {request.member} cannot be trained: {error}") from error
        peaks = [self.training.learning_rate if r.learning_rate is None else r.learning_rate for r in requests]
        return self._fit(requests, packings, peaks, progress) if requests else []

    def _batches(self, request: FitRequest) -> Batches:
        docs, batch = self.tokenizer.encode(request.docs), request.batch or self.training.batch
        given = (request.weight, self.tokenizer.end, self.context, batch, request.budget, request.stream.child("order"))
        if request.prompts is None:
            return Packing(docs, *given)
        return Answers(self.tokenizer.encode(request.prompts), docs, *given)

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents, one Series of length ``n`` per request; a document may be empty.

        A document ends with the end-of-text token (left out), after ``max_tokens`` new tokens, or when prompt and
        text fill the context. Raises TrainingError if prompts are missing or leave no room in the context.
        """
        written = self.tokens(requests, progress)
        return [pl.Series("text", self.tokenizer.decode(rows), dtype=pl.String) for rows in written]

    def tokens(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[list[list[int]]]:
        """Write documents as :meth:`generate` does, but return the chosen tokens, per request and document."""
        _check_members([request.member for request in requests], self.members, once=False)
        starts = [self._starts(request) for request in requests]
        total = sum(
            min(r.decoding.max_tokens, self.context - len(s))
            for r, begun in zip(requests, starts, strict=True)
            for s in begun
        )
        tokens: list[list[list[int]]] = [[[] for _ in range(request.n)] for request in requests]
        self.written = [
            WriteRecord(np.zeros(request.n, np.int64), np.array([len(s) for s in begun], np.int64))
            for request, begun in zip(requests, starts, strict=True)
        ]
        with Crew(*self._crew) as crew:

            def job(pieces: Sequence[Piece]) -> None:
                begun = [starts[i][row] for i, rows in pieces for row in rows]
                decoding, mark = requests[pieces[0][0]].decoding, requests[pieces[0][0]].mark
                most = min(decoding.max_tokens, self.context)
                uniform = np.concatenate(
                    [generation.luck(requests[i].stream.child("token"), rows, most) for i, rows in pieces]
                )
                length = min(max(len(s) for s in begun) + most, self.context)
                with torch.inference_mode():
                    decoder = self._decoder([requests[i].member for i, _ in pieces], len(pieces[0][1]), length)
                    texts = generation.write(
                        decoder,
                        begun,
                        decoding,
                        uniform,
                        self.tokenizer.end,
                        self.context,
                        self.device,
                        crew.report,
                        members=len(pieces),
                        mark=mark,
                    )
                places = [(i, row) for i, rows in pieces for row in rows]
                for (i, row), text in zip(places, texts, strict=True):
                    prompt, begins = requests[i].decoding.prompt, len(starts[i][row])
                    # A document that is shorter than it might be has ended with the end of text, which was drawn too.
                    self.written[i].drawn[row] = min(len(text) + 1, begins + most, self.context) - begins
                    tokens[i][row] = text if prompt is None or prompt.keep else text[begins:]

            jobs = self._pieces(requests)
            crew.run([lambda pieces=pieces: job(pieces) for pieces in jobs], "generate", total, progress)  # type: ignore[misc]
        return tokens

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents, one Score per request; nats, each document's end of text included.

        Raises TrainingError if the answer to a prompt is longer than the context.
        """
        _check_members([r.member for r in requests if isinstance(r.member, int)], self.members, once=False)
        outlines = [scoring.units(self.tokenizer.encode(request.docs), self.tokenizer.end) for request in requests]
        batch = _SCORED_TOKENS if self.device.type == "cpu" else 8 * _SCORED_TOKENS
        batches = [
            scoring.padded(self._windows(request, outline), batch)
            for request, outline in zip(requests, outlines, strict=True)
        ]
        with Crew(*self._crew) as crew:

            def job(nll: Nll, part: scoring.Padded) -> NDArray[np.float32]:
                arrays = (torch.from_numpy(a).to(self.device) for a in (part.inputs, part.targets, part.scored))
                with torch.inference_mode():
                    found: NDArray[np.float32] = nll(*arrays).float().cpu().numpy()
                crew.report(part.inputs.size)
                return found

            weights = [self._nll(request.member) for request in requests]
            jobs = [(weights[i], part) for i, parts in enumerate(batches) for part in parts]
            found = crew.run([lambda nll=nll, part=part: job(nll, part) for nll, part in jobs])  # type: ignore[misc]
        results = iter(found)
        return [
            scoring.assemble(*outline, parts, [next(results) for _ in parts])
            for outline, parts in zip(outlines, batches, strict=True)
        ]

    def _windows(self, request: ScoreRequest, outline: scoring.Outline) -> list[scoring.Window]:
        if request.prompts is None:
            return scoring.windows(*outline, self.tokenizer.end, self.context)
        prompts = self.tokenizer.encode(request.prompts)
        return scoring.answers(prompts, *outline, self.tokenizer.end, self.context)

    @property
    def types(self) -> int:
        """Number of tokens that the model chooses from; a checkpoint may have more than its tokenizer."""
        return self.tokenizer.size

    def watermark(self, docs: pl.Series, mark: WatermarkSpec) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Look for a mark in texts, read with the tokenizer: z-scores and scored tokens, [documents] each."""
        return watermark.detect(mark, self.tokenizer.encode(docs), self.types)

    def type_counts(self, docs: pl.Series) -> NDArray[np.int64]:
        """Return how often each token id occurs in documents, one end of text each included, shape [vocabulary]."""
        ids = np.concatenate([np.full(len(docs), self.tokenizer.end), *self.tokenizer.encode(docs)])
        return np.bincount(ids, minlength=self.tokenizer.size)

    def next_token(self, member: Member, docs: pl.Series, tokens: int) -> NDArray[np.float32]:
        """Return the distribution after the first ``tokens`` tokens of every document that has more, [some, types].

        Raises DataError if they do not fit the context with the end-of-text token before them.
        """
        if tokens >= self.context and len(docs):
            raise DataError(
                f'model "{self.name}": contexts of {tokens} tokens do not fit its context of {self.context}.'
            )
        begun = [ids[:tokens] for ids in self.tokenizer.encode(docs) if len(ids) > tokens]
        if not begun:
            return np.zeros((0, self.tokenizer.size), np.float32)
        ends = np.full((len(begun), 1), self.tokenizer.end)
        ids = torch.from_numpy(np.hstack([ends, np.stack(begun)]).astype(np.int64)).to(self.device)
        with Crew(*self._crew) as crew:

            def job() -> NDArray[np.float32]:
                with torch.inference_mode():
                    logits = self._decoder([member], len(ids), ids.shape[1]).begin(ids)
                    found: NDArray[np.float32] = torch.softmax(logits, -1).cpu().numpy()
                return found

            return crew.run([job])[0]

    def excerpts(self, docs: pl.Series, first: int, tokens: int) -> pl.Series:
        """Return the text of ``tokens`` tokens from token ``first`` on, of every document that has so many."""
        last = first + tokens
        rows = [ids[first:last].tolist() for ids in self.tokenizer.encode(docs) if len(ids) >= last]
        return pl.Series("text", self.tokenizer.decode(rows), dtype=pl.String)

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
            given = "none" if request.prompts is None else str(len(request.prompts))
            raise TrainingError(f"{request.n} documents are to be written from prompts, but {given} are given.")
        return [ids[: prompt.tokens] for ids in self.tokenizer.encode(request.prompts)]

    def _pieces(self, requests: Sequence[GenerateRequest]) -> list[list[Piece]]:
        """Cut the requests into jobs; how depends on the requests alone, never on the number of threads."""
        on_cpu = self.device.type == "cpu"
        room = _CACHED_VALUES.get(self.device.type, 1 << 28) // (self._cached_values * self.context)
        groups: dict[Any, list[int]] = {}
        for i, request in enumerate(requests):
            key = (request.decoding, request.mark, request.n) if self._stacks else i
            if request.n:
                groups.setdefault(key, []).append(i)
        jobs: list[list[Piece]] = []
        for group in groups.values():
            n = requests[group[0]].n
            most = max(1, min(_WRITTEN_ROWS if on_cpu else 8 * _WRITTEN_ROWS, room // len(group)))
            parts = 1 if n <= min(most, 15 if on_cpu else n) else min(n, self._parts(n, most))
            jobs += [[(i, rows) for i in group] for rows in np.array_split(np.arange(n), parts)]
        return jobs

    def _parts(self, n: int, most: int) -> int:
        """Return how many pieces of at most ``most`` documents ``n`` are cut into: evenly many, for two threads."""
        return 2 * -(-n // (2 * most))


def pretrain(cohort: LanguageCohort, budget: Budget, stream: Stream, around: Surroundings) -> dict[str, NDArray[Any]]:
    """Train the only member of a cohort on the human documents; return its weights, without the member axis."""
    request = FitRequest(0, around.human, np.ones(len(around.human)), budget, None, "foundation", stream)
    cohort.fit([request], lambda _, done, total: around.progress("foundation", done, total))
    return {name: values[0] for name, values in cohort.state().items()}


def copy_state(model: str, weights: Mapping[str, Tensor], state: Mapping[str, NDArray[Any]]) -> None:
    """Copy stored arrays into weights; raise DataError, changing nothing, if a name or a shape does not fit."""
    for name, tensor in weights.items():
        found = state[name].shape if name in state else "missing"
        if found != tuple(tensor.shape):
            raise DataError(
                f'the stored weights of model "{model}" do not fit: {name} is {found}, not {tuple(tensor.shape)}; '
                "they belong to another preset or another number of members."
            )
    for name, tensor in weights.items():
        tensor.copy_(torch.from_numpy(np.ascontiguousarray(state[name])))


def _check_members(members: Sequence[int], size: int, once: bool) -> None:
    if any(not 0 <= member < size for member in members) or (once and len(set(members)) < len(members)):
        raise ValueError(f"members {list(members)} of a cohort of {size}: each from 0 and, in a fit, at most once")
