"""Cohorts of n-gram models: counting, generation and scoring.

Everything runs on the CPU, whatever the device, and gives the same numbers for any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import Progress, of_member, silent
from ecosystem.families.language import scoring
from ecosystem.families.language.cohort import CohortSettings, LanguageCohort, Nll
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.ngram.counts import (
    NO_COUNTS,
    Counts,
    NgramSettings,
    Table,
    columns_of,
    keys_of,
    require_keys,
)
from ecosystem.families.language.ngram.decoder import CountDecoder
from ecosystem.families.requests import FitRecord, FitRequest, Member, Score, ScoreRequest
from ecosystem.families.training import positive_weights
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.types import Floats, Ints

_NEGLIGIBLE = 1e-6  # smaller remembered counts are dropped; otherwise the n-grams of all steps would be kept forever
_ROW_VALUES = (
    128  # cached values per token of the vocabulary, so that about 500 rows of 1024 tokens are written at once
)


class CountCohort(LanguageCohort):
    """M n-gram models."""

    def __init__(self, settings: CohortSettings, ngrams: NgramSettings, human: pl.Series, threads: int) -> None:
        """``human``: documents (possibly none) whose counts all members start from.

        Raises DataError if the tokenizer has too many tokens for the order.
        """
        vocabulary = settings.tokenizer.size
        try:
            require_keys(vocabulary, ngrams.order)
        except ValueError as error:
            raise DataError(f'model "{settings.name}": {error}.') from error
        super().__init__(
            settings,
            device="cpu",
            workers=(threads, 1),
            stacks=True,
            cached_values=max(1, _ROW_VALUES * vocabulary // settings.context),
        )
        self.ngrams = ngrams
        self._initial = self._count(self.tokenizer.encode(human), np.ones(len(human)))
        self._initial_table = self._table(self._initial)
        self._counts = [self._initial] * self.members
        self._tables = [self._initial_table] * self.members

    def state(self) -> dict[str, NDArray[Any]]:
        """Return the n-grams and counts of every member, as separate arrays."""
        return {
            name: array
            for member, counts in enumerate(self._counts)
            for name, array in zip(self._names(member), (counts.keys, counts.values), strict=True)
        }

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError if it belongs to another order or vocabulary."""
        if set(state) != {name for member in range(self.members) for name in self._names(member)}:
            raise self._mismatch(f"the stored arrays are {', '.join(sorted(state)[:4])} …")
        loaded = []
        for member in range(self.members):
            keys, values = (state[name] for name in self._names(member))
            well_formed = keys.dtype == np.int64 and values.dtype == np.float64 and keys.ndim == 1
            if not (well_formed and keys.shape == values.shape and (np.diff(keys, prepend=-1) > 0).all()):
                raise self._mismatch(f"those of member {member} are not a list of n-grams with their counts")
            if len(keys) and keys[-1] // self.tokenizer.size ** (self.ngrams.order - 1) >= self.tokenizer.size:
                raise self._mismatch(f"member {member} has tokens beyond the vocabulary of {self.tokenizer.size}")
            if not (np.isfinite(values) & (values > 0)).all():
                raise self._mismatch(f"a count of member {member} is not a number above 0")
            loaded.append(Counts(np.array(keys), np.array(values)))
        self._counts, self._tables = loaded, [self._table(counts) for counts in loaded]

    def _names(self, member: int) -> tuple[str, str]:
        return f"{member}/{self.ngrams.order}-grams", f"{member}/counts"

    def _mismatch(self, reason: str) -> DataError:
        return DataError(
            f'the stored counts of model "{self.name}" do not fit: {reason}; '
            "they belong to another preset or another number of members."
        )

    def save_assets(self, folder: Path) -> None:
        """Write the tokenizer's files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder, self.context)

    # Counting.

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Count the documents of each request; budget and learning rate are ignored.

        Raises MemberError (a TrainingError) if there is nothing to count; no counts are changed then.
        """
        self._check_fit(requests)
        # Not inside the jobs: the tokenizer's cache is not thread-safe.
        encoded = [self.tokenizer.encode(request.docs) for request in requests]
        for request in requests:
            with of_member(request.member, " cannot be trained"):
                positive_weights(len(request.docs), request.weight)
        total = sum(len(ids) + 1 for tokens in encoded for ids in tokens)
        with WorkerPool(*self._workers) as pool:
            pairs = zip(requests, encoded, strict=True)
            jobs = [partial(self._fit_one, request, tokens, pool.report) for request, tokens in pairs]
            fitted = pool.run(jobs, "fit", total, progress)
        for request, (counts, table, _) in zip(requests, fitted, strict=True):
            self._counts[request.member], self._tables[request.member] = counts, table
        return [record for _, _, record in fitted]

    def _fit_one(
        self, request: FitRequest, tokens: Sequence[NDArray[np.int32]], report: Callable[[int], None]
    ) -> tuple[Counts, Table, FitRecord]:
        began = perf_counter()
        weight, positive = positive_weights(len(tokens), request.weight)
        new = self._count([tokens[i] for i in positive.tolist()], weight[positive])
        counts = self._with_memory(request, new)
        table = self._table(counts)
        log_p = table.log_probability(*columns_of(new.keys, self.ngrams.order, self.tokenizer.size))
        total = int(sum(len(tokens[i]) + 1 for i in positive.tolist()))
        report(total)
        return counts, table, FitRecord(total, float(np.average(-log_p, weights=new.values)), perf_counter() - began)

    def _count(self, tokens: Sequence[NDArray[np.int32]], weight: Floats) -> Counts:
        unit, offsets = scoring.units(tokens, self.tokenizer.end)
        before = self._before(unit, offsets)
        return Counts.of(keys_of([*before, unit], self.tokenizer.size), np.repeat(weight, np.diff(offsets)))

    def _before(self, unit: Ints, offsets: Ints) -> list[Ints]:
        """Return the order - 1 tokens before every unit, oldest first; ends of text precede every document."""
        position = np.arange(len(unit)) - np.repeat(offsets[:-1], np.diff(offsets))  # of a token in its document
        lags = range(self.ngrams.order - 1, 0, -1)
        return [np.where(position >= lag, np.roll(unit, lag), self.tokenizer.end) for lag in lags]

    def _table(self, counts: Counts) -> Table:
        return Table.of(counts, self.ngrams, self.tokenizer.size, self.tokenizer.end)

    def _with_memory(self, request: FitRequest, new: Counts) -> Counts:
        """Add the remembered share of the starting counts to new counts."""
        start = {"foundation": self._initial, "previous": self._counts[request.member], "scratch": NO_COUNTS}
        old = start[request.start]
        values = self.ngrams.memory * old.values
        relevant = values > _NEGLIGIBLE
        if not relevant.any():
            return new
        return Counts.of(np.append(old.keys[relevant], new.keys), np.append(values[relevant], new.values))

    # Generation and scoring.

    def _table_of(self, member: Member) -> Table:
        if member == "initial":
            return self._initial_table
        return self._table(NO_COUNTS) if member == "random" else self._tables[member]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents, one Score per request, without windows unless there are prompts."""
        return [super(CountCohort, self).score([r])[0] if r.prompts is not None else self._score(r) for r in requests]

    def _score(self, request: ScoreRequest) -> Score:
        unit, offsets = scoring.units(self.tokenizer.encode(request.docs), self.tokenizer.end)
        log_p = self._table_of(request.member).log_probability(self._before(unit, offsets), unit)
        return Score((-log_p).astype(np.float32).astype(np.float64), unit, offsets)

    def _parts(self, n: int, max_rows: int) -> int:
        # Rows are computed independently here, so the split may depend on the number of threads.
        return max(self._workers[0], -(-n // max_rows))

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        return CountDecoder([self._table_of(member) for member in members], rows, self.ngrams.order, self.tokenizer.end)

    def _nll(self, member: Member) -> Nll:
        table = self._table_of(member)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            ids, selected = inputs.numpy(), scored.numpy()
            padded = np.pad(ids, [(0, 0), (self.ngrams.order - 1, 0)], constant_values=self.tokenizer.end)
            before = [padded[:, lag : lag + ids.shape[1]][selected] for lag in range(1, self.ngrams.order)]
            return torch.from_numpy(-table.log_probability(before, targets.numpy()[selected]))

        return nll
