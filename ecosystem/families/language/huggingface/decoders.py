"""Decoders of transformers modules, and a short trial that selects the fastest one that is exact for a module."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import polars as pl
import torch
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.tokenizer import SENTENCES, Tokenizer

_TRIED_TOKENS = 16  # of each sentence, the end-of-text token before it included
_LEAK = 1e-4  # change of a logit caused by later tokens, in standard deviations of the logits; a causal model has none
# Error of cached logits in the same unit: rounding, in float32 and in bfloat16.
_ROUNDING = {"cpu": 1e-3, "cuda": 0.05}


class Runs(Protocol):
    """What decoders need of a cohort: a module with its current weights."""

    tokenizer: Tokenizer
    context: int
    device: torch.device
    divided: bool
    module: Any
    name: str

    def forward(self, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Return the logits of ids that follow those in ``cache``, and the longer cache."""

    def logits(self, ids: Tensor) -> Tensor:
        """Return the logits of all positions, without a cache."""


class CachedDecoder:
    """A decoder that caches keys and values, and drops those of rows that have ended."""

    def __init__(self, module: Runs) -> None:
        self._module = module
        self._cache: Any = None

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        return self._logits(ids)

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        return self._logits(ids.unsqueeze(1))

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor)."""
        # An index on the CPU selects from keys and values on every GPU.
        self._cache.batch_select_indices(rows.cpu() if self._module.divided else rows)

    def _logits(self, ids: Tensor) -> Tensor:
        logits, self._cache = self._module.forward(ids, self._cache)
        return logits[:, -1].float()


class UncompactedDecoder(CachedDecoder):
    """A decoder for caches from which no rows can be dropped: rows that have ended repeat their last token."""

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        self._last, self._rows = ids[:, -1], torch.arange(len(ids), device=ids.device)
        return self._logits(ids)

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        self._last = self._last.index_copy(0, self._rows, ids)
        return self._logits(self._last.unsqueeze(1))[self._rows]

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor)."""
        self._rows = self._rows[rows]


class UncachedDecoder:
    """A decoder that reads every row from its beginning at every token, for modules without a usable cache."""

    def __init__(self, module: Runs) -> None:
        self._module = module

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        self._ids = ids
        return self._module.logits(ids)[:, -1].float()

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        return self.begin(torch.cat([self._ids, ids.unsqueeze(1)], 1))

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor)."""
        self._ids = self._ids[rows]


def fastest_decoder(module: Runs) -> type[CachedDecoder | UncachedDecoder]:
    """Try a module on two sentences; return the first decoder that agrees with a pass over all tokens.

    Raises DataError if logits are not finite, depend on later tokens, or differ from pass to pass. Draws no random
    numbers.
    """
    with torch.no_grad():
        ids = token_rows(module)
        logits = _causal_logits(module, ids)
        for decoder in (CachedDecoder, UncompactedDecoder, UncachedDecoder):
            if _agrees(decoder, module, ids, logits):
                return decoder
    raise DataError(f"{_described(module)} computes different logits for the beginning of a text than for all of it.")


def token_rows(module: Runs) -> Tensor:
    """Return the first tokens of two sentences after the end of text, repeated as needed, [2, T]."""
    end, length = [module.tokenizer.end], min(module.context, _TRIED_TOKENS)
    rows = [np.resize([*end, *ids], length) for ids in module.tokenizer.encode(pl.Series(SENTENCES))]
    return torch.from_numpy(np.stack(rows).astype(np.int64)).to(module.device)


def _causal_logits(module: Runs, ids: Tensor) -> Tensor:
    """Return the logits [2, T, V] of a module; raise DataError if it is not causal or they are not finite."""
    try:
        logits = module.logits(ids).float()
    except Exception as error:  # transformers and modules outside it raise many types
        reason = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
        raise DataError(f"{_described(module)} cannot compute the logits of two sentences ({reason}).") from error
    if not torch.isfinite(logits).all():
        raise DataError(f"{_described(module)} computes logits that are not finite; its checkpoint is damaged.")
    half = ids.shape[1] // 2
    changed = ids.clone()
    changed[:, half:] = (changed[:, half:] + 1) % module.tokenizer.size
    leak = (module.logits(changed).float() - logits)[:, :half].abs().max()
    if leak > _LEAK * logits.std():
        raise DataError(
            f"{_described(module)} is not causal: later tokens change the prediction of earlier ones. Use a causal "
            "model; BERT and its relatives are causal with is_decoder = true in their configuration, if they were "
            "trained so."
        )
    return logits


def _agrees(decoder: type[CachedDecoder | UncachedDecoder], module: Runs, ids: Tensor, logits: Tensor) -> bool:
    """Whether a decoder gives the logits [2, T, V]; after two thirds of the tokens, only the second row goes on."""
    length = ids.shape[1]
    read, last = max(1, length // 3), max(1, 2 * length // 3)
    differences = []
    try:
        writing: Decoder = decoder(module)
        differences.append(writing.begin(ids[:, :read]) - logits[:, read - 1])
        for position in range(read, length):
            if position == last:
                writing.keep(torch.tensor([1], device=ids.device), position)
                ids, logits = ids[1:], logits[1:]
            differences.append(writing.step(ids[:, position], position) - logits[:, position])
    except Exception:  # caches that cannot be used fail in as many ways as there are architectures
        return False
    tolerance = _ROUNDING.get(module.device.type, 1e-2) * logits.std()
    return all(bool(difference.abs().max() <= tolerance) for difference in differences)


def _described(module: Runs) -> str:
    return f'model "{module.name}" ({type(module.module).__name__})'
