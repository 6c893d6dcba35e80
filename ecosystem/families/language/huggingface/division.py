"""Division of a module's layers over several GPUs, for a model that does not fit one.

Layers are computed in order, so one GPU works at a time. All else is on the first one: the embeddings and the output
matrix, which may be tied, and the last norm. Tokens go in there and logits come out there.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ecosystem.errors import DataError


def divide(module: Any, devices: Sequence[str]) -> list[int]:
    """Move a module to devices, in place, and let it move what its layers read; return the device of every layer.

    Layers are divided in order, by numbers of parameters. Raises DataError if there are fewer layers than devices.
    """
    path = _path_of_layers(module)
    layers: Any = module.get_submodule(path) if path else ()
    if len(layers) < len(devices):
        raise DataError(
            f"the {module.config.model_type} has {len(layers)} layers, too few for {len(devices)} GPUs; give at most "
            f"--gpus-per-worker {max(1, len(layers))}."
        )
    sizes = [_size(layer) for layer in layers]
    numbers = balanced(sizes, _size(module) - sum(sizes), len(devices))
    owner, _, name = path.rpartition(".")
    setattr(module.get_submodule(owner), name, torch.nn.ModuleList())
    module.to(devices[0])  # all else: the layers may not fit there
    setattr(module.get_submodule(owner), name, layers)
    for layer, number in zip(layers, numbers, strict=True):
        layer.to(devices[number])
        layer.register_forward_pre_hook(partial(_move_inputs, devices[number]), with_kwargs=True)
    layers[-1].register_forward_hook(lambda layer, inputs, output: _moved(output, devices[0]))
    return numbers


def balanced(sizes: Sequence[int], rest: int, devices: int) -> list[int]:
    """Return a device for every layer of these sizes, in order; the first device also has the ``rest``."""
    total = rest + sum(sizes)
    first = int(rest * devices >= total)  # 1: the rest fills the first device
    before = (0 if first else rest) + np.cumsum(sizes) - np.asarray(sizes) / 2  # to the middle of each layer
    share = (total - rest * first) / (devices - first)
    numbers: list[int] = (first + before // share).astype(int).tolist()
    return numbers


def _path_of_layers(module: Any) -> str:
    """Return the name of the list of a module's layers: the largest of its lists."""
    lists = {name: _size(part) for name, part in module.named_modules() if isinstance(part, torch.nn.ModuleList)}
    return max(lists, key=lists.__getitem__, default="")


def _size(module: Any) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _move_inputs(device: str, layer: Any, inputs: Any, named: Any) -> tuple[Any, Any]:
    return _moved(inputs, device), _moved(named, device)


def _moved(value: Any, device: str) -> Any:
    """Return a value with its tensors on a device; caches, whose layers are where they were computed, stay as is."""
    if isinstance(value, Tensor):
        return value.to(device)
    if type(value) in (tuple, list):
        return type(value)(_moved(one, device) for one in value)
    if type(value) is dict:
        return {key: _moved(one, device) for key, one in value.items()}
    return value
