"""Weights of the members of a cohort: one tensor per parameter, with the member as its leading axis."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import BuildContext
from ecosystem.families.requests import FitRequest, Member
from ecosystem.families.training import Fit
from ecosystem.streams import Stream


class MemberWeights:
    """Weights of M members of one shape (``tensors``: name → [M, ...]), and their initial weights (``initial``)."""

    def __init__(
        self,
        model: str,
        members: int,
        initial: Mapping[str, Tensor],
        draw: Callable[[Stream], Mapping[str, Tensor]],
        build: BuildContext,
    ) -> None:
        """``initial`` maps names to the tensors of one member; ``draw`` makes random ones from a stream."""
        self.model = model
        self.device = torch.device(build.device)
        self.initial = {name: tensor.to(self.device, torch.float32).contiguous() for name, tensor in initial.items()}
        self.tensors = {name: t.unsqueeze(0).repeat(members, *[1] * t.dim()) for name, t in self.initial.items()}
        self._draw = draw
        self._random = build.streams.at(f"model/{model}/random")

    def count(self) -> int:
        """Count the parameters of one member."""
        return sum(tensor.numel() for tensor in self.initial.values())

    def of(self, member: Member) -> dict[str, Tensor]:
        """Return the weights of one member (views, not copies), the initial weights, or random ones."""
        if member == "initial":
            return self.initial
        if member == "random":
            return self._draw_weights(self._random)
        return {name: tensor[member] for name, tensor in self.tensors.items()}

    def start(self, request: FitRequest) -> dict[str, Tensor]:
        """Return a copy of the weights that a fit starts from."""
        if request.start == "scratch":
            return self._draw_weights(request.stream.child("initial"))
        weights = self.of(request.member) if request.start == "previous" else self.initial
        return {name: tensor.clone() for name, tensor in weights.items()}

    def update(self, fit: Fit) -> None:
        """Copy the parameters of a finished fit to the members that it trained."""
        for name, parameter in zip(self.tensors, fit.parameters, strict=True):
            for row, member in enumerate(fit.members):
                self.tensors[name][member].copy_(parameter[row] if fit.stacked else parameter)

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's parameters, float32 with a leading member axis."""
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self.tensors.items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if a name or a shape differs."""
        for name, tensor in self.tensors.items():
            shape = state[name].shape if name in state else "missing"
            if shape != tuple(tensor.shape):
                raise DataError(
                    f'the stored weights of model "{self.model}" do not fit: {name} is {shape}, not '
                    f"{tuple(tensor.shape)}; they belong to another preset or another number of members."
                )
        for name, tensor in self.tensors.items():
            tensor.copy_(torch.from_numpy(np.ascontiguousarray(state[name])))

    def _draw_weights(self, stream: Stream) -> dict[str, Tensor]:
        return {name: tensor.to(self.device) for name, tensor in self._draw(stream).items()}
