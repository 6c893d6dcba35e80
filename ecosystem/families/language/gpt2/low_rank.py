"""Low-rank adapters (LoRA, Hu et al. 2022) of a GPT-2: small matrices that are trained instead of its weights.

The product with the weight W of a linear layer, x W, becomes x W + (alpha / rank) x Aᵀ Bᵀ, with A [rank, in] and
B [out, rank] under the names of ``peft``. All members share one set of the base model's weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.language import loss
from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.compiled_training import gradients_of
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.families.language.gpt2.transformer import Pair, Pairs
from ecosystem.families.language.huggingface.adapters import PREFIX, Adapter
from ecosystem.families.training import Result, Rows
from ecosystem.families.training_spec import Objective
from ecosystem.streams import Stream


class LowRank:
    """The weights of a base model, and which of its layers have an adapter."""

    def __init__(self, adapter: Adapter, shape: Shape, base: Mapping[str, Tensor]) -> None:
        """Raise DataError if no layer has one of the target names, or the rank is too large."""
        adapter.require_rank(shape.n_embd)
        self._adapter, self._shape, self._base = adapter, shape, base
        self._sizes = {name: size for name, size in shape.linear_layers().items() if adapter.adapts(name)}
        if not self._sizes:
            raise DataError(
                f"adapter.targets = {adapter.targets}: this gpt2 of {shape.n_layer} layers has no linear layers by "
                f'these names; they end in {", ".join(shape.LINEAR)}. "all-linear" is all of them.'
            )

    def initial(self, stream: Stream) -> dict[str, Tensor]:
        """Draw the weights of an untrained adapter, as ``peft`` does: A uniform in ± 1 / sqrt(in), B zero."""
        generator = torch.Generator().manual_seed(stream.integer())
        weights: dict[str, Tensor] = {}
        for name, (inputs, outputs) in self._sizes.items():
            down = torch.empty(self._adapter.rank, inputs)
            torch.nn.init.kaiming_uniform_(down, a=math.sqrt(5), generator=generator)
            weights |= dict(zip(_names(name), (down, torch.zeros(outputs, self._adapter.rank)), strict=True))
        return weights

    def base(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the base model's weights, or those of ``weights``, which random ones bring with them."""
        return {name: weights.get(name, tensor) for name, tensor in self._base.items()}

    def pairs(self, weights: Mapping[str, Tensor]) -> list[Pairs]:
        """Return the matrices of the adapter with these weights, by layer."""

        def pair(name: str) -> Pair | None:
            if name not in self._sizes:
                return None
            down, up = _names(name)
            return Pair(weights[down], weights[up], self._adapter.scale)

        layers = range(self._shape.n_layer)
        return [Pairs(*(pair(f"transformer.h.{i}.{part}") for part in self._shape.LINEAR)) for i in layers]

    def merged(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights of a whole model with those of an adapter added to them."""
        whole = self.base(weights)
        for name in self._sizes:
            down, up = (weights[key] for key in _names(name))
            key = f"{name}.weight"
            whole[key] = torch.addmm(whole[key], down.t(), up.t(), alpha=self._adapter.scale)
        return whole

    def gradients(
        self,
        weights: Mapping[str, Tensor],
        rows: Rows,
        total: Sequence[Tensor] | None,
        objective: Objective | None = None,
    ) -> Result:
        """Return the weighted loss of rows [rows, length] and its gradients by the adapter, added to ``total``."""

        def forward(adapter: Mapping[str, Tensor], ids: Tensor) -> tuple[Tensor, Tensor]:
            x = transformer.hidden(self._base, self._shape, ids, low_rank=self.pairs(adapter))
            return x, self._base[transformer.WTE]

        return gradients_of(forward, weights, rows, total, partial(loss.scored_loss, objective=objective))


def _names(layer: str) -> tuple[str, str]:
    return f"{PREFIX}{layer}.lora_A.weight", f"{PREFIX}{layer}.lora_B.weight"
