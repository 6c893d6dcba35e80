"""The shape of a GPT-2: sizes, parameter names, and the configuration file that ``transformers`` reads.

It imports nothing heavy, so parameters and tokens can be counted before anything is built.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ecosystem.errors import DataError
from ecosystem.families.checkpoint import read_config

NARROW = 20_000_000
"""Maximum parameters of a model that one thread computes; see cohort.py."""

_SUPPORTED = {
    "activation_function": "gelu_new",
    "scale_attn_weights": True,
    "scale_attn_by_inverse_layer_idx": False,
    "reorder_and_upcast_attn": False,
    "tie_word_embeddings": True,
    "add_cross_attention": False,
}
"""Settings that the implementation assumes; they are also the defaults of a config.json."""


@dataclass(frozen=True)
class Shape:
    """Sizes of a GPT-2: layers, width, heads, vocabulary (tokens), context (positions), and width of the MLP."""

    n_layer: int
    n_embd: int
    n_head: int
    vocabulary: int
    context: int
    n_inner: int
    eps: float = 1e-5

    LINEAR: ClassVar[tuple[str, ...]] = ("attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj")
    """Names of the linear layers of a block, in the order of the computation."""

    def parameters(self) -> dict[str, tuple[int, ...]]:
        """Return the names and sizes of one member's parameters, as in a checkpoint of ``GPT2LMHeadModel``."""
        d = self.n_embd
        sizes: dict[str, tuple[int, ...]] = {
            "transformer.wte.weight": (self.vocabulary, d),
            "transformer.wpe.weight": (self.context, d),
        }
        for i in range(self.n_layer):
            sizes |= self.layer(i)
        return sizes | {"transformer.ln_f.weight": (d,), "transformer.ln_f.bias": (d,)}

    def layer(self, i: int) -> dict[str, tuple[int, ...]]:
        """Return the names and sizes of the parameters of layer i."""
        d, inner = self.n_embd, self.n_inner
        block = f"transformer.h.{i}."
        return {
            block + "ln_1.weight": (d,),
            block + "ln_1.bias": (d,),
            block + "attn.c_attn.weight": (d, 3 * d),
            block + "attn.c_attn.bias": (3 * d,),
            block + "attn.c_proj.weight": (d, d),
            block + "attn.c_proj.bias": (d,),
            block + "ln_2.weight": (d,),
            block + "ln_2.bias": (d,),
            block + "mlp.c_fc.weight": (d, inner),
            block + "mlp.c_fc.bias": (inner,),
            block + "mlp.c_proj.weight": (inner, d),
            block + "mlp.c_proj.bias": (d,),
        }

    def linear_layers(self) -> dict[str, tuple[int, ...]]:
        """Return the names of the linear layers of all blocks, and the sizes of their inputs and outputs."""
        names = [f"transformer.h.{i}.{part}" for i in range(self.n_layer) for part in self.LINEAR]
        sizes = self.parameters()
        return {name: sizes[f"{name}.weight"] for name in names}

    def count(self) -> int:
        """Count the parameters of one member."""
        return sum(math.prod(size) for size in self.parameters().values())

    def flops(self, length: int | None = None) -> int:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens (default: context).

        They are twice the weights that a token is multiplied with, plus causal attention over half the length on
        average. A training step costs three times as much (Kaplan et al. 2020, section 2.1).
        """
        d = self.n_embd
        matrices = self.n_layer * (4 * d * d + 2 * d * self.n_inner) + d * self.vocabulary
        return 2 * matrices + 2 * self.n_layer * d * (length or self.context)

    def config(self, end_of_text: int) -> dict[str, Any]:
        """Return the content of a ``config.json`` that ``transformers`` opens as this model."""
        return {
            **_SUPPORTED,
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_layer": self.n_layer,
            "n_embd": self.n_embd,
            "n_head": self.n_head,
            "n_inner": self.n_inner,
            "n_positions": self.context,
            "vocab_size": self.vocabulary,
            "layer_norm_epsilon": self.eps,
            "embd_pdrop": 0.0,
            "attn_pdrop": 0.0,
            "resid_pdrop": 0.0,
            "initializer_range": 0.02,
            "bos_token_id": end_of_text,
            "eos_token_id": end_of_text,
            "dtype": "float32",
        }

    @classmethod
    def read(cls, folder: Path) -> Shape:
        """Read the shape from the ``config.json`` of a checkpoint folder; raise DataError if it is not a GPT-2."""
        config = read_config(folder)
        model_type = config.get("model_type")
        if model_type != "gpt2":
            raise DataError(
                f'{folder / "config.json"} describes a model of type "{model_type}", not "gpt2"; '
                'use kind = "causal_lm", which supports any causal language model.'
            )
        for key, value in _SUPPORTED.items():
            if config.get(key, value) != value:
                raise DataError(
                    f"{folder / 'config.json'} has {key} = {config[key]!r}, which the gpt2 family does not support "
                    f'(it must be {value!r}); use kind = "causal_lm".'
                )
        try:
            d = int(config.get("n_embd", 768))
            return cls(
                n_layer=int(config.get("n_layer", 12)),
                n_embd=d,
                n_head=int(config.get("n_head", 12)),
                vocabulary=int(config.get("vocab_size", 50257)),
                context=int(config.get("n_positions", 1024)),
                n_inner=int(config.get("n_inner") or 4 * d),
                eps=float(config.get("layer_norm_epsilon", 1e-5)),
            )
        except (TypeError, ValueError) as error:
            raise DataError(f"{folder / 'config.json'} has a size that is not a number: {error}.") from error
