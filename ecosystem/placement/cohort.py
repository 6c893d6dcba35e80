"""Cohorts whose members live in workers: requests are divided by member, results joined in order."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.families.base import BuildContext, Cohort, Family, Progress, silent
from ecosystem.families.requests import (
    FitRecord,
    FitRequest,
    GenerateRequest,
    Member,
    PromptedFitRequest,
    Radioactivity,
    Rewriting,
    Rewritten,
    Score,
    ScoreRequest,
    WriteRecord,
)
from ecosystem.placement.state import PlacedState, divided, folder_with, place_files
from ecosystem.placement.texts import Rows, Texts, encoded
from ecosystem.placement.worker import Blueprint, Built
from ecosystem.placement.workers import Call, Part, Workers
from ecosystem.sources.base import Truth
from ecosystem.streams import Stream

R = TypeVar("R", FitRequest, PromptedFitRequest, GenerateRequest, ScoreRequest)
_SMALL = 1 << 16  # bytes of a table that is sent with a call rather than put into the object store


class PlacedCohort:
    """M members in the workers of a cluster; the process of the run holds none of their weights."""

    def __init__(self, workers: Workers, name: str, members: int, parts: Sequence[Part], built: Built) -> None:
        self.name, self.members, self.fingerprint = name, members, built.fingerprint
        self.parts = list(parts)
        self._workers = workers
        self._turn = itertools.count()  # requests that need no member go to the parts in turn

    # Requests.

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents."""
        return self._divide("fit", requests, progress, changes=True)

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents: one Series of length ``n`` per request."""
        return [docs for docs, _ in self._written(requests, progress)]

    def _written(
        self, requests: Sequence[GenerateRequest], progress: Progress
    ) -> list[tuple[pl.Series, WriteRecord | None]]:
        def pairs(result: Any) -> list[tuple[pl.Series, WriteRecord | None]]:
            return list(zip(*result, strict=True))

        return self._divide("generate", requests, progress, each=pairs)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents: one Score per request."""
        return self._divide("score", requests, silent)

    def map_members(
        self,
        function: Callable[..., Any],
        members: Sequence[int],
        shared: tuple[Any, ...],
        own: Sequence[tuple[Any, ...]],
    ) -> list[Any]:
        """Call ``function(cohort, member, *shared, *own of the member)`` where each member is; return the results."""
        texts, numbers = Texts(), self._by_part([self._part_of(member) for member in members])
        calls = []
        for part, places in numbers.items():
            local = [members[i] - part.first for i in places]
            arguments = texts.pack(part.worker, (local, shared, [own[i] for i in places]))
            calls.append(Call(part, "map_members", (function, *arguments)))
        return self._join(self._with_texts(calls, texts), list(numbers.values()), len(members), "measure", silent)

    def _divide(
        self,
        method: str,
        requests: Sequence[R],
        progress: Progress,
        *,
        changes: bool = False,
        each: Callable[[Any], list[Any]] = list,
    ) -> list[Any]:
        """Send every request to the part with its member; return the results in the order of the requests."""
        texts = Texts()
        numbers = self._by_part([self._part_of(request.member) for request in requests])
        calls = []
        for part, places in numbers.items():
            local = [_renumbered(requests[i], part) for i in places]
            calls.append(Call(part, method, (texts.pack(part.worker, local),), changes=changes))
        calls = self._with_texts(calls, texts)
        return self._join(calls, list(numbers.values()), len(requests), method, progress, each)

    def _join(
        self,
        calls: Sequence[Call],
        places: Sequence[Sequence[int]],
        count: int,
        what: str,
        progress: Progress,
        each: Callable[[Any], list[Any]] = list,
    ) -> list[Any]:
        joined: list[Any] = [None] * count
        for numbers, result in zip(places, self._workers.run(calls, what, progress), strict=True):
            for number, one in zip(numbers, each(result), strict=True):
                joined[number] = one
        return joined

    def _part_of(self, member: Member) -> Part:
        if not isinstance(member, int):
            return self.parts[next(self._turn) % len(self.parts)]
        for part in self.parts:
            if part.first <= member < part.first + part.members:
                return part
        raise ValueError(f"member {member} of a cohort of {self.members}")

    def _by_part(self, parts: Sequence[Part]) -> dict[Part, list[int]]:
        numbers: dict[Part, list[int]] = {}
        for number, part in enumerate(parts):
            numbers.setdefault(part, []).append(number)
        return numbers

    def _with_texts(self, calls: Sequence[Call], texts: Texts) -> list[Call]:
        """Add the tables of texts to calls; the shared one is put into the object store, unless it is small."""
        both, own = texts.tables()
        table, arrays = encoded(both) if both.len() else None, texts.arrays()
        small = not arrays and (table is None or table.nbytes <= _SMALL)
        shared = (table, arrays) if small else self._workers.put((table, arrays))
        tables = {worker: encoded(series) for worker, series in own.items()}
        return [replace(call, shared=shared, own=tables.get(call.part.worker)) for call in calls]

    def ask(self, method: str, *arguments: Any) -> Any:
        """Return the result of a method of the cohort that needs no member's weights."""
        texts, part = Texts(), self._part_of("initial")
        call = Call(part, "ask", (method, *texts.pack(part.worker, arguments)))
        [answer] = self._workers.run(self._with_texts([call], texts))
        return answer

    def rewrite(self, docs: pl.Series, how: Rewriting, stream: Stream) -> Rewritten:
        """Draw tokens of documents again with the weights that members start from."""
        rewritten: Rewritten = self.ask("rewrite", docs, how, stream)
        return rewritten

    # Weights.

    def state(self) -> PlacedState:
        """Return everything that fit() has changed; the arrays stay in the workers."""
        return PlacedState(self._workers, self.name, self.members, self.parts)

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned, or stored arrays; raise DataError if they do not fit."""
        if isinstance(state, PlacedState):
            state.restore()
            return
        for part, base in zip(self.parts, divided(self.name, self.members, state, self.parts), strict=True):
            part.base, part.journal, part.kept = base, [], {}
        if folder := folder_with(state):
            place_files(self._workers, self.parts, folder)
        else:
            self._workers.run([Call(part, "load_arrays", (part.base,)) for part in self.parts])

    def save_assets(self, folder: Path) -> None:
        """Write the files that checkpoints need besides weights to ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        [files] = self._workers.run([Call(self.parts[0], "assets", ())])
        for name, content in files.items():
            (folder / name).write_bytes(content)


