"""Training loop: gradients of the parts of a batch, summed in order; clipping; fused AdamW.

The loop is independent of the architecture: it takes leaf tensors, batches, and a function that returns the loss and
the gradients of some rows. In a stack of members, every tensor has a leading member axis and every member has its own
batches.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import product
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import TrainingError
from ecosystem.families.base import MemberError
from ecosystem.families.requests import FitRecord
from ecosystem.families.training_spec import Training, learning_rate

Rows = tuple[Tensor, Tensor, Tensor]
"""Inputs, targets and loss scale of some rows, [rows, width] or [M, rows, width] each."""
Result = tuple[Tensor, Sequence[Tensor]]
"""The sum of scale × loss ([] or [M]) and its gradients with respect to the parameters, in order."""
Gradients = Callable[[Rows, Sequence[Tensor] | None], Result]
"""Returns the result of some rows; with the gradients of earlier rows, adds to these in place and returns them."""
MapParts = Callable[[Callable[[Rows], Result], Sequence[Rows]], Iterable[Result]]


@dataclass(frozen=True)
class Batch:
    """Rows of training data: ``inputs``, ``targets`` and ``weight`` (float32), each of shape [rows, width].

    ``tokens``, the divisor of the sum of weighted losses, is the number of targets without the padding at the end.
    """

    inputs: NDArray[Any]
    targets: NDArray[Any]
    weight: NDArray[np.float32]
    tokens: int


class Batches(Protocol):
    """The ``steps`` batches of one fit, of ``total`` tokens (or documents) in all."""

    total: int
    steps: int

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the batches; every iteration gives the same ones."""


