"""The arithmetic of GPT-2, on the weights of one member or of a stack of members.

Names, layouts and arithmetic are those of ``transformers.GPT2LMHeadModel`` (Radford et al. 2019): pre-norm blocks,
weights stored ``[in, out]``, ``gelu_new``, and the output matrix tied to the token embedding. Weights are a mapping
from the checkpoint's names to tensors, either without a member axis (``wte`` of shape [V, d]: two-dimensional matrix
products, the fastest on a CPU) or all with a leading one (``wte`` of shape [M, V, d]: batched products, for a GPU).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ecosystem.families.language.gpt2.shape import Shape

Weights = Mapping[str, Tensor]

LEAST_ROWS = 4
"""Minimum rows of the matrix products of a decoder on a CPU: MKL sums products of fewer rows in another order."""
WTE = "transformer.wte.weight"
WPE = "transformer.wpe.weight"
OUTER = (WTE, WPE, "transformer.ln_f.weight", "transformer.ln_f.bias")
"""Names of the parameters outside the layers."""


def initial(shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw one member's weights as GPT-2 does: normal, std 0.02, over sqrt(2 n_layer) for residual projections."""
    weights = {}
    for name, size in shape.parameters().items():
        tensor = torch.zeros(size)
        if ".ln_" in name and name.endswith("weight"):
            tensor.fill_(1.0)
        elif name.endswith("weight"):
            std = 0.02 / math.sqrt(2 * shape.n_layer) if name.endswith("c_proj.weight") else 0.02
            tensor.normal_(0.0, std, generator=generator)
        weights[name] = tensor
    return weights


class Pair(NamedTuple):
    """The matrices of a low-rank adapter, [rank, in] and [out, rank], and the factor of their product."""

    down: Tensor
    up: Tensor
    scale: float


class Pairs(NamedTuple):
    """The adapters of the linear layers of one block; None: it has none."""

    c_attn: Pair | None = None
    attn_proj: Pair | None = None
    c_fc: Pair | None = None
    mlp_proj: Pair | None = None


def linear(x: Tensor, weight: Tensor, bias: Tensor, pair: Pair | None = None) -> Tensor:
    """Compute ``x @ weight + bias`` for x of shape [N, in], or [M, N, in] in a stack of members.

    A ``pair`` adds its low-rank term; stacks have none.
    """
    if pair is not None:
        return torch.addmm(torch.addmm(bias, x, weight), x @ pair.down.t(), pair.up.t(), alpha=pair.scale)
    if weight.dim() == 2:
        return torch.addmm(bias, x, weight)
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Apply layer normalisation over the last axis of x, [N, d] or [M, N, d]."""
    if weight.dim() == 1:
        return torch.layer_norm(x, weight.shape, weight, bias, eps)
    return torch.layer_norm(x, weight.shape[-1:], None, None, eps) * weight.unsqueeze(1) + bias.unsqueeze(1)


def padded(rows: Tensor) -> Tensor:
    """Repeat the first of fewer than ``LEAST_ROWS`` rows, so that every row's numbers are independent of the others."""
    missing = LEAST_ROWS - len(rows)
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing > 0 else rows


def embed(weights: Weights, ids: Tensor, first: int = 0) -> Tensor:
    """Embed token ids [B, T] (or [M, B, T]) at positions from ``first``; return [B T, d] (or [M, B T, d])."""
    wte, wpe = weights[WTE], weights[WPE]
    positions = slice(first, first + ids.shape[-1])
    if wte.dim() == 2:
        return (torch.embedding(wte, ids) + wpe[positions]).flatten(0, 1)
    members, vocabulary, width = wte.shape
    member = torch.arange(members, device=ids.device).view(-1, 1, 1)
    tokens = torch.embedding(wte.reshape(-1, width), ids + member * vocabulary)
    return (tokens + wpe[:, None, positions]).flatten(1, 2)


class Block(NamedTuple):
    """The parameters of one layer, in the order of the checkpoint."""

    ln_1_weight: Tensor
    ln_1_bias: Tensor
    c_attn_weight: Tensor
    c_attn_bias: Tensor
    attn_proj_weight: Tensor
    attn_proj_bias: Tensor
    ln_2_weight: Tensor
    ln_2_bias: Tensor
    c_fc_weight: Tensor
    c_fc_bias: Tensor
    mlp_proj_weight: Tensor
    mlp_proj_bias: Tensor


def blocks(weights: Weights, shape: Shape) -> list[Block]:
    """Group the parameters by layer."""
    names = shape.layer(0)
    return [Block(*(weights[name.replace(".h.0.", f".h.{i}.")] for name in names)) for i in range(shape.n_layer)]


def feed_forward(x: Tensor, block: Block, eps: float, pairs: Pairs | None = None) -> Tensor:
    """Return the output of the MLP of a block, which is added to x."""
    pairs = pairs or Pairs()
    a = layer_norm(x, block.ln_2_weight, block.ln_2_bias, eps)
    a = F.gelu(linear(a, block.c_fc_weight, block.c_fc_bias, pairs.c_fc), approximate="tanh")
    return linear(a, block.mlp_proj_weight, block.mlp_proj_bias, pairs.mlp_proj)


