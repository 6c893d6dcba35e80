"""Cohorts of n-gram models: what members have counted, and the distributions that follow from it.

All that a member learns is how often each sequence of ``order`` tokens occurs, with ``order`` - 1 ends of text before
every document, so that each token of a document is the last of one n-gram. Shorter n-grams are sums over longer ones.
Probabilities are computed once per fit, in back-off form: the log-probability of every n-gram that was seen, and per
context the log of what it leaves to the distribution below it (that of the shorter context, or the uniform one). The
distribution after a context is then one row of the vocabulary, shifted, with the few seen tokens written over it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import (
    FitRecord,
    FitRequest,
    Member,
    MemberError,
    Progress,
    Score,
    ScoreRequest,
    Surroundings,
)
from ecosystem.families.language import scoring
from ecosystem.families.language.cohort import LanguageCohort, Nll
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.ngram import require_keys
from ecosystem.families.language.packing import Batches
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import Crew

if TYPE_CHECKING:
    from ecosystem.families.language.ngram import Ngram

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

# Log-probability of the impossible where logits have to be finite; exp() of it is 0 at any temperature one would use.
_LOWEST = np.finfo(np.float32).min
_FADED = 1e-6  # a remembered count below this is forgotten, or the n-grams of all steps would be kept for ever
_ROW_VALUES = 128  # per token of the vocabulary, in the units of LanguageCohort: about 500 rows of 1024 tokens at once


@dataclass(frozen=True)
class Counts:
    """How often each n-gram occurs: ``keys`` [n-grams] ascending, ``values`` [n-grams] above 0.

    The key of an n-gram is the number whose digits, to the base of the vocabulary's size, are its tokens.
    """

    keys: Ints
    values: Floats

    @classmethod
    def of(cls, keys: Ints, values: Floats) -> Counts:
        """Add up the values of equal keys."""
        if len(values) and (values == 1).all():  # no sum of ones depends on its order
            unique, count = np.unique(keys, return_counts=True)
            return cls(unique, count.astype(np.float64))
        unique, place = np.unique(keys, return_inverse=True)
        return cls(unique, np.bincount(place, weights=values).astype(np.float64))


NOTHING = Counts(np.zeros(0, np.int64), np.zeros(0, np.float64))


@dataclass(frozen=True)
class Level:
    """Probabilities of n-grams of one length (at least 2), as natural logarithms.

    The n-grams of context i are ``grams[start[i] : start[i] + size[i]]``. Contexts and n-grams are keys, ascending;
    ``log_p`` is that of an n-gram's last token, ``log_rest`` what a context leaves to the distribution below it.
    """

    contexts: Ints
    start: Ints
    size: Ints
    log_rest: Floats
    grams: Ints
    log_p: Floats


@dataclass(frozen=True)
class Table:
    """One member's distributions: ``first`` [vocabulary] after no context, and a level per length from 2 up.

    ``chained``: below a context is its shorter one, else the uniform distribution.
    """

    first: Floats
    levels: tuple[Level, ...]
    chained: bool

    @classmethod
    def of(cls, counts: Counts, family: Ngram, vocabulary: int, end: int) -> Table:
        """Compute the probabilities that follow from counts; without any, every token is alike."""
        chained = family.smoothing == "kneser_ney"
        if not len(counts.keys):
            return cls(np.full(vocabulary, -np.log(vocabulary)), (), chained)
        grams, raw, used = counts.keys, counts.values, counts.values
        longer: list[tuple[Ints, Floats, Ints]] = []  # n-grams, counts used, and the place of the n-gram one shorter
        for length in range(family.order - 1, 0, -1):
            shorter, place = np.unique(grams % vocabulary**length, return_inverse=True)
            longer.append((grams, used, place))
            raw = used = np.bincount(place, weights=raw).astype(np.float64)
            if chained:
                # How many different tokens it follows; before the beginning of a document there is only the end.
                first = shorter // vocabulary ** (length - 1)
                used = np.where((first == end) & (length > 1), raw, np.bincount(place))
            grams = shorter
        share, rest = _shares(used, np.zeros(1, np.int64), np.array([len(used)]), family, vocabulary)
        first_p = np.full(vocabulary, rest[0] / vocabulary)
        first_p[grams] += share
        levels, p = [], first_p[grams]
        with np.errstate(divide="ignore"):  # the log of an impossible token is minus infinity
            for grams, used, place in reversed(longer):
                start = np.flatnonzero(np.diff(grams // vocabulary, prepend=-1))
                size = np.diff(start, append=len(grams))
                share, rest = _shares(used, start, size, family, vocabulary)
                p = share + np.repeat(rest, size) * (p[place] if chained else 1 / vocabulary)
                levels.append(Level(grams[start] // vocabulary, start, size, np.log(rest), grams, np.log(p)))
            return cls(np.log(first_p), tuple(levels), chained)

    def log_probability(self, history: Sequence[Ints], tokens: Ints) -> Floats:
        """Return the log-probability of each of ``tokens`` [N] after a history: the tokens before, oldest first."""
        vocabulary = len(self.first)
        found = self.first[tokens]
        context, place = np.zeros(len(tokens), np.int64), 1
        for level, before in zip(self.levels, reversed(history), strict=False):
            context, place = context + before * place, place * vocabulary
            at = _find(level.contexts, context)
            below = found if self.chained else -np.log(vocabulary)
            found = np.where(at >= 0, level.log_rest[at] + below, found)
            at = _find(level.grams, context * vocabulary + tokens)
            found = np.where(at >= 0, level.log_p[at], found)
        return found


def _shares(counts: Floats, start: Ints, size: Ints, family: Ngram, vocabulary: int) -> tuple[Floats, Floats]:
    """Return each n-gram's own share of its context's probability, and the rest that every context leaves."""
    total = np.add.reduceat(counts, start)
    rest = np.zeros(len(start))
    if family.k is not None:
        total = total + family.k * vocabulary
        rest = family.k * vocabulary / total
    elif family.smoothing == "kneser_ney":
        taken = np.minimum(counts, 0.75 if family.discount is None else family.discount)
        counts, rest = counts - taken, np.add.reduceat(taken, start) / total
    return counts / np.repeat(total, size), rest


def _find(ascending: Ints, keys: Ints) -> Ints:
    """Return the place of each key, -1 where it is missing."""
    at = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return np.where(ascending[at] == keys, at, -1)


def _keys(columns: Sequence[Ints], vocabulary: int) -> Ints:
    """Return the keys of n-grams given column by column, the oldest token first."""
    keys = columns[0]
    for column in columns[1:]:
        keys = keys * vocabulary + column
    return keys


class CountCohort(LanguageCohort):
    """M n-gram models; ``fingerprint`` names what they start from.

    Counting, writing and scoring run on the CPU whatever the device, and give the same numbers for any thread count.
    """

    def __init__(
        self, name: str, members: int, family: Ngram, tokenizer: Tokenizer, around: Surroundings, fingerprint: str = ""
    ) -> None:
        """Count the human documents if the members start from the foundation; DataError if their keys overflow."""
        super().__init__(
            name,
            members,
            tokenizer,
            family.context,
            Training(),
            replace(around, device="cpu"),
            (around.threads, 1),
            True,
            fingerprint,
            cached_values=max(1, _ROW_VALUES * tokenizer.size // family.context),
        )
        try:
            require_keys(tokenizer.size, family.order)
        except ValueError as error:
            raise DataError(f'model "{name}": {error}.') from error
        self.family = family
        human = around.human if family.init == "foundation" else around.human.clear()
        self._initial = self._count(tokenizer.encode(human), np.ones(len(human)))
        self._initial_table = self._table(self._initial)
        self._counts = [self._initial] * members
        self._tables = [self._initial_table] * members

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's n-grams and their counts, each an array of its own length."""
        return {
            name: array
            for member, counts in enumerate(self._counts)
            for name, array in zip(self._names(member), (counts.keys, counts.values), strict=True)
        }

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError if it belongs to another order or vocabulary."""
        if set(state) != {name for member in range(self.members) for name in self._names(member)}:
            raise self._misfit(f"there are {', '.join(sorted(state)[:4])} …")
        loaded = []
        for member in range(self.members):
            keys, values = (state[name] for name in self._names(member))
            sound = keys.dtype == np.int64 and values.dtype == np.float64 and keys.ndim == 1
            if not (sound and keys.shape == values.shape and (np.diff(keys, prepend=-1) > 0).all()):
                raise self._misfit(f"those of member {member} are no list of n-grams with their counts")
            if len(keys) and keys[-1] // self.tokenizer.size ** (self.family.order - 1) >= self.tokenizer.size:
                raise self._misfit(f"member {member} knows tokens beyond the vocabulary of {self.tokenizer.size}")
            if not (np.isfinite(values) & (values > 0)).all():
                raise self._misfit(f"a count of member {member} is not a number above 0")
            loaded.append(Counts(np.array(keys), np.array(values)))
        self._counts, self._tables = loaded, [self._table(counts) for counts in loaded]

    def _names(self, member: int) -> tuple[str, str]:
        return f"{member}/{self.family.order}-grams", f"{member}/counts"

    def _misfit(self, why: str) -> DataError:
        return DataError(
            f'the stored counts of model "{self.name}" do not fit: {why}; '
            "they belong to another preset or another number of members."
        )

    # Counting.

    def _count(self, tokens: Sequence[NDArray[np.int32]], weight: Floats) -> Counts:
        unit, offsets = scoring.units(tokens, self.tokenizer.end)
        before = self._before(unit, offsets)
        return Counts.of(_keys([*before, unit], self.tokenizer.size), np.repeat(weight, np.diff(offsets)))

    def _before(self, unit: Ints, offsets: Ints) -> list[Ints]:
        """Return the order - 1 tokens before every unit of documents, oldest first; before a document, ends of text."""
        place = np.arange(len(unit)) - np.repeat(offsets[:-1], np.diff(offsets))  # of a token in its document
        lags = range(self.family.order - 1, 0, -1)
        return [np.where(place >= lag, np.roll(unit, lag), self.tokenizer.end) for lag in lags]

    def _table(self, counts: Counts) -> Table:
        return Table.of(counts, self.family, self.tokenizer.size, self.tokenizer.end)

    def _fit(
        self, requests: Sequence[FitRequest], packings: Sequence[Batches], peaks: Sequence[float], progress: Progress
    ) -> list[FitRecord]:
        # The packings have found documents and weights to be sound; batches and rates mean nothing to counts.
        for request in requests:
            if request.prompts is not None:
                raise MemberError(request.member, f"member {request.member} counts documents and learns no answers.")

        def job(request: FitRequest, tokens: Sequence[NDArray[np.int32]]) -> tuple[Counts, Table, FitRecord]:
            began = perf_counter()
            weight = np.asarray(request.weight, dtype=np.float64)
            kept = np.flatnonzero(weight > 0)
            new = self._count([tokens[i] for i in kept.tolist()], weight[kept])
            counts = self._remembered(request, new)
            table = self._table(counts)
            log_p = table.log_probability(*self._columns(new.keys))
            seen = int(sum(len(tokens[i]) + 1 for i in kept.tolist()))
            crew.report(seen)
            return counts, table, FitRecord(seen, float(np.average(-log_p, weights=new.values)), perf_counter() - began)

        # Not inside the jobs: the tokenizer's memory is not meant for several threads.
        encoded = [self.tokenizer.encode(request.docs) for request in requests]
        total = sum(len(ids) + 1 for tokens in encoded for ids in tokens)
        with Crew(*self._crew) as crew:
            pairs = zip(requests, encoded, strict=True)
            jobs = [lambda pair=pair: job(*pair) for pair in pairs]
            done = crew.run(jobs, "fit", total, progress)
        for request, (counts, table, _) in zip(requests, done, strict=True):
            self._counts[request.member], self._tables[request.member] = counts, table
        return [record for _, _, record in done]

    def _remembered(self, request: FitRequest, new: Counts) -> Counts:
        """Add to new counts what is remembered of those that the fit starts from."""
        start = {"foundation": self._initial, "previous": self._counts[request.member], "scratch": NOTHING}
        old = start[request.start]
        values = self.family.memory * old.values
        kept = values > _FADED
        if not kept.any():
            return new
        return Counts.of(np.append(old.keys[kept], new.keys), np.append(values[kept], new.values))

    def _columns(self, keys: Ints) -> tuple[list[Ints], Ints]:
        """Return the tokens of n-grams, column by column, and apart from them the last."""
        powers = [self.tokenizer.size**place for place in range(self.family.order)]
        *before, last = [keys // power % self.tokenizer.size for power in reversed(powers)]
        return before, last

    # Writing and scoring.

    def _of(self, member: Member) -> Table:
        if member == "initial":
            return self._initial_table
        return self._table(NOTHING) if member == "random" else self._tables[member]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents as every language model does, but whole: no window is too long for counts."""
        return [super(CountCohort, self).score([r])[0] if r.prompts is not None else self._score(r) for r in requests]

    def _score(self, request: ScoreRequest) -> Score:
        unit, offsets = scoring.units(self.tokenizer.encode(request.docs), self.tokenizer.end)
        log_p = self._of(request.member).log_probability(self._before(unit, offsets), unit)
        return Score((-log_p).astype(np.float32).astype(np.float64), unit, offsets)

    def _parts(self, n: int, most: int) -> int:
        # Rows have nothing in common here, so that their number may follow that of the threads.
        return max(self._crew[0], -(-n // most))

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        return CountDecoder([self._of(member) for member in members], rows, self.family.order, self.tokenizer.end)

    def _nll(self, member: Member) -> Nll:
        table = self._of(member)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            ids, where = inputs.numpy(), scored.numpy()
            padded = [(0, 0), (self.family.order - 1, 0)]
            wide = np.pad(ids, padded, constant_values=self.tokenizer.end)
            before = [wide[:, lag : lag + ids.shape[1]][where] for lag in range(1, self.family.order)]
            return torch.from_numpy(-table.log_probability(before, targets.numpy()[where]))

        return nll


@dataclass(frozen=True)
class _Rows:
    """A level of several members' tables in one: contexts are keys behind the number of the table."""

    contexts: Ints
    start: Ints
    size: Ints
    log_rest: NDArray[np.float32]
    tokens: Ints
    log_p: NDArray[np.float32]

    @classmethod
    def of(cls, tables: Sequence[Table], lag: int, vocabulary: int) -> _Rows | None:
        levels = [(number, table.levels[lag - 1]) for number, table in enumerate(tables) if table.levels]
        if not levels:
            return None
        before = np.cumsum([0, *(len(level.grams) for _, level in levels)])
        return cls(
            np.concatenate([number * vocabulary**lag + level.contexts for number, level in levels]),
            np.concatenate([n + level.start for n, (_, level) in zip(before, levels, strict=False)]),
            np.concatenate([level.size for _, level in levels]),
            _logits(np.concatenate([level.log_rest for _, level in levels])),
            np.concatenate([level.grams % vocabulary for _, level in levels]),
            _logits(np.concatenate([level.log_p for _, level in levels])),
        )


def _logits(log_p: Floats) -> NDArray[np.float32]:
    return np.maximum(log_p, _LOWEST).astype(np.float32)


class CountDecoder:
    """Rows of documents of several members, equally many each, member by member."""

    def __init__(self, tables: Sequence[Table], rows: int, order: int, end: int) -> None:
        """``rows`` is how many documents each of the tables writes."""
        self._vocabulary, self._end, self._order = len(tables[0].first), end, order
        self._chained = tables[0].chained
        uniform = np.full(self._vocabulary, -np.log(self._vocabulary))
        self._first = _logits(np.stack([*(table.first for table in tables), uniform]))
        self._levels = [_Rows.of(tables, lag, self._vocabulary) for lag in range(1, order)]
        self._table = np.repeat(np.arange(len(tables)), rows)  # whose each row is
        self._history = np.zeros((0, 0), np.int64)  # [order - 1, rows], oldest first
        self._logits = np.empty((len(self._table), self._vocabulary), np.float32)

    def begin(self, ids: Tensor) -> Tensor:
        """Take the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        ends = np.full((self._order - 1, len(ids)), self._end)
        self._history = np.concatenate([ends, ids.numpy().T])[ids.shape[1] :]
        return self._row()

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Take the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        self._history = np.concatenate([self._history, ids.numpy()[None]])[1:]
        return self._row()

    def keep(self, rows: Tensor, used: int) -> None:
        """Go on with these rows only (an index tensor), of which ``used`` positions have been taken."""
        kept = rows.numpy()
        self._table, self._history = self._table[kept], self._history[:, kept]

    def _row(self) -> Tensor:
        """Return the log-probabilities after every row's history, which the next call overwrites."""
        vocabulary, rows = self._vocabulary, len(self._table)
        found: list[tuple[_Rows, Ints]] = []
        context, place = np.zeros(rows, np.int64), 1
        for level, before in zip(self._levels, self._history[::-1], strict=True):
            context, place = context + before * place, place * vocabulary
            if level is not None:
                found.append((level, _find(level.contexts, self._table * place + context)))
        base = self._table
        if not self._chained:  # only the longest context that occurred counts, and below it the uniform distribution
            longer = np.zeros(rows, dtype=bool)
            for _, at in reversed(found):
                at[longer] = -1
                longer |= at >= 0
            base = np.where(longer, len(self._first) - 1, base)
        left = np.zeros(rows, np.float32)  # log of what the longer contexts leave to the level at hand
        written = []
        for level, at in reversed(found):
            here = np.flatnonzero(at >= 0)
            at = at[here]
            size = level.size[at]
            after = np.cumsum(size)
            # All that follows has a row per entry or per token of the vocabulary: added to in place, taken into memory
            # that is there.
            entry = np.repeat(level.start[at] - after + size, size)
            entry += np.arange(len(entry))
            cell, log_p = level.tokens.take(entry), level.log_p.take(entry)
            cell += np.repeat(here * vocabulary, size)
            log_p += np.repeat(left[here], size)
            written.append((cell, log_p))
            left[here] += level.log_rest[at]
        logits = self._logits[:rows]
        np.take(self._first, base, axis=0, out=logits, mode="clip")
        logits += left[:, None]
        flat = logits.reshape(-1)
        for cell, log_p in reversed(written):  # the longest context has the last word
            flat[cell] = log_p
        return torch.from_numpy(logits)
