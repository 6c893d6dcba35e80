"""Cross-entropy of a tied output layer, in chunks, so that the logits of a batch are never all in memory.

The forward pass also computes the gradients, while a chunk of logits is in the cache: softmax minus one-hot, multiplied
out at once to the gradients of the hidden states and of the output matrix. Other objectives are functions of the
probability of the target alone, so that their gradient is that of cross-entropy times a number per target.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ecosystem.families.footprint import LARGE_CHUNK
from ecosystem.families.training_spec import Objective

Kernel = Callable[..., tuple[Tensor, Tensor]]
"""Computes what :func:`softmax_minus_one_hot` does."""

_CHUNK = {"cpu": 1 << 18, "cuda": 1 << 28}
"""Logits in memory at once: 1 MB on a CPU, which fits a core's cache, and 1 GB on a GPU.

They are ``LARGE_CHUNK`` for vocabularies of which fewer than 16 rows would fit: each chunk reads and writes the whole
table.
"""

_MULTIPLE = 128  # columns of the products of a GPU; others are aligned in memory only in part, and slower
_TINY = torch.finfo(torch.float32).tiny


def scored_loss(
    x: Tensor,
    table: Tensor,
    targets: Tensor,
    scale: Tensor,
    kernel: Kernel | None = None,
    objective: Objective | None = None,
) -> Tensor:
    """Return :func:`weighted_loss`, without the logits of targets of scale 0 if these are the majority.

    In a fit on answers they are. Members in a stack keep all their rows, so that they stay equally many.
    """
    if scale.dim() == 1 and mostly_unscored(scale):
        scored = scale.nonzero().squeeze(-1)
        x, targets, scale = x[scored], targets[scored], scale[scored]
    return weighted_loss(x, table, targets, scale, kernel, objective)


def mostly_unscored(scale: Tensor) -> bool:
    """Tell whether fewer than half of the targets have a scale [N] other than 0."""
    return bool(2 * scale.count_nonzero() < len(scale))


def chunk_rows(device: str, vocabulary: int) -> int:
    """Return the number of rows of logits in memory at once."""
    rows = _CHUNK.get(device, 1 << 22) // vocabulary
    return rows if rows >= 16 else max(16, LARGE_CHUNK // vocabulary)


def table_in_place(device: str, vocabulary: int) -> bool:
    """Tell whether the table's gradient is summed in place: chunks exceed a cache, and a second table costs memory."""
    return chunk_rows(device, vocabulary) * vocabulary > _CHUNK.get(device, 0)


def loss_of(probabilities: Tensor, scale: Tensor, vocabulary: int) -> Tensor:
    """Sum ``scale`` times the cross-entropy of targets of given probabilities on a CPU, [N] each → [], by chunks."""
    loss = scale.new_zeros(())
    rows = chunk_rows("cpu", vocabulary)
    for p, weight in zip(torch.split(probabilities, rows), torch.split(scale, rows), strict=True):
        loss -= (p.clamp(min=_TINY).log() * weight).unsqueeze(-1).sum((-2, -1))
    return loss


def token_nll(x: Tensor, table: Tensor, targets: Tensor) -> Tensor:
    """Return the nats of each target, without gradients: x [N, d], table [V, d], targets [N] → [N]."""
    losses = []
    rows = chunk_rows(x.device.type, len(table))
    for part, part_targets in zip(torch.split(x, rows), torch.split(targets, rows), strict=True):
        log_p = torch.log_softmax((part @ table.t()).float(), -1)
        losses.append(-log_p.gather(-1, part_targets.unsqueeze(-1)).squeeze(-1))
    return torch.cat(losses) if losses else x.new_zeros(0)


def weighted_loss(
    x: Tensor,
    table: Tensor,
    targets: Tensor,
    scale: Tensor,
    kernel: Kernel | None = None,
    objective: Objective | None = None,
) -> Tensor:
    """Sum ``scale`` times the loss of each target in nats, by an ``objective`` (None: cross-entropy); one per member.

    Shapes: x [N, d], table [V, d], targets and scale [N] → []; with a leading member axis on all of them → [M].
    Under autocast, products are computed in its type, and the softmax and sums in float32. With a ``kernel``, which
    computes :func:`softmax_minus_one_hot`, the vocabulary is padded to a multiple of 128.
    """
    loss: Tensor = _Loss.apply(x, table, targets, scale, kernel, objective)  # type: ignore[no-untyped-call]
    return loss