def positive_weights(documents: int, weight: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return the weights of documents as float64, and the indices of those above 0.

    Raises TrainingError if none is above 0, or one is negative or not finite.
    """
    weight = np.asarray(weight, dtype=np.float64)
    if len(weight) != documents:
        raise TrainingError(f"there are {documents} documents to train on but {len(weight)} weights.")
    if not (np.isfinite(weight) & (weight >= 0)).all():
        raise TrainingError("a document's weight is negative or not finite; weights must be finite and at least 0.")
    positive = np.flatnonzero(weight > 0)
    if len(positive) == 0:
        reason = "every document has weight 0" if documents else "there are no documents"
        raise TrainingError(f"{reason}, so there is nothing to train on; loosen the policies or scrape more.")
    return weight, positive


@dataclass
class Fit:
    """One training run of one member, or of a stack of members with the same steps and learning rate.

    ``decayed`` flags the parameters that are subject to weight decay; ``part_rows`` is the number of rows of a batch
    that are computed at once (None: all). Parts are summed in order: by ``map_parts`` once they are computed, by
    whichever thread, or one after the other into the same gradients. Either way gives the same numbers.
    """

    members: Sequence[int]
    parameters: Sequence[Tensor]
    decayed: Sequence[bool]
    batches: Sequence[Batches]
    training: Training
    peak: float
    gradients: Gradients
    part_rows: int | None = None
    stacked: bool = False
    map_parts: MapParts | None = None
    report: Callable[[int], None] = field(default=lambda amount: None)

    def run(self) -> list[FitRecord]:
        """Train to the end of the budget, in place; raise MemberError if a loss is not finite."""
        started = time.perf_counter()
        steps = self.batches[0].steps
        device = self.parameters[0].device
        places = _by_device(self.parameters)
        optimiser = _AdamW(self.parameters, self.decayed, self.training, places)
        losses: list[Tensor] = []  # [] or [M] each; checked every step on a CPU, less often on a GPU, where that blocks
        checked = 0
        with torch.no_grad():
            for step, batches in enumerate(zip(*self.batches, strict=True)):
                loss, grads = self._gradients(batches, device)
                norm = _clip(grads, self.training.clip, self.stacked, places).to(loss.device)
                losses.append(torch.where(torch.isfinite(norm), loss, norm))
                if device.type == "cpu" or step % 16 == 15 or step == steps - 1:
                    self._check(losses[checked:], checked, steps)
                    checked = step + 1
                optimiser.step(grads, learning_rate(self.training, self.peak, step, steps))
                del grads  # before those of the next batch are computed
                self.report(sum(batch.tokens for batch in batches))
        last = max(1, steps // 10)
        means = torch.stack(losses[-last:]).cpu().double().mean(0).reshape(-1).tolist()
        seconds = time.perf_counter() - started
        return [FitRecord(b.total, mean, seconds) for b, mean in zip(self.batches, means, strict=True)]

    def _gradients(self, batches: Sequence[Batch], device: torch.device) -> tuple[Tensor, list[Tensor]]:
        if self.stacked:
            arrays = [_stack([getattr(b, name) for b in batches]) for name in ("inputs", "targets", "weight")]
        else:
            arrays = [batches[0].inputs, batches[0].targets, batches[0].weight]
        inputs, targets, scale = (torch.from_numpy(a).to(device, non_blocking=True) for a in arrays)
        scale = scale / batches[0].tokens
        rows = inputs.shape[-2]
        size = self.part_rows or rows
        parts = [
            (inputs[..., i : i + size, :], targets[..., i : i + size, :], scale[..., i : i + size, :])
            for i in range(0, rows, size)
        ]
        if self.map_parts is None:
            return self._sum_in_place(parts)
        (loss, first), *others = self.map_parts(lambda part: self.gradients(part, None), parts)
        total = list(first)
        for part_loss, grads in others:
            loss = loss + part_loss
            torch._foreach_add_(total, list(grads))
        return loss, total

    def _sum_in_place(self, parts: Sequence[Rows]) -> tuple[Tensor, list[Tensor]]:
        """Sum loss and gradients of the parts of a batch, with one set of gradients in memory."""
        loss, grads = self.gradients(parts[0], None)
        for part in parts[1:]:
            part_loss, grads = self.gradients(part, grads)
            loss = loss + part_loss
        return loss, list(grads)

    def _check(self, losses: Sequence[Tensor], first: int, steps: int) -> None:
        bad = ~torch.isfinite(torch.stack(list(losses)).reshape(len(losses), -1))
        if bad.any():
            step, row = bad.nonzero()[0].tolist()
            member = self.members[row]
            raise MemberError(
                member,
                f"the loss of member {member} is not a finite number at step {first + step + 1} of {steps} "
                f"(peak learning rate {self.peak:g}); lower the learning rate or start from weights that are finite.",
            )


def accumulated(loss: Tensor, leaves: Sequence[Tensor], total: Sequence[Tensor] | None) -> list[Tensor]:
    """Return the gradients of a loss, added in place to ``total`` if it is given; zeros for leaves without effect."""
    for i, leaf in enumerate(leaves):
        leaf.grad = None if total is None else total[i]
    torch.autograd.backward(loss, inputs=list(leaves))
    grads = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in leaves]
    for leaf in leaves:
        leaf.grad = None
    return grads


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Stack arrays [rows, width]; pad narrower ones with zeros, which also have weight zero."""
    widest = max(array.shape[1] for array in arrays)
    return np.stack([np.pad(array, ((0, 0), (0, widest - array.shape[1]))) for array in arrays])


def _by_device(tensors: Sequence[Tensor]) -> list[list[int]]:
    """Return the indices of the tensors on each device; several, if layers of one model are divided."""
    places: dict[torch.device, list[int]] = {}
    for index, tensor in enumerate(tensors):
        places.setdefault(tensor.device, []).append(index)
    return list(places.values())


def _clip(grads: Sequence[Tensor], max_norm: float, stacked: bool, places: Sequence[Sequence[int]]) -> Tensor:
    """Scale every member's gradient to at most ``max_norm``, in place; return the norms before, [] or [M].

    ``places`` are the indices of the gradients on each device.
    """
    if not stacked:
        groups = [[grads[i] for i in place] for place in places]
        parts = [torch.stack(torch._foreach_norm(group)) for group in groups]
        norm: Tensor = torch.linalg.vector_norm(torch.cat([part.to(parts[0].device) for part in parts]))
        factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
        for group in groups:
            torch._foreach_mul_(group, factor.to(group[0].device))
        return norm
    norms = [torch.linalg.vector_norm(grad.flatten(1), dim=1) for grad in grads]
    norm = torch.linalg.vector_norm(torch.stack(norms), dim=0)
    factor = (max_norm / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        grad.mul_(factor.view(-1, *[1] * (grad.dim() - 1)))
    return norm


class _AdamW:
    """Fused AdamW, without PyTorch's optimiser class, which takes a second to import ``torch._dynamo``."""

    def __init__(
        self,
        parameters: Sequence[Tensor],
        decayed: Sequence[bool],
        training: Training,
        places: Sequence[Sequence[int]],
    ) -> None:
        """``places`` are the indices of the parameters on each device."""
        self._training = training
        self._groups = []
        for decay, place in product((True, False), places):
            indices = [i for i in place if decayed[i] == decay]
            group = [parameters[i].detach() for i in indices]
            moments = [torch.zeros_like(p) for p in group], [torch.zeros_like(p) for p in group]
            counts = [torch.zeros((), dtype=torch.float32, device=p.device) for p in group]
            if indices:
                self._groups.append((decay, indices, group, *moments, counts))

    def step(self, grads: Sequence[Tensor], rate: float) -> None:
        """Update the parameters with these gradients at learning rate ``rate``."""
        for decay, indices, group, first, second, counts in self._groups:
            torch._foreach_add_(counts, 1.0)
            torch._fused_adamw_(
                group,
                [grads[i] for i in indices],
                first,
                second,
                [],
                counts,
                lr=rate,
                beta1=self._training.beta1,
                beta2=self._training.beta2,
                weight_decay=self._training.weight_decay if decay else 0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )
