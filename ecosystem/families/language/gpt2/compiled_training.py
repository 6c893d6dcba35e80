"""Gradients on a CPU from compiled kernels, with the bits of the PyTorch operations that they replace.

Where the kernels cannot be compiled (see kernels.py), do not fit, or do not give the bits of PyTorch in a trial with
the same sizes, PyTorch computes: the numbers are the same, and only the time differs.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

import torch
from torch import Tensor

from ecosystem.families.language import loss
from ecosystem.families.language.gpt2 import kernels, transformer
from ecosystem.families.language.gpt2.shape import NARROW, Shape
from ecosystem.families.training import Result, Rows, accumulated
from ecosystem.families.training_spec import Objective

_POSITIONS = 128  # of a document: PyTorch adds up longer ones in another order
_TRIAL_TOKENS = 1024  # as many as a cohort computes at once


class _Sizes(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int64) for n in ("layers", "width", "heads", "inner", "vocabulary", "context", "chunk")),
        ("eps", ctypes.c_float),
    ]


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in transformer.Block._fields]


class _Tensors(ctypes.Structure):
    _fields_ = [
        ("layer", ctypes.POINTER(_Layer)),
        *((name, ctypes.c_void_p) for name in ("wte", "wpe", "ln_weight", "ln_bias")),
    ]


class _Part(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("ids", "targets", "scale", "probabilities")),
        *((name, ctypes.c_int64) for name in ("rows", "length")),
    ]


def gradients(
    weights: Mapping[str, Tensor],
    shape: Shape,
    rows: Rows,
    total: Sequence[Tensor] | None,
    objective: Objective | None = None,
) -> Result:
    """Return the weighted loss of rows [rows, length] and its gradients in the order of ``weights``, plus ``total``.

    ``weights`` are two-dimensional, as in transformer.py. The kernels know no ``objective`` but cross-entropy (None).
    """
    inputs, _, scale = rows
    fit = objective is None and _fit(weights, shape) and not loss.mostly_unscored(scale.flatten())
    if fit and _same_bits(shape, inputs.shape[1]):
        return _compiled_gradients(weights, shape, rows, total)
    return plain_gradients(weights, shape, rows, total, objective)


def plain_gradients(
    weights: Mapping[str, Tensor],
    shape: Shape,
    rows: Rows,
    total: Sequence[Tensor] | None,
    objective: Objective | None = None,
) -> Result:
    """Compute :func:`gradients` with PyTorch, on two-dimensional or stacked weights."""
    return gradients_of(
        lambda w, ids: (transformer.hidden(w, shape, ids), w[transformer.WTE]),
        weights,
        rows,
        total,
        partial(loss.scored_loss, objective=objective),
    )


def gradients_of(
    forward: Callable[[Mapping[str, Tensor], Tensor], tuple[Tensor, Tensor]],
    weights: Mapping[str, Tensor],
    rows: Rows,
    total: Sequence[Tensor] | None,
    loss_of: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor] = loss.scored_loss,
) -> Result:
    """Return the weighted loss of rows and its gradients by ``weights``, which autograd adds to ``total``.

    ``forward`` computes hidden states and the output matrix from weights and token ids; ``loss_of`` takes them with
    targets and scales, without the axes of rows.
    """
    inputs, targets, scale = rows
    # Separate leaves, since several threads may compute different parts of the same batch.
    leaves = [tensor.detach().requires_grad_() for tensor in weights.values()]
    flat = (inputs.dim() - 2, inputs.dim() - 1)
    with torch.enable_grad():
        x, table = forward(dict(zip(weights, leaves, strict=True)), inputs)
        losses = loss_of(x, table, targets.flatten(*flat), scale.flatten(*flat))
        grads = accumulated(losses.sum(), leaves, total)
    return losses.detach(), grads


def _compiled_gradients(
    weights: Mapping[str, Tensor], shape: Shape, rows: Rows, total: Sequence[Tensor] | None
) -> Result:
    inputs, targets, scale = (tensor.contiguous() for tensor in rows)
    inputs, targets = inputs.long(), targets.long()
    probabilities = torch.empty(inputs.numel())
    grads = {name: torch.empty_like(tensor) for name, tensor in weights.items()}
    arrays = (inputs, targets, scale, probabilities)
    part = _Part(*(tensor.data_ptr() for tensor in arrays), *inputs.shape)
    _library().gradients(_sizes(shape), _tensors(weights, shape), part, _tensors(grads, shape))
    losses = loss.loss_of(probabilities, scale.flatten(), shape.vocabulary)
    if total is None:
        return losses, list(grads.values())
    torch._foreach_add_(list(total), list(grads.values()))
    return losses, total


def _sizes(shape: Shape) -> _Sizes:
    sizes = (shape.n_layer, shape.n_embd, shape.n_head, shape.n_inner, shape.vocabulary, shape.context)
    return _Sizes(*sizes, loss.chunk_rows("cpu", shape.vocabulary), shape.eps)


def _tensors(tensors: Mapping[str, Tensor], shape: Shape) -> _Tensors:
    layers = (_Layer(*(t.data_ptr() for t in block)) for block in transformer.blocks(tensors, shape))
    return _Tensors((_Layer * shape.n_layer)(*layers), *(tensors[name].data_ptr() for name in transformer.OUTER))


def _fit(weights: Mapping[str, Tensor], shape: Shape) -> bool:
    """Tell whether the kernels can compute with these weights, on one compute thread."""
    narrow = shape.count() <= NARROW and not loss.table_in_place("cpu", shape.vocabulary)
    alone = torch.get_num_threads() == 1
    return narrow and alone and kernels.fit(weights, shape) and kernels.library() is not None


@lru_cache(maxsize=64)
def _same_bits(shape: Shape, length: int) -> bool:
    """Try random rows of a length: are loss and gradients those of PyTorch, bit for bit?"""
    if length % kernels.LANES or length > _POSITIONS:
        return False
    generator = torch.Generator().manual_seed(0)
    weights = {name: 5 * tensor for name, tensor in transformer.initial(shape, generator).items()}
    for tensor in weights.values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator)
    size = (_TRIAL_TOKENS // length, length)
    inputs, targets = (torch.randint(0, shape.vocabulary, size, generator=generator) for _ in range(2))
    rows = inputs, targets, torch.rand(size, generator=generator)
    (ours, our_grads), (theirs, their_grads) = (
        function(weights, shape, rows, None) for function in (_compiled_gradients, plain_gradients)
    )
    return torch.equal(ours, theirs) and all(map(torch.equal, our_grads, their_grads))


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL:
    """Return the compiled kernels with the types of their arguments."""
    library = kernels.library()
    assert library is not None
    sizes, tensors, part = map(ctypes.POINTER, (_Sizes, _Tensors, _Part))
    library.gradients.argtypes = [sizes, tensors, part, tensors]
    library.gradients.restype = None
    return library
