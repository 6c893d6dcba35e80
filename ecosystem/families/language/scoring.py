"""Scoring: the negative log-likelihood of every token of documents; long ones are scored in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ecosystem.families.language.packing import sequence
from ecosystem.families.requests import Score

ScoreIndex = tuple[NDArray[np.int64], NDArray[np.int64]]
"""``unit`` and ``offsets`` of a Score."""


@dataclass(frozen=True)
class Window:
    """Part of one document: inputs ``ids`` and the tokens after them, ``targets``; the first ``skip`` are not scored.

    ``place`` is the position in ``Score.nll`` of the first scored target.
    """

    ids: NDArray[np.int32]
    targets: NDArray[np.int32]
    skip: int
    place: int


@dataclass(frozen=True)
class Padded:
    """A batch of windows: ``inputs`` and ``targets`` (int64) and ``scored`` (bool), [rows, length] each.

    ``place[j]`` is the position in ``Score.nll`` of the j-th scored target, in row order.
    """

    inputs: NDArray[np.int64]
    targets: NDArray[np.int64]
    scored: NDArray[np.bool_]
    place: NDArray[np.int64]


def units(tokens: Sequence[NDArray[np.int32]], end: int) -> ScoreIndex:
    """Return ``unit`` and ``offsets`` of a Score: the tokens and the end of text of every document."""
    end_of_text = np.array([end], dtype=np.int32)
    pieces = [piece for document in tokens for piece in (document, end_of_text)]
    unit = np.concatenate(pieces).astype(np.int64) if pieces else np.zeros(0, dtype=np.int64)
    offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(document) + 1 for document in tokens], out=offsets[1:])
    return unit, offsets


def windows(unit: NDArray[np.int64], offsets: NDArray[np.int64], end: int, context: int) -> list[Window]:
    """Split documents into windows of at most ``context`` inputs.

    The first window begins with the end-of-text token that precedes every document. Windows overlap by half the
    context, so that every token after the first window is predicted from at least half a context.
    """
    result = []
    unit = unit.astype(np.int32)
    for begin, stop in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ids = np.concatenate([np.array([end], dtype=np.int32), unit[begin:stop]])
        total, scored = stop - begin, 0
        while scored < total:
            first = 0 if scored == 0 else max(0, min(scored - context + max(1, context // 2), total - context))
            last = min(first + context, total)
            result.append(Window(ids[first:last], ids[first + 1 : last + 1], scored - first, begin + scored))
            scored = last
    return result


def answers(
    prompts: Sequence[NDArray[np.int32]],
    unit: NDArray[np.int64],
    offsets: NDArray[np.int64],
    end: int,
    context: int,
) -> list[Window]:
    """Return one window per document, which contains its prompt and in which only the document is scored.

    The first tokens of a prompt that exceeds ``context`` are dropped. Raises TrainingError if a document alone does not
    fit.
    """
    result = []
    for prompt, begin, stop in zip(prompts, offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        ids = sequence(prompt, unit[begin : stop - 1].astype(np.int32), end, context)
        result.append(Window(ids[:-1], ids[1:], len(ids) - 1 - (stop - begin), begin))
    return result


def padded(parts: Sequence[Window], tokens: int) -> list[Padded]:
    """Group windows of similar length into batches of at most ``tokens`` positions (or one window)."""
    batches = []
    order = sorted(range(len(parts)), key=lambda i: len(parts[i].ids))
    while order:
        # The longest window sets the width of a batch, so batches are formed from the longest down.
        width = len(parts[order[-1]].ids)
        rows = max(1, tokens // width)
        chosen, order = order[-rows:], order[:-rows]
        batches.append(_pad([parts[i] for i in chosen], width))
    return batches


def _pad(group: Sequence[Window], width: int) -> Padded:
    inputs = np.zeros((len(group), width), dtype=np.int64)
    targets, scored = inputs.copy(), np.zeros(inputs.shape, dtype=bool)
    positions = []
    for row, part in enumerate(group):
        n = len(part.ids)
        inputs[row, :n], targets[row, :n], scored[row, part.skip : n] = part.ids, part.targets, True
        positions.append(np.arange(part.place, part.place + n - part.skip))
    return Padded(inputs, targets, scored, np.concatenate(positions))


def assemble(
    unit: NDArray[np.int64], offsets: NDArray[np.int64], batches: Sequence[Padded], nll: Sequence[NDArray[np.float32]]
) -> Score:
    """Collect the nats of the batches in a Score."""
    values = np.full(len(unit), np.nan)
    for batch, nats in zip(batches, nll, strict=True):
        values[batch.place] = nats
    return Score(values, unit, offsets)
