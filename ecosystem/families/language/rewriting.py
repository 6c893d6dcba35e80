"""Rewriting: some tokens of existing documents are drawn again by a model that reads the documents.

With a high threshold this is ToEdit (Zhu et al. 2024, 2412.14689): only tokens that the model was sure of are drawn
again, so that most of a document remains a person's.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.families.language.generation import Decoder, pick, token_noise
from ecosystem.families.language.scoring import Padded
from ecosystem.families.requests import Rewriting
from ecosystem.streams import Stream


def unit_noise(stream: Stream, offsets: NDArray[np.int64]) -> NDArray[np.float32]:
    """Return two uniform numbers in (0, 1) per unit of a Score with these ``offsets``, [units, 2].

    They are keyed by document and position. The first decides whether a token is drawn again, the second which.
    """
    lengths = np.diff(offsets)
    used = np.arange(lengths.max(initial=0)) < lengths[:, None]
    documents = np.arange(len(lengths))
    numbers = (token_noise(stream.child(name), documents, used.shape[1])[used] for name in ("choice", "token"))
    return np.stack(list(numbers), axis=1)


def rewrite(
    decoder: Decoder,
    batch: Padded,
    noise: NDArray[np.float32],
    how: Rewriting,
    end: int,
    never: Tensor | None,
    device: torch.device,
) -> NDArray[np.int64]:
    """Return the new tokens of the scored targets of a batch, in row order; ``noise`` is that of :func:`unit_noise`.

    The end of text ``end`` is neither drawn again nor drawn, and the ids ``never`` are not drawn: lengths in tokens
    remain.
    """
    places = np.zeros(batch.targets.shape, np.int64)
    places[batch.scored] = batch.place
    eligible = batch.scored & (batch.targets != end) & (noise[places, 0] < how.rate)
    uniform, inputs, targets, drawn_again = (
        torch.from_numpy(a).to(device) for a in (noise[places, 1], batch.inputs, batch.targets.copy(), eligible)
    )
    excluded = torch.tensor([end], device=device) if never is None else torch.cat([never, never.new_tensor([end])])
    logits = decoder.begin(inputs[:, :1])
    for j in range(inputs.shape[1]):
        likely = torch.softmax(logits, -1).gather(1, targets[:, j : j + 1]).squeeze(1) >= how.threshold
        chosen = drawn_again[:, j] & likely
        if chosen.any():
            cooled = logits.index_fill(1, excluded, -torch.inf) / how.temperature
            drawn = pick(torch.softmax(cooled, -1), uniform[:, j : j + 1])
            targets[:, j] = torch.where(chosen, drawn, targets[:, j])
        if j + 1 < inputs.shape[1]:
            read = targets[:, j] if how.after == "rewritten" else inputs[:, j + 1]
            logits = decoder.step(read, j + 1)
    return np.asarray(targets.cpu().numpy()[batch.scored])
