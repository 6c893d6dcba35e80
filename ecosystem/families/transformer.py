"""The mathematics of GPT-2, on the weights of one member or of a stack of members.

Names, layouts and arithmetic are those of ``transformers.GPT2LMHeadModel`` (Radford et al. 2019): pre-norm blocks,
weights stored ``[in, out]``, ``gelu_new``, the output matrix tied to the token embedding. Weights are a mapping
from the checkpoint's names to tensors; either without a member axis (``wte`` of shape [V, d]: two-dimensional matrix
products, the fastest on a CPU) or all with a leading one (``wte`` of shape [M, V, d]: batched products, for a GPU).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ecosystem.families.shape import Shape

Weights = Mapping[str, Tensor]

WTE = "transformer.wte.weight"
WPE = "transformer.wpe.weight"


def initial(shape: Shape, generator: torch.Generator) -> dict[str, Tensor]:
    """Draw one member's weights as GPT-2 does: normal, std 0.02; residual projections over sqrt(2 n_layer)."""
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


def linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x @ weight + bias`` for x of shape [N, in], or [M, N, in] with a stack of members."""
    if weight.dim() == 2:
        return torch.addmm(bias, x, weight)
    return torch.baddbmm(bias.unsqueeze(1), x, weight)


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Layer normalisation over the last axis of x, [N, d] or [M, N, d]."""
    if weight.dim() == 1:
        return F.layer_norm(x, weight.shape, weight, bias, eps)
    return F.layer_norm(x, weight.shape[-1:], None, None, eps) * weight.unsqueeze(1) + bias.unsqueeze(1)


def embed(weights: Weights, ids: Tensor, first: int = 0) -> Tensor:
    """Embed token ids [B, T] (or [M, B, T]) at positions first..first+T-1: [B T, d] (or [M, B T, d])."""
    wte, wpe = weights[WTE], weights[WPE]
    places = slice(first, first + ids.shape[-1])
    if wte.dim() == 2:
        return (F.embedding(ids, wte) + wpe[places]).flatten(0, 1)
    members, vocabulary, width = wte.shape
    member = torch.arange(members, device=ids.device).view(-1, 1, 1)
    tokens = F.embedding(ids + member * vocabulary, wte.reshape(-1, width))
    return (tokens + wpe[:, None, places]).flatten(1, 2)


def hidden(weights: Weights, shape: Shape, ids: Tensor, cache: Cache | None = None) -> Tensor:
    """Run the blocks over token ids [B, T] (or [M, B, T]) from position 0, up to and with the last layer norm.

    Returns [B T, d] (or [M, B T, d]); the logits are its product with the transposed token embedding. If a cache is
    given, the keys and values of all positions are written into it.
    """
    *lead, length = ids.shape
    rows, d, heads, eps = math.prod(lead), shape.n_embd, shape.n_head, shape.eps
    x = embed(weights, ids)
    for i in range(shape.n_layer):
        block = f"transformer.h.{i}."
        a = layer_norm(x, weights[block + "ln_1.weight"], weights[block + "ln_1.bias"], eps)
        qkv = linear(a, weights[block + "attn.c_attn.weight"], weights[block + "attn.c_attn.bias"])
        q, k, v = qkv.view(rows, length, 3, heads, d // heads).permute(2, 0, 3, 1, 4).unbind(0)
        if cache is not None:
            cache.layers[i][:, 0, :, :length], cache.layers[i][:, 1, :, :length] = k, v
        a = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        a = a.transpose(1, 2).reshape(x.shape)
        x = x + linear(a, weights[block + "attn.c_proj.weight"], weights[block + "attn.c_proj.bias"])
        a = layer_norm(x, weights[block + "ln_2.weight"], weights[block + "ln_2.bias"], eps)
        a = linear(a, weights[block + "mlp.c_fc.weight"], weights[block + "mlp.c_fc.bias"])
        a = F.gelu(a, approximate="tanh")
        x = x + linear(a, weights[block + "mlp.c_proj.weight"], weights[block + "mlp.c_proj.bias"])
    return layer_norm(x, weights["transformer.ln_f.weight"], weights["transformer.ln_f.bias"], eps)


def logits(weights: Weights, x: Tensor) -> Tensor:
    """Return the logits [N, V] (or [M, N, V]) of hidden states [N, d] (or [M, N, d])."""
    return x @ weights[WTE].transpose(-1, -2)


@dataclass
class Cache:
    """Keys and values of all positions so far: one tensor [rows, 2, heads, positions, head width] per layer.

    With a stack of members ``rows`` counts the rows of all members, member by member.
    """

    layers: list[Tensor]

    @classmethod
    def empty(cls, shape: Shape, rows: int, length: int, like: Tensor) -> Cache:
        """Room for ``rows`` documents of up to ``length`` positions, on the device and in the type of ``like``."""
        size = (rows, 2, shape.n_head, length, shape.n_embd // shape.n_head)
        return cls([like.new_empty(size) for _ in range(shape.n_layer)])

    def keep(self, rows: Tensor, used: int) -> None:
        """Keep only these rows (a rising index tensor), of which ``used`` positions are filled."""
        for i, layer in enumerate(self.layers):
            # The kept rows move to the front of the same memory; a new tensor would have to be paged in.
            layer[: len(rows), :, :, :used] = layer[rows, :, :, :used]
            self.layers[i] = layer[: len(rows)]


def decode(weights: Weights, shape: Shape, ids: Tensor, position: int, cache: Cache) -> Tensor:
    """Take one more token per row, ids [B] (or [M, B]), at one position: the hidden states [B, d] (or [M, B, d]).

    Small models spend as much time between operations as in them, and threads wait for each other there (every
    operation hands the interpreter lock on and takes it back), so this is written with as few of them as possible.
    """
    rows, heads, eps = ids.numel(), shape.n_head, shape.eps
    x = embed(weights, ids.unsqueeze(-1), position)
    for i, layer in enumerate(cache.layers):
        block = f"transformer.h.{i}."
        a = layer_norm(x, weights[block + "ln_1.weight"], weights[block + "ln_1.bias"], eps)
        qkv = linear(a, weights[block + "attn.c_attn.weight"], weights[block + "attn.c_attn.bias"])
        qkv = qkv.view(rows, 3, heads, 1, shape.n_embd // heads)
        layer.narrow(3, position, 1).copy_(qkv.narrow(1, 1, 2))
        keys, values = layer.narrow(3, 0, position + 1).unbind(1)
        a = F.scaled_dot_product_attention(qkv.select(1, 0), keys, values).view(x.shape)
        x += linear(a, weights[block + "attn.c_proj.weight"], weights[block + "attn.c_proj.bias"])
        a = layer_norm(x, weights[block + "ln_2.weight"], weights[block + "ln_2.bias"], eps)
        a = linear(a, weights[block + "mlp.c_fc.weight"], weights[block + "mlp.c_fc.bias"])
        a = F.gelu(a, approximate="tanh")
        x += linear(a, weights[block + "mlp.c_proj.weight"], weights[block + "mlp.c_proj.bias"])
    return layer_norm(x, weights["transformer.ln_f.weight"], weights["transformer.ln_f.bias"], eps)
