"""Decoding on a CPU with compiled kernels, which give the bits of the PyTorch operations in transformer.py.

Where they cannot be compiled (see kernels.py), or do not give the bits of PyTorch in a trial, PyTorch decodes: the
tokens are the same, and only the time differs.
"""

from __future__ import annotations

import ctypes
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.families.language.generation import Texts
from ecosystem.families.language.gpt2 import kernels, transformer
from ecosystem.families.language.gpt2.decoder import Gpt2Decoder
from ecosystem.families.language.gpt2.shape import Shape

_LANES = kernels.LANES  # positions of a block of keys
_PANEL = 32  # columns of a panel of a matrix
_IN_ORDER = 128  # terms that MKL adds up in order; larger sums are split
_MATRICES = ("c_attn", "attn_proj", "c_fc", "mlp_proj")
_VOCABULARY = 1 << 17  # largest vocabulary
_TRIAL = 72  # positions of a trial: enough for every order in which scores are summed
_GROUP = 32  # documents that are written together, so that their keys and values stay in the cache of a core


class _Layer(ctypes.Structure):
    _fields_ = [(name, ctypes.c_void_p) for name in (*transformer.Block._fields, *(f"{n}_panels" for n in _MATRICES))]


class _Model(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_int64) for n in ("layers", "width", "heads", "inner", "vocabulary", "documents", "positions")),
        *((n, ctypes.c_void_p) for n in ("layer", "wte", "wpe", "ln_weight", "ln_bias", "panels", "keys", "values")),
        ("eps", ctypes.c_float),
    ]


class _Texts(ctypes.Structure):
    _fields_ = [
        *((n, ctypes.c_void_p) for n in ("written", "noise", "sizes", "limits", "lengths", "open", "never")),
        *((n, ctypes.c_int64) for n in ("documents", "nevers", "end")),
        ("temperature", ctypes.c_float),
    ]


class CompiledDecoder:
    """The decoder of one member, on two-dimensional weights in float32."""

    def __init__(self, weights: transformer.Weights, shape: Shape, rows: int, length: int) -> None:
        """``length`` is the maximum number of positions."""
        library = _library()
        assert library is not None
        self._library, self._weights, self._shape = library, weights, shape
        self._layers = transformer.decoding_blocks(weights, shape)
        positions = -(-length // _LANES) * _LANES
        self._keys, self._values = np.empty((2, shape.n_layer, rows, positions, shape.n_embd), np.float32)
        matrices = [[getattr(block, f"{name}_weight") for name in _MATRICES] for block in self._layers]
        panels = [[_panels(matrix) for matrix in layer] for layer in matrices]
        table = _panels(weights[transformer.WTE].T)
        self._panels = [table, *(panel for layer in panels for panel in layer)]
        self._pointers = (_Layer * shape.n_layer)(
            *(
                _Layer(*(w.data_ptr() for w in block), *map(_address, layer))
                for block, layer in zip(self._layers, panels, strict=True)
            )
        )
        self._model = _Model(
            *(shape.n_layer, shape.n_embd, shape.n_head, shape.n_inner, shape.vocabulary, rows, positions),
            ctypes.cast(self._pointers, ctypes.c_void_p),
            *(weights[name].data_ptr() for name in transformer.OUTER),
            _address(table),
            *(self._keys.ctypes.data, self._values.ctypes.data, shape.eps),
        )
        self._documents = np.arange(rows)

    def begin(self, ids: Tensor) -> Tensor:
        """Read the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        rows, length = ids.shape
        ids, table = transformer.padded(ids), self._weights[transformer.WTE]
        cache = transformer.Cache(self._shape, len(ids), length, table)
        x = transformer.hidden(self._weights, self._shape, ids, cache)
        for i, layer in enumerate(cache.layers):
            self._library.fill(self._model, i, rows, length, layer[0].data_ptr(), layer[1].data_ptr())
        return transformer.logits(self._weights, x.view(-1, length, x.shape[-1])[:, -1])[:rows]

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Read the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        logits, documents = torch.empty(len(ids), self._shape.vocabulary), self._documents
        ids = ids.contiguous()
        self._library.step(
            self._model, documents.ctypes.data, len(documents), ids.data_ptr(), position, logits.data_ptr()
        )
        return logits

    def keep(self, rows: Tensor, used: int) -> None:
        """Continue with these rows only (an index tensor), of which ``used`` positions have been read."""
        self._documents = self._documents[rows.numpy()]

    def advance(self, texts: Texts, first: int, last: int) -> None:
        """Append tokens to the open documents, from position ``first`` until ``last`` are written."""
        arrays = (texts.written, texts.noise, texts.sizes, texts.limits, texts.lengths, texts.open, texts.never)
        assert all(array.flags.c_contiguous for array in arrays)
        pointers = _Texts(
            *(array.ctypes.data for array in arrays),
            *(texts.written.shape[1], len(texts.never), texts.end, texts.temperature),
        )
        self._library.advance(self._model, pointers, first, last, _GROUP)


def _panels(weight: Tensor) -> NDArray[np.float32] | None:
    """Return a matrix [in, out] as panels [out / 32, in, 32], padded with zeros; None for sums that MKL splits."""
    terms, size = weight.shape
    if terms > _IN_ORDER:
        return None
    padded = np.pad(weight.numpy(), ((0, 0), (0, -size % _PANEL)))
    return np.ascontiguousarray(padded.reshape(terms, -1, _PANEL).transpose(1, 0, 2))


def _address(panels: NDArray[np.float32] | None) -> int | None:
    return None if panels is None else panels.ctypes.data


def usable(weights: transformer.Weights, shape: Shape) -> bool:
    """Tell whether compiled kernels decode these weights with the bits of PyTorch on one compute thread."""
    return shape.vocabulary <= _VOCABULARY and kernels.fit(weights, shape) and _same_bits(shape)


@lru_cache(maxsize=32)
def _same_bits(shape: Shape) -> bool:
    """Try the kernels on random weights of a shape: are their logits those of PyTorch, bit for bit?"""
    if _library() is None:
        return False
    generator = torch.Generator().manual_seed(0)
    with torch.inference_mode():
        weights = {name: 5 * tensor for name, tensor in transformer.initial(shape, generator).items()}
        positions, rows = min(shape.context, _TRIAL), torch.arange(_GROUP)
        ids = torch.randint(0, shape.vocabulary, (_GROUP, positions), generator=generator)
        ours, theirs = (kind(weights, shape, _GROUP, positions) for kind in (CompiledDecoder, Gpt2Decoder))
        same = torch.equal(ours.begin(ids[:, :1]), theirs.begin(ids[:, :1]))
        for t in range(1, positions):
            if t % 2 == 0 and len(rows) > 1:  # with every number of rows, down to one
                rows = rows[1:]
                for decoder in (ours, theirs):
                    decoder.keep(torch.arange(1, len(rows) + 1), t)
            same = same and torch.equal(ours.step(ids[rows, t], t), theirs.step(ids[rows, t], t))
    return same


@lru_cache(maxsize=1)
def _library() -> ctypes.CDLL | None:
    """Return the compiled kernels with the types of their arguments; None if there are none."""
    library = kernels.library()
    if library is not None:
        pointer, integer, model = ctypes.c_void_p, ctypes.c_int64, ctypes.POINTER(_Model)
        library.fill.argtypes = [model, integer, integer, integer, pointer, pointer]
        library.step.argtypes = [model, pointer, integer, pointer, integer, pointer]
        library.advance.argtypes = [model, ctypes.POINTER(_Texts), integer, integer, integer]
        for function in (library.fill, library.step, library.advance):
            function.restype = None
    return library