def objective_of(nats: Tensor, objective: Objective) -> tuple[Tensor, Tensor]:
    """Return the loss of targets of given nats, and its derivative by these; the shape of ``nats`` each."""
    if objective.kind == "truncated":
        learnt = (nats >= -math.log(objective.gamma)).to(nats.dtype)  # p <= gamma
        return nats * learnt, learnt
    missing = (-torch.expm1(-nats)).clamp(min=_TINY)  # 1 - p; a power below 1 has no derivative at 0
    factor = missing**objective.gamma
    slope = objective.gamma * missing ** (objective.gamma - 1) * torch.exp(-nats)
    return factor * nats, factor + slope * nats


def softmax_minus_one_hot(
    logits: Tensor, target: Tensor, weight: Tensor, types: int, objective: Objective | None = None
) -> tuple[Tensor, Tensor]:
    """Return the weighted loss of a chunk, [...], and its gradient by the logits, in their type.

    Shapes: logits [..., N, V], of which the first ``types`` columns are real, target and weight [..., N, 1]. The
    gradient is not yet multiplied by the weights. Compiled, it reads the logits twice and writes the gradient once.
    """
    column = torch.arange(logits.shape[-1], device=logits.device)
    log_p = torch.log_softmax(logits.float().masked_fill(column >= types, -torch.inf), -1)
    hit = column == target
    nats = -log_p.masked_fill(~hit, 0.0).sum(-1, keepdim=True)
    gradient = log_p.exp() - hit.float()
    if objective is not None:
        nats, factor = objective_of(nats, objective)
        gradient = gradient * factor
    return (nats * weight).sum((-2, -1)), gradient.to(logits.dtype)


def _softmax_minus_one_hot_in_place(
    logits: Tensor, target: Tensor, weight: Tensor, types: int, objective: Objective | None = None
) -> tuple[Tensor, Tensor]:
    """Compute :func:`softmax_minus_one_hot` with the fewest passes of PyTorch's own operations."""
    p = torch.softmax(logits.float(), -1)
    # One pass over the vocabulary instead of two; a loss above 87 nats is reported as 87.
    nats = -p.gather(-1, target).clamp(min=_TINY).log()
    gradient = p.scatter_add_(-1, target, torch.full_like(weight, -1.0))
    if objective is not None:
        nats, factor = objective_of(nats, objective)
        gradient.mul_(factor)
    return (nats * weight).sum((-2, -1)), gradient.to(logits.dtype)


class _Loss(torch.autograd.Function):
    """The implementation of :func:`weighted_loss`; ``...`` is the member axis, if there is one."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        table: Tensor,
        targets: Tensor,
        scale: Tensor,
        kernel: Kernel | None,
        objective: Objective | None,
    ) -> Tensor:
        """Compute the loss and, chunk by chunk, both gradients."""
        kind, n = x.device.type, x.shape[-2]
        rows = chunk_rows(kind, table.numel() // table.shape[-1])
        dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
        low_x, low_table, types = x.to(dtype), table.to(dtype), table.shape[-2]
        if kernel is not None:
            low_table = F.pad(low_table, (0, 0, 0, -types % _MULTIPLE))
        compute = kernel or _softmax_minus_one_hot_in_place
        loss = scale.new_zeros(table.shape[:-2])
        grad_x, grad_table = torch.empty_like(x), torch.zeros_like(table) if ctx.needs_input_grad[1] else None
        with torch.autocast(kind, enabled=False):
            for first in range(0, n, rows):
                part = slice(first, first + rows)
                chunk, target = low_x[..., part, :], targets[..., part].unsqueeze(-1)
                weight = scale[..., part].unsqueeze(-1)
                logits = chunk @ low_table.mT
                part_loss, p = compute(logits, target, weight, types, objective)
                loss += part_loss
                # The weights multiply the narrow factors, not the wide matrix of probabilities.
                grad_x[..., part, :] = (p @ low_table) * weight
                if grad_table is None:
                    continue
                if kernel is None and table.dim() == 2 and dtype == table.dtype and table_in_place(kind, len(table)):
                    grad_table.addmm_(p.mT, chunk * weight)  # without a second table
                else:
                    grad_table += (p.mT @ (chunk * weight).to(dtype))[..., :types, :]
        ctx.save_for_backward(grad_x, grad_table)
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None, None]:
        """Multiply the stored gradients by the gradient of the loss, in place, since the table's may be large."""
        grad_x, grad_table = ctx.saved_tensors
        grad = grad.unsqueeze(-1).unsqueeze(-1)
        return grad_x.mul_(grad), None if grad_table is None else grad_table.mul_(grad), None, None, None, None