class PlacedTextCohort(PlacedCohort):
    """A placed cohort of language models."""

    def __init__(self, workers: Workers, name: str, members: int, parts: Sequence[Part], built: Built) -> None:
        super().__init__(workers, name, members, parts, built)
        self.context = built.context or 0
        self.written: list[WriteRecord] = []
        self._flops: dict[int, float | None] = {}

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents: one Series of length ``n`` per request."""
        results = self._written(requests, progress)
        self.written = [record for _, record in results if record is not None]
        return [docs for docs, _ in results]

    def fit_prompted(self, requests: Sequence[PromptedFitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members on answers."""
        return self._divide("fit_prompted", requests, progress, changes=True)

    def flops_per_token(self, length: int) -> float | None:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens; None: unknown."""
        if length not in self._flops:
            self._flops[length] = self.ask("flops_per_token", length)
        return self._flops[length]

    def type_counts(self, docs: pl.Series) -> NDArray[np.int64]:
        """Count how often each token id occurs in documents, one end of text per document included, shape [types]."""
        counts: NDArray[np.int64] = self.ask("type_counts", docs)
        return counts

    def next_token(self, member: Member, docs: pl.Series, tokens: int) -> NDArray[np.float32]:
        """Return the next-token distribution after the first ``tokens`` tokens of each document, [documents, types]."""
        distribution: NDArray[np.float32] = self._ask_member("next_token", member, docs, tokens)
        return distribution

    def excerpts(self, docs: pl.Series, first: int, tokens: int) -> pl.Series:
        """Return the text of tokens ``first`` to ``first + tokens`` of each document; shorter ones are left out."""
        texts: pl.Series = self.ask("excerpts", docs, first, tokens)
        return texts

    def watermark(self, docs: pl.Series, mark: WatermarkSpec) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Detect a watermark; return z-scores and numbers of scored tokens, [documents] each."""
        z, scored = self.ask("watermark", docs, mark)
        return z, scored

    def radioactivity(self, member: Member, docs: pl.Series, mark: WatermarkSpec, contexts: int) -> Radioactivity:
        """Test whether a member has learnt from watermarked text, by its predictions after unmarked text."""
        test: Radioactivity = self._ask_member("radioactivity", member, docs, mark, contexts)
        return test

    def _ask_member(self, method: str, member: Member, *arguments: Any) -> Any:
        """Return the answer of a member where it is, or of the weights that members start from, which are anywhere."""
        if not isinstance(member, int):
            return self.ask(method, member, *arguments)
        [answer] = self.map_members(_answer, [member], (method, *arguments), [()])
        return answer