def hidden(
    weights: Weights,
    shape: Shape,
    ids: Tensor,
    cache: Cache | None = None,
    low_rank: Sequence[Pairs] | None = None,
) -> Tensor:
    """Run all blocks and the last layer norm over token ids [B, T] (or [M, B, T]) from position 0.

    Returns [B T, d] (or [M, B T, d]); the logits are its product with the transposed token embedding. The keys and
    values of all positions are written to ``cache``, if there is one. ``low_rank`` are adapters, by block.
    """
    *lead, length = ids.shape
    rows, heads, eps = math.prod(lead), shape.n_head, shape.eps
    x = embed(weights, ids)
    for i, block in enumerate(blocks(weights, shape)):
        a = layer_norm(x, block.ln_1_weight, block.ln_1_bias, eps)
        pairs = Pairs() if low_rank is None else low_rank[i]
        qkv = linear(a, block.c_attn_weight, block.c_attn_bias, pairs.c_attn)
        q, k, v = qkv.view(rows, length, 3, heads, shape.n_embd // heads).permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            cache.layers[i][0, :, :, :length], cache.layers[i][1, :, :, :length] = k, v
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        a = a.transpose(1, 2).reshape(x.shape)
        x = x + linear(a, block.attn_proj_weight, block.attn_proj_bias, pairs.attn_proj)
        x = x + feed_forward(x, block, eps, pairs)
    return final(weights, x, eps)


def final(weights: Weights, x: Tensor, eps: float) -> Tensor:
    """Apply the last layer norm."""
    weight, bias = (weights[name] for name in OUTER[2:])
    return layer_norm(x, weight, bias, eps)


def logits(weights: Weights, x: Tensor) -> Tensor:
    """Return the logits [N, V] (or [M, N, V]) of hidden states [N, d] (or [M, N, d])."""
    return x @ weights[WTE].transpose(-1, -2)


class Cache:
    """Keys and values of all positions so far: one tensor [2, rows, heads, positions, head width] per layer.

    In a stack of members, rows are ordered by member.
    """

    def __init__(self, shape: Shape, rows: int, length: int, like: Tensor) -> None:
        """Allocate ``rows`` documents of up to ``length`` positions, on the device and in the type of ``like``."""
        size = (2, rows, shape.n_head, length, shape.n_embd // shape.n_head)
        self.layers = [like.new_empty(size) for _ in range(shape.n_layer)]
        self._view()

    def keep(self, rows: Tensor, used: int) -> None:
        """Keep only these rows (an ascending index tensor), of which ``used`` positions are filled."""
        for i, layer in enumerate(self.layers):
            # Rows move to the front of the same memory, since a new tensor would have to be paged in.
            layer[:, : len(rows), :, :used] = layer[:, rows, :, :used]
            self.layers[i] = layer[:, : len(rows)]
        self._view()

    def _view(self) -> None:
        """Make the views that every token needs: the target of each position, and the factors of the products."""
        self.positions = [layer.unbind(3) for layer in self.layers]  # per position: [2, rows, heads, head width]
        self.keys = [layer[0].flatten(0, 1).mT for layer in self.layers]  # [rows heads, head width, positions]
        self.values = [layer[1].flatten(0, 1) for layer in self.layers]  # [rows heads, positions, head width]


def decode(weights: Weights, layers: list[Block], shape: Shape, ids: Tensor, position: int, cache: Cache) -> Tensor:
    """Read one more token per row, ids [B] (or [M, B]), at one position; return hidden states [B, d] (or [M, B, d]).

    ``layers`` are :func:`decoding_blocks`. Small models spend as much time between operations as in them, and threads
    wait for one another there, since every operation releases and reacquires the interpreter lock. So this function
    uses as few operations as possible. One query per row is a product of a vector and a matrix, for which two batched
    products are up to three times as fast on a CPU as ``scaled_dot_product_attention``.
    """
    rows, heads, width, eps = ids.numel(), shape.n_head, shape.n_embd // shape.n_head, shape.eps
    x = embed(weights, ids.unsqueeze(-1), position)
    for block, positions, keys, values in zip(layers, cache.positions, cache.keys, cache.values, strict=True):
        a = layer_norm(x, block.ln_1_weight, block.ln_1_bias, eps)
        qkv = linear(a, block.c_attn_weight, block.c_attn_bias).view(rows, 3, heads, width).transpose(0, 1)
        positions[position].copy_(qkv.narrow(0, 1, 2))
        scores = torch.bmm(qkv.select(0, 0).reshape(rows * heads, 1, width), keys.narrow(2, 0, position + 1))
        a = torch.bmm(torch.softmax(scores, -1), values.narrow(1, 0, position + 1)).view(x.shape)
        x += linear(a, block.attn_proj_weight, block.attn_proj_bias)
        x += feed_forward(x, block, eps)
    return final(weights, x, eps)


def decoding_blocks(weights: Weights, shape: Shape) -> list[Block]:
    """Group the parameters by layer, with queries already divided by the square root of the head width."""
    scaled = []
    for block in blocks(weights, shape):
        weight, bias = block.c_attn_weight.clone(), block.c_attn_bias.clone()
        for part in (weight, bias):
            part[..., : shape.n_embd] *= (shape.n_embd // shape.n_head) ** -0.5
        scaled.append(block._replace(c_attn_weight=weight, c_attn_bias=bias))
    return scaled
