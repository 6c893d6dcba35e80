"""Training batches of text: documents packed into blocks, or one row per prompt and answer.

A packed training set is one endless sequence of tokens: in every epoch, all documents in a new random order, each
followed by the end-of-text token. A batch is the next ``batch × length`` tokens of the sequence, split into rows.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import TrainingError
from ecosystem.families.requests import Budget
from ecosystem.families.training import Batch, Batches, positive_weights
from ecosystem.streams import Stream


class TokenBatches(Batches, Protocol):
    """Batches of int64 inputs and targets, in rows of at most ``length`` tokens."""

    length: int


class Packing:
    """The batches of a fit on documents.

    Documents of weight 0 are left out. The other weights are scaled to a mean of 1 over tokens, so that doubling the
    weight of a document equals repeating it. A row has ``context`` tokens, or those of the entire training set if it is
    shorter. Raises TrainingError if there is nothing to train on, or a weight is negative or not finite.
    """

    def __init__(
        self,
        tokens: Sequence[NDArray[np.int32]],
        weight: NDArray[np.float64],
        end: int,
        context: int,
        batch: int,
        budget: Budget,
        stream: Stream,
    ) -> None:
        weight, positive = positive_weights(len(tokens), weight)
        self._tokens = [tokens[i] for i in positive.tolist()]
        sizes = np.array([len(document) + 1 for document in self._tokens])
        self._weight = weight[positive] * (sizes.sum() / (weight[positive] @ sizes))
        self._sizes = sizes
        self._end, self._batch, self._stream = end, batch, stream
        per_epoch = int(sizes.sum())
        self.total = budget.tokens if budget.tokens is not None else max(1, round((budget.epochs or 0) * per_epoch))
        self.length = min(context, per_epoch, self.total)
        self.steps = math.ceil(self.total / (batch * self.length))

    def _epochs(self) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
        epoch, end = 0, np.array([self._end], dtype=np.int32)
        documents = [np.append(document, end) for document in self._tokens]
        while True:
            order = self._stream.child(f"epoch/{epoch}").rng().permutation(len(documents))
            tokens = np.concatenate([documents[i] for i in order])
            yield tokens, np.repeat(self._weight[order], self._sizes[order]).astype(np.float32)
            epoch += 1

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the ``steps`` batches, of exactly ``total`` tokens in all."""
        epochs = self._epochs()
        tokens, weight = next(epochs)
        previous, remaining = self._end, self.total
        while remaining:
            n = min(self._batch * self.length, remaining)
            while len(tokens) < n:
                epoch_tokens, epoch_weight = next(epochs)
                tokens, weight = np.append(tokens, epoch_tokens), np.append(weight, epoch_weight)
            rows = math.ceil(n / self.length)
            targets = np.full(rows * self.length, self._end, dtype=np.int64)
            inputs, scale = targets.copy(), np.zeros(rows * self.length, dtype=np.float32)
            targets[:n], scale[:n] = tokens[:n], weight[:n]
            inputs[0], inputs[1:] = previous, targets[:-1]
            size = (rows, self.length)
            yield Batch(inputs.reshape(size), targets.reshape(size), scale.reshape(size), n)
            previous, remaining = int(targets[n - 1]), remaining - n
            tokens, weight = tokens[n:], weight[n:]


class PromptedBatches:
    """The batches of a fit on answers to prompts: one example per row, so that none is split and none sees another.

    A row contains the end of text, the prompt, the answer and the end of text. The loss is the mean over the tokens of
    answers and the ends of text after them; prompts have no loss. The rows of a batch are padded with weight 0 to its
    longest example. If an example exceeds ``context``, the first tokens of its prompt are dropped. A batch has
    ``batch`` examples, each of which counts as many tokens as the longest example of the training set. Weights and
    errors are as in :class:`Packing`; TrainingError is also raised if an answer alone is longer than the context.
    """

    def __init__(
        self,
        prompts: Sequence[NDArray[np.int32]],
        answers: Sequence[NDArray[np.int32]],
        weight: NDArray[np.float64],
        end: int,
        context: int,
        batch: int,
        budget: Budget,
        stream: Stream,
    ) -> None:
        weight, positive = positive_weights(len(answers), weight)
        sequences = [sequence(prompts[i], answers[i], end, context) for i in positive.tolist()]
        scored = np.array([len(answers[i]) + 1 for i in positive.tolist()])
        self._sizes = np.array([len(ids) for ids in sequences]) - 1
        self.length = int(self._sizes.max())
        rows = np.full((len(sequences), self.length + 1), end, dtype=np.int64)
        self._weight = np.zeros((len(sequences), self.length), dtype=np.float32)
        scaled = weight[positive] * (scored.sum() / (weight[positive] @ scored))
        for i, (ids, n) in enumerate(zip(sequences, scored.tolist(), strict=True)):
            rows[i, : len(ids)] = ids
            self._weight[i, len(ids) - 1 - n : len(ids) - 1] = scaled[i]
        self._rows, self._batch, self._stream = rows, batch, stream
        examples = budget.epochs * len(rows) if budget.epochs is not None else (budget.tokens or 0) / self.length
        self._examples = max(1, round(examples))
        self.total = self._examples * self.length
        self.steps = math.ceil(self._examples / batch)

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the ``steps`` batches, in a new random order every epoch."""
        count = len(self._rows)
        epochs = range(math.ceil(self._examples / count))
        order = np.concatenate([self._stream.child(f"epoch/{e}").rng().permutation(count) for e in epochs])
        for first in range(0, self._examples, self._batch):
            chosen = order[first : min(first + self._batch, self._examples)]
            widest = self._sizes[chosen].max()
            rows, weight = self._rows[chosen, : widest + 1], self._weight[chosen, :widest]
            # The sum of losses is divided by the tokens of a batch; rescale it to a mean over the answers alone.
            tokens = len(chosen) * self.length
            weight = weight * np.float32(tokens / np.count_nonzero(weight))
            yield Batch(rows[:, :-1], rows[:, 1:], weight, tokens)


def sequence(prompt: NDArray[np.int32], answer: NDArray[np.int32], end: int, context: int) -> NDArray[np.int32]:
    """Return the end of text, the prompt, the answer and the end of text: at most ``context + 1`` tokens.

    If they are more, the first tokens of the prompt are dropped. Raises TrainingError if the answer leaves no room for
    the end of text before it.
    """
    room = context - 1 - len(answer)
    if room < 0:
        raise TrainingError(
            f"an answer of {len(answer)} tokens does not fit the context of {context}; shorten it, or increase "
            "the context."
        )
    end_of_text = np.array([end], dtype=np.int32)
    return np.concatenate([end_of_text, prompt[max(0, len(prompt) - room) :], answer, end_of_text])
