"""Weights of a GPT-2 checkpoint, by the names of ``transformers.GPT2LMHeadModel``."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.language.gpt2.shape import Shape


def read_weights(folder: Path, shape: Shape) -> dict[str, Tensor]:
    """Read the weights of a GPT-2 checkpoint as float32 tensors, by the names of ``GPT2LMHeadModel``.

    Accepts one or several safetensors files or a ``pytorch_model.bin``; names may lack the ``transformer.`` prefix, as
    in the oldest files of the Hub. Raises DataError for a missing, misshapen or unreadable weight.
    """
    from safetensors.torch import load_file

    stored: dict[str, Tensor] = {}
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))
    if not files:
        raise DataError(f"{folder} contains no weights; a checkpoint needs a model.safetensors beside its config.json.")
    for path in files:
        try:
            tensors = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
        except Exception as error:  # safetensors and torch raise many types for a damaged file
            raise DataError(f"{path} cannot be read as weights ({error}); write or download it again.") from error
        stored |= {name if name.startswith("transformer.") else f"transformer.{name}": t for name, t in tensors.items()}
    weights = {}
    for name, size in shape.parameters().items():
        if name not in stored:
            raise DataError(
                f'{folder} lacks the weight "{name}"; it does not contain the GPT-2 that its config.json describes.'
            )
        if tuple(stored[name].shape) != size:
            raise DataError(f'the weight "{name}" in {folder} has shape {tuple(stored[name].shape)}, not {size}.')
        # A copy: the tensors of safetensors are views of the file, and change with it.
        weights[name] = stored.pop(name).to(torch.float32, copy=True)
    return weights
