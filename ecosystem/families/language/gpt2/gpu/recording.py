"""Functions of tensors without the cost of launching their operations: compiled, or recorded as a CUDA graph.

A launch takes the processor several microseconds, longer than many operations of a small model take the GPU. A
recorded function is launched whole; it reads and writes the same memory each time. Where compiling or recording fails,
the function is called as it is, and a sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Tensors = Sequence[Tensor]
Function = Callable[..., Tensors]
Record = Callable[[Function, Tensors], tuple[Callable[[], None], Tensors]]
"""Records a function of given tensors; returns what runs it again on their present values, and its results."""

_WARM_UPS = 3  # calls before a recording, which choose kernels and allocate their memory


class Compiled:
    """A function that ``torch.compile`` compiles when it is first called."""

    def __init__(self, function: Callable[..., Any], note: Callable[[str], None], **options: Any) -> None:
        """``options`` are those of ``torch.compile``; ``note`` is called with a sentence if it fails."""
        self._function, self._note, self._options = function, note, options
        self._compiled: Callable[..., Any] | None = None
        self._failed = False

    def __call__(self, *arguments: Any) -> Any:
        """Call the compiled function, or the original once compiling has failed."""
        if self._failed:
            return self._function(*arguments)
        try:
            if self._compiled is None:
                self._compiled = torch.compile(self._function, **self._options)
            return self._compiled(*arguments)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # compilers raise many types; an error of the function itself is raised again
            self._failed = True
            result = self._function(*arguments)
            self._note(f"torch.compile failed ({_reason(error)}); PyTorch computes without it, and slower")
            return result


class Recorded:
    """A function of tensors, recorded for the shapes of its first call; calls of other shapes are not recorded.

    The results are overwritten by the next call. The function must not read anything that changes besides its
    arguments, unless it changes in place.
    """

    def __init__(self, function: Function, note: Callable[[str], None], record: Record | None = None) -> None:
        """``record`` defaults to CUDA graphs."""
        self._function, self._note, self._record = function, note, record or record_cuda
        self._inputs: Tensors | None = None
        self._replay: Callable[[], None] | None = None
        self._results: Tensors = ()

    def __call__(self, *inputs: Tensor) -> Tensors:
        """Return the results of the function."""
        if self._inputs is None:
            self._inputs = [tensor.clone() for tensor in inputs]
            try:
                self._replay, self._results = self._record(self._function, self._inputs)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._note(f"recording a CUDA graph failed ({_reason(error)}); PyTorch computes without it, and slower")
        shapes = [tensor.shape for tensor in inputs]
        if self._replay is None or shapes != [tensor.shape for tensor in self._inputs]:
            return self._function(*inputs)
        for static, tensor in zip(self._inputs, inputs, strict=True):
            static.copy_(tensor)
        self._replay()
        return self._results


def record_cuda(function: Function, inputs: Tensors) -> tuple[Callable[[], None], Tensors]:
    """Record a function as a CUDA graph."""
    stream: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(_WARM_UPS):
            function(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may compute something else
        results = function(*inputs)
    return graph.replay, results


def record_calls(function: Function, inputs: Tensors) -> tuple[Callable[[], None], Tensors]:
    """Do on any device what a CUDA graph does: call the function on the same inputs, into the same results."""
    results = [tensor.clone() for tensor in function(*inputs)]

    def replay() -> None:
        for kept, tensor in zip(results, function(*inputs), strict=True):
            kept.copy_(tensor)

    return replay, results


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
