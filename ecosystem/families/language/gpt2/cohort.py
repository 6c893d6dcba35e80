"""The GPT-2 cohort: members with one shape, side by side on a CPU, stacked on a GPU.

On a CPU every member is computed with two-dimensional matrix products by one thread, batches in parts of about a
thousand tokens; the parts of a lone member are spread over the threads. Either way the same numbers come out, bit for
bit, for any number of threads and whichever other members are in the call. Models beyond 20 M parameters are trained
one after the other with all compute threads; their numbers depend on the thread count (and on nothing else). On a GPU
members that share learning rate and steps are one stack of batched matrix products, in bf16 autocast.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.families.base import FitRecord, FitRequest, Member, Progress, Surroundings
from ecosystem.families.language.cohort import LanguageCohort, Nll, copy_state
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.gpt2 import loss, transformer
from ecosystem.families.language.gpt2.shape import NARROW, Shape
from ecosystem.families.language.packing import Batches
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.training import Fit, Gradients, Rows
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import Crew
from ecosystem.streams import Stream

_PART_TOKENS = 1024  # of a batch, computed at once on a CPU
_STACK_TOKENS = 1 << 15  # of the batches of a stack, computed at once on a GPU; bounds the activations in memory


class Gpt2Cohort(LanguageCohort):
    """M GPT-2s of one shape; ``initial`` are the weights (of one member) that all of them start from."""

    def __init__(
        self,
        name: str,
        members: int,
        shape: Shape,
        initial: Mapping[str, Tensor],
        tokenizer: Tokenizer,
        context: int,
        training: Training,
        around: Surroundings,
        fingerprint: str = "",
    ) -> None:
        """``context`` is the longest input in tokens, at most the shape's."""
        on_cpu = around.device == "cpu"
        narrow = shape.count() <= NARROW
        crew = ((around.threads, 1) if narrow else (1, around.threads)) if on_cpu else (1, around.threads)
        super().__init__(
            name,
            members,
            tokenizer,
            context,
            training,
            around,
            crew,
            not on_cpu,
            fingerprint,
            cached_values=2 * shape.n_layer * shape.n_embd,
        )
        self.shape = shape
        self._initial = {k: v.to(self.device, torch.float32).contiguous() for k, v in initial.items()}
        self._weights = {k: v.unsqueeze(0).repeat(members, *[1] * v.dim()) for k, v in self._initial.items()}

    @property
    def parameters(self) -> int:
        """Number of parameters of one member."""
        return self.shape.count()

    def flops_per_token(self, length: int) -> float:
        """Return the floating-point operations per token of one forward pass over ``length`` tokens."""
        return float(self.shape.flops(length))

    @property
    def types(self) -> int:
        """Number of tokens that the model chooses from."""
        return self.shape.vocabulary

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's parameters by their checkpoint names, float32 with a leading member axis."""
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self._weights.items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError if it belongs to another shape."""
        copy_state(self.name, self._weights, state)

    # Training.

    def _start(self, request: FitRequest) -> dict[str, Tensor]:
        if request.start == "scratch":
            drawn = draw(self.shape, request.stream.child("initial"))
            return {name: tensor.to(self.device) for name, tensor in drawn.items()}
        if request.start == "previous":
            return {name: tensor[request.member].clone() for name, tensor in self._weights.items()}
        return {name: tensor.clone() for name, tensor in self._initial.items()}

    def _fit(
        self, requests: Sequence[FitRequest], packings: Sequence[Batches], peaks: Sequence[float], progress: Progress
    ) -> list[FitRecord]:
        total = sum(packing.total for packing in packings)
        fits = self._grouped(requests, packings, peaks) if self._stacks else self._single(requests, packings, peaks)
        with Crew(*self._crew) as crew:
            threads = crew.threads
            fits = [replace(fit, report=crew.report) for fit in fits]
            # Longest first. As many members as threads run side by side; those left over one by one, in parts.
            order = sorted(range(len(fits)), key=lambda i: -fits[i].packings[0].total)
            side = len(order) // threads * threads
            records = crew.run([fits[i].run for i in order[:side]], "fit", total, progress)
            for i in order[side:]:
                records += crew.run([replace(fits[i], spread=crew.spread).run], "fit", total, progress)
        by_member: dict[int, FitRecord] = {}
        for i, group in zip(order, records, strict=True):
            fit = fits[i]
            by_member |= dict(zip(fit.members, group, strict=True))
            for name, parameter in zip(self._weights, fit.parameters, strict=True):
                for place, member in enumerate(fit.members):
                    self._weights[name][member].copy_(parameter[place] if fit.stacked else parameter)
        return [by_member[request.member] for request in requests]

    def _single(self, requests: Sequence[FitRequest], packings: Sequence[Batches], peaks: Sequence[float]) -> list[Fit]:
        """One fit per member, on two-dimensional weights."""
        fits = []
        for request, packing, peak in zip(requests, packings, peaks, strict=True):
            start = self._start(request)
            fits.append(
                Fit(
                    [request.member],
                    list(start.values()),
                    [tensor.dim() > 1 for tensor in start.values()],
                    [packing],
                    self.training,
                    peak,
                    self._gradients(start),
                    part_rows=max(1, _PART_TOKENS // packing.length),
                )
            )
        return fits

    def _grouped(
        self, requests: Sequence[FitRequest], packings: Sequence[Batches], peaks: Sequence[float]
    ) -> list[Fit]:
        """One fit per group of members that share learning rate and steps, on stacked weights."""
        groups: dict[tuple[int, int, float], list[int]] = {}
        for i, (packing, peak) in enumerate(zip(packings, peaks, strict=True)):
            groups.setdefault((packing.total, packing.length, peak), []).append(i)
        fits = []
        for (_, _, peak), chosen in groups.items():
            starts = [self._start(requests[i]) for i in chosen]
            stack = {name: torch.stack([start[name] for start in starts]) for name in self._weights}
            fits.append(
                Fit(
                    [requests[i].member for i in chosen],
                    list(stack.values()),
                    [tensor.dim() > 2 for tensor in stack.values()],
                    [packings[i] for i in chosen],
                    self.training,
                    peak,
                    self._gradients(stack),
                    part_rows=max(1, _STACK_TOKENS // (packings[chosen[0]].length * len(chosen))),
                    stacked=True,
                )
            )
        return fits

    def _gradients(self, weights: Mapping[str, Tensor]) -> Gradients:
        names, shape = list(weights), self.shape

        def gradients(rows: Rows) -> tuple[Tensor, Sequence[Tensor]]:
            inputs, targets, scale = rows
            # Leaves of its own: several threads may be at different parts of the same batch.
            leaves = [weights[name].detach().requires_grad_() for name in names]
            local = dict(zip(names, leaves, strict=True))
            flat = (inputs.dim() - 2, inputs.dim() - 1)
            with torch.enable_grad(), self._autocast():
                x, goal, weight = transformer.hidden(local, shape, inputs), targets.flatten(*flat), scale.flatten(*flat)
                if weight.dim() == 1 and 2 * weight.count_nonzero() < len(weight):
                    places = weight.nonzero().squeeze(-1)  # where only answers count, no other logits are needed
                    x, goal, weight = x[places], goal[places], weight[places]
                losses = loss.weighted_loss(x, local[transformer.WTE], goal, weight)
                grads = torch.autograd.grad(losses.sum(), leaves)
            return losses.detach(), grads

        return gradients

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    # Writing and scoring.

    def _of(self, member: Member) -> dict[str, Tensor]:
        if member == "initial":
            return self._initial
        if member == "random":
            return {k: v.to(self.device) for k, v in draw(self.shape, self.random_stream).items()}
        return {k: v[member] for k, v in self._weights.items()}

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        if not self._stacks:
            return Gpt2Decoder(self._of(members[0]), self.shape, rows, length)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        each = [self._of(member) for member in members]
        weights = {k: torch.stack([one[k] for one in each]).to(dtype) for k in self._weights}
        return Gpt2Decoder(weights, self.shape, rows * len(members), length)

    def _nll(self, member: Member) -> Nll:
        weights = self._of(member)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            with self._autocast():
                x = transformer.hidden(weights, self.shape, inputs)
                return loss.token_nll(x[scored.flatten()], weights[transformer.WTE], targets[scored])

        return nll


class Gpt2Decoder:
    """Rows of documents of one member, or of a stack of members (equally many each, member by member)."""

    def __init__(self, weights: transformer.Weights, shape: Shape, rows: int, length: int) -> None:
        """``length`` is the number of positions there must be room for."""
        self._weights, self._shape = weights, shape
        table = weights[transformer.WTE]
        self._lead = (len(table), -1) if table.dim() == 3 else (-1,)
        self._cache = transformer.Cache(shape, rows, length, table)
        self._blocks = transformer.decoding_blocks(weights, shape)

    def begin(self, ids: Tensor) -> Tensor:
        """Take the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        n, length = ids.shape
        x = transformer.hidden(self._weights, self._shape, ids.view(*self._lead, length), self._cache)
        last = x.view(n, length, -1)[:, -1]
        return self._logits(last.view(*self._lead, last.shape[-1]))

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Take the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        x = transformer.decode(self._weights, self._blocks, self._shape, ids.view(self._lead), position, self._cache)
        return self._logits(x)

    def keep(self, rows: Tensor, used: int) -> None:
        """Go on with these rows only (an index tensor), of which ``used`` positions have been taken."""
        self._cache.keep(rows, used)

    def _logits(self, x: Tensor) -> Tensor:
        return transformer.logits(self._weights, x).flatten(0, -2).float()


def draw(shape: Shape, stream: Stream) -> dict[str, Tensor]:
    """Draw one member's weights at random; the same stream gives the same ones, whatever the device."""
    return transformer.initial(shape, torch.Generator().manual_seed(stream.integer()))
