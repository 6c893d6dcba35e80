"""Weights of the members of a cohort: one tensor per parameter and member.

A member's tensors are never written to once a fit is over, so that members share those that they start from, and a
state holds references instead of copies. Models of real size do more: their initial weights are read again when they
are needed, and a member gives up its old weights when a fit begins.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import BuildContext
from ecosystem.families.footprint import LARGE
from ecosystem.families.requests import FitRequest, Member
from ecosystem.families.training import Fit
from ecosystem.streams import Stream


class Weights(dict[str, Tensor]):
    """Parameters of one member by name; unlike a plain dictionary, it can be referred to weakly."""


class MemberState(Mapping[str, NDArray[Any]]):
    """Parameters of all members as arrays with a leading member axis, each made when it is asked for."""

    def __init__(self, members: Sequence[Weights]) -> None:
        """Refer to the weights of ``members``."""
        self.members = list(members)

    def __getitem__(self, name: str) -> NDArray[Any]:
        return np.stack([weights[name].cpu().numpy() for weights in self.members])

    def __iter__(self) -> Iterator[str]:
        return iter(self.members[0])

    def __len__(self) -> int:
        return len(self.members[0])


class MemberWeights:
    """Weights of M members of one shape, and their initial weights."""

    def __init__(
        self,
        model: str,
        members: int,
        initial: Mapping[str, Tensor],
        draw: Callable[[Stream], Mapping[str, Tensor]],
        build: BuildContext,
        reread: Callable[[], Mapping[str, Tensor]] | None = None,
        devices: Mapping[str, torch.device] | None = None,
    ) -> None:
        """``initial`` maps names to the tensors of one member; ``draw`` makes random ones from a stream.

        ``reread`` returns ``initial`` again. With it, large models do not keep ``initial`` in memory.
        ``devices``: where the tensors of a model on several devices are; others are on that of the build.
        """
        self.model = model
        self.device = torch.device(build.device)
        self._devices = devices or {}
        self.shapes = {name: tuple(tensor.shape) for name, tensor in initial.items()}
        self._draw = draw
        self._random = build.streams.at(f"model/{model}/random")
        self._folder = build.cache
        self._reread = reread if self.count() >= LARGE else None
        first = self._placed(initial)
        self._initial = weakref.ref(first)
        self._kept = first if self._reread is None else None
        self._members: list[Weights] = [first] * members
        self._undo: dict[int, IO[bytes] | None] = {}  # during a fit; None: the member had the initial weights

    def count(self) -> int:
        """Count the parameters of one member."""
        return sum(int(np.prod(shape)) for shape in self.shapes.values())

    @property
    def initial(self) -> Weights:
        """The weights that members start from, read again if no one holds them."""
        weights = self._initial()
        if weights is None:
            assert self._reread is not None  # otherwise they are kept
            weights = self._placed(self._reread())
            self._initial = weakref.ref(weights)
        return weights

    def of(self, member: Member) -> Weights:
        """Return the weights of one member, the initial weights, or random ones; do not write to them."""
        if member == "initial":
            return self.initial
        if member == "random":
            return self._draw_weights(self._random)
        return self._members[member]

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Give all members the weights that they had if an error is raised inside."""
        before = None if self._reread is not None else list(self._members)
        try:
            yield
        except BaseException:
            if before is not None:
                self._members = before
            for member, file in self._undo.items():
                self._members[member] = self.initial if file is None else self._recovered(file)
            raise
        finally:
            for file in self._undo.values():
                if file is not None:
                    file.close()
            self._undo = {}

    def start(self, request: FitRequest) -> Weights:
        """Return a copy of the weights that a fit starts from; call it inside :meth:`changing`.

        A member of a large model gives up its own weights, which are then on disk until the fits have ended.
        """
        if request.start == "scratch":
            weights = self._draw_weights(request.stream.child("initial"))
        else:
            source = self.of(request.member) if request.start == "previous" else self.initial
            weights = Weights({name: tensor.clone() for name, tensor in source.items()})
        if self._reread is not None:
            self._give_up(request.member, weights)
        return weights

    def _give_up(self, member: int, replacement: Weights) -> None:
        old, file = self._members[member], None
        if old is not self._initial():
            self._folder.mkdir(parents=True, exist_ok=True)
            file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 (closed by changing())
            for tensor in old.values():
                file.write(np.ascontiguousarray(tensor.cpu().numpy()).data)  # tofile() hides the cause of an error
        self._undo[member] = file
        self._members[member] = replacement

    def _recovered(self, file: IO[bytes]) -> Weights:
        file.seek(0)
        arrays = {
            name: np.fromfile(file, np.float32, int(np.prod(shape))).reshape(shape)
            for name, shape in self.shapes.items()
        }
        return self._placed({name: torch.from_numpy(array) for name, array in arrays.items()})

    def update(self, fit: Fit) -> None:
        """Give the parameters of a finished fit to the members that it trained."""
        for row, member in enumerate(fit.members):
            parameters = [p[row].clone() if fit.stacked else p.detach() for p in fit.parameters]
            self._members[member] = Weights(zip(self.shapes, parameters, strict=True))

    def state(self) -> MemberState:
        """Return every member's parameters, float32 with a leading member axis."""
        return MemberState(self._members)

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if a name or a shape differs."""
        if isinstance(state, MemberState) and state.members[0] and self._fits(state):
            self._members = list(state.members)
            return
        count = len(self._members)
        loaded = [Weights() for _ in range(count)]
        for name, size in self.shapes.items():
            array = state.get(name)
            if array is None or array.shape != (count, *size):
                raise DataError(
                    f'the stored weights of model "{self.model}" do not fit: {name} is '
                    f"{'missing' if array is None else array.shape}, not {(count, *size)}; they belong to another "
                    "preset or another number of members."
                )
            for weights, values in zip(loaded, array, strict=True):
                weights[name] = torch.tensor(values, dtype=torch.float32, device=self._device(name))
        self._members = loaded

    def _fits(self, state: MemberState) -> bool:
        """Whether a state consists of tensors of this cohort's shapes and device, which need no copy."""
        first = state.members[0]
        shapes = {name: tuple(tensor.shape) for name, tensor in first.items()}
        same_device = all(tensor.device == self._device(name) for name, tensor in first.items())
        return len(state.members) == len(self._members) and shapes == self.shapes and same_device

    def _placed(self, weights: Mapping[str, Tensor]) -> Weights:
        return Weights(
            {name: weights[name].detach().to(self._device(name), torch.float32).contiguous() for name in self.shapes}
        )

    def _draw_weights(self, stream: Stream) -> Weights:
        return Weights({name: tensor.to(self._device(name)) for name, tensor in self._draw(stream).items()})

    def _device(self, name: str) -> torch.device:
        return self._devices.get(name, self.device)