class PlacedDescribedCohort(PlacedCohort):
    """A placed cohort of models whose parameters can be compared with the truth."""

    def describe(self, truth: Truth) -> dict[str, NDArray[np.float64]]:
        """Return the value of each metric for every member, shape [members] each; NaN if a member has no value."""
        described = self._workers.run([Call(part, "ask", ("describe", truth)) for part in self.parts])
        values = {name: np.full(self.members, np.nan) for part in described for name in part}
        for part, found in zip(self.parts, described, strict=True):
            for name, array in found.items():
                values[name][part.first : part.first + part.members] = array
        return values


def _answer(cohort: Any, member: int, method: str, *arguments: Any) -> Any:
    return getattr(cohort, method)(member, *arguments)


def _renumbered(request: R, part: Part) -> R:
    return replace(request, member=request.member - part.first) if isinstance(request.member, int) else request


class Placement:
    """Builds the cohorts of a run in the workers of a cluster."""

    def __init__(self, workers: Workers) -> None:
        self._workers = workers
        self._placed = 0  # members so far, so that small cohorts do not all begin with the first worker
        self._human: tuple[pl.Series, Any] | None = None

    def cohort(self, family: Family, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M members, divided evenly among the workers.

        The first part makes or reads the foundation; the other machines get it through the object store, unless they
        have it in their cache.
        """
        self._workers.start()
        parts = self._parts(name, members)
        human, table = self._documents(context.human)
        folders: list[Any] = []
        built: Built | None = None
        for part in parts:
            plan = Blueprint(
                family,
                name,
                part.members,
                part.first,
                context.streams,
                context.device,
                context.threads,
                context.cache,
                context.part_tokens,
                max(1, int(self._workers.spec.gpus_per_worker)),
            )
            part.building = [Call(part, "build", (plan, human, folders), shared=table)]
            if built is None:
                built = self._workers.build([part], context.progress)[0]
                if built.folders and len({process.machine for process in self._workers.processes}) > 1:
                    folders.append(self._workers.reference(Call(part, "folders", (context.cache, built.folders))))
        self._workers.build(parts[1:], context.progress)
        assert built is not None
        kind = PlacedTextCohort if family.modality == "text" else PlacedDescribedCohort if built.describes else None
        return (kind or PlacedCohort)(self._workers, name, members, parts, built)

    def _parts(self, name: str, members: int) -> list[Part]:
        count, first = min(self._workers.count, members), self._placed
        sizes = [len(part) for part in np.array_split(np.arange(members), count)]
        starts = np.concatenate([[0], np.cumsum(sizes)]).tolist()
        self._placed += members
        return [
            Part(name, (first + i) % self._workers.count, start, size)
            for i, (start, size) in enumerate(zip(starts[:-1], sizes, strict=True))
        ]

    def _documents(self, human: pl.Series) -> tuple[Any, Any]:
        """Return the human documents as an argument of calls, and a reference to the table of their texts."""
        if human.dtype != pl.String:
            return human, None
        if self._human is None or self._human[0] is not human:
            self._human = human, self._workers.put((encoded(human), []))
        return Rows(np.arange(human.len(), dtype=np.int32)), self._human[1]
