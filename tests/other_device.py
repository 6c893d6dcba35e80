"""A second device for tests without a GPU: it computes on the CPU, and refuses what mixes it with another device."""

from contextlib import contextmanager

import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

DEVICE = torch.device("lazy:1")  # a type that PyTorch knows but cannot compute on
ATEN = torch.ops.aten
MIXING = (ATEN._to_copy.default, ATEN.copy_.default, ATEN.index.Tensor)  # allowed on GPUs; an index is on the CPU


class OtherTensor(torch.Tensor):
    """A tensor on the device; ``held`` has its values."""

    @staticmethod
    def __new__(cls, held):
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.size(), strides=held.stride(), dtype=held.dtype, device=DEVICE
        )
        made.held = held
        return made

    def __tensor_flatten__(self):  # Module.to() keeps parameters that move to such a class
        return ["held"], None

    @staticmethod
    def __tensor_unflatten__(tensors, *rest):
        return OtherTensor(tensors["held"])

    @classmethod
    def __torch_function__(cls, function, types, args=(), kwargs=None):
        if function == torch.Tensor.data.__set__:
            args[0].held = args[1].held
            return None
        with torch._C.DisableTorchFunctionSubclass():  # which would give every result this class
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class Operations(TorchDispatchMode):
    """Computes all operations, those that make tensors on the device included."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        return computed(function, args, kwargs or {})


class Constants(TorchFunctionMode):
    """Makes tensors from numbers, which are no operations."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if function is torch.tensor and kwargs.get("device") == DEVICE:
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(DEVICE)
        return function(*args, **kwargs)


@contextmanager
def other_device():
    """Make the device available in this thread."""
    with Operations(), Constants():
        yield str(DEVICE)


def computed(function, args, kwargs):
    """Compute an operation on the device of its tensors, or on that which it names.

    Numbers on the CPU, which GPUs accept, are refused too: they stand for numbers on another GPU.
    """
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
    others = [isinstance(tensor, OtherTensor) for tensor in tensors]
    if len(set(others)) > 1 and function not in MIXING:
        raise RuntimeError(f"{function}: Expected all tensors to be on the same device")
    device = kwargs.get("device")
    there = others[:1] == [True] if device is None else torch.device(device) == DEVICE
    args, kwargs = tree_map(lambda t: t.held if isinstance(t, OtherTensor) else t, (args, kwargs))
    result = function(*args, **(kwargs if device is None else {**kwargs, "device": "cpu"}))
    return tree_map(lambda t: OtherTensor(t) if there and isinstance(t, torch.Tensor) else t, result)
