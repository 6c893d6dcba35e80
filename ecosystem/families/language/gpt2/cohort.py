"""The GPT-2 cohort: members of one shape, computed in parallel on a CPU and stacked on a GPU.

On a CPU, one thread computes each member with two-dimensional matrix products, and batches in parts of about a thousand
tokens; the parts of a single member are distributed over the threads. The numbers are identical, bit for bit, for any
number of threads and any other members in the call. Models of more than 20 M parameters are trained one after the other
with all compute threads; their numbers depend on the thread count alone. On a GPU, members with the same learning rate
and steps form one stack of batched matrix products, in bf16 autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from ecosystem.families.base import BuildContext, Progress
from ecosystem.families.checkpoint import write_config
from ecosystem.families.footprint import PART_TOKENS
from ecosystem.families.language import loss
from ecosystem.families.language.cohort import CohortSettings, Nll
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.gpt2 import compiled_training, transformer
from ecosystem.families.language.gpt2.compiled import CompiledDecoder, usable
from ecosystem.families.language.gpt2.decoder import Gpt2Decoder
from ecosystem.families.language.gpt2.shape import NARROW, Shape
from ecosystem.families.language.neural import NeuralCohort
from ecosystem.families.language.packing import TokenBatches
from ecosystem.families.members import MemberWeights
from ecosystem.families.requests import FitRecord, FitRequest, Member
from ecosystem.families.training import Fit, Gradients, Result, Rows
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.streams import Stream

_STACK_TOKENS = 1 << 15  # tokens of a stack's batches that are computed at once on a GPU; bounds activation memory


class Gpt2Cohort(NeuralCohort):
    """M GPT-2s of one shape."""

    def __init__(
        self,
        settings: CohortSettings,
        shape: Shape,
        initial: Mapping[str, Tensor],
        training: Training,
        build: BuildContext,
        reread: Callable[[], Mapping[str, Tensor]] | None = None,
    ) -> None:
        """``initial`` holds the weights (of one member) that all start from; the context is at most the shape's.

        ``reread`` returns them again, if that is possible; see :class:`MemberWeights`.
        """
        on_cpu = build.device == "cpu"
        parallel = on_cpu and shape.count() <= NARROW
        super().__init__(
            settings,
            MemberWeights(settings.name, settings.members, initial, lambda stream: draw(shape, stream), build, reread),
            training,
            workers=(build.threads, 1) if parallel else (1, build.threads),
            stacks=not on_cpu,
            cached_values=2 * shape.n_layer * shape.n_embd,
        )
        self.shape = shape
        self._part_tokens = build.part_tokens or (PART_TOKENS if on_cpu else _STACK_TOKENS)

    def flops_per_token(self, length: int) -> float:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens."""
        return float(self.shape.flops(length))

    @property
    def types(self) -> int:
        """Size of the output distribution in tokens."""
        return self.shape.vocabulary

    def save_assets(self, folder: Path) -> None:
        """Write config.json and the tokenizer's files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder, self.shape.context)
        write_config(folder, self.shape.config(self.tokenizer.end))

    # Training.

    def _train(
        self,
        requests: Sequence[FitRequest],
        batches: Sequence[TokenBatches],
        peaks: Sequence[float],
        progress: Progress,
    ) -> list[FitRecord]:
        total = sum(b.total for b in batches)
        fits = self._stacked_fits(requests, batches, peaks) if self._stacks else self._fits(requests, batches, peaks)
        with WorkerPool(*self._workers) as pool:
            fits = [replace(fit, report=pool.report) for fit in fits]
            # Longest first, one member per thread; the remaining members one by one, in parts.
            order = sorted(range(len(fits)), key=lambda i: -fits[i].batches[0].total)
            parallel = len(order) // pool.threads * pool.threads
            records = pool.run([fits[i].run for i in order[:parallel]], "fit", total, progress)
            for i in order[parallel:]:
                records += pool.run([replace(fits[i], map_parts=pool.map_parts).run], "fit", total, progress)
        by_member: dict[int, FitRecord] = {}
        for i, group in zip(order, records, strict=True):
            by_member |= dict(zip(fits[i].members, group, strict=True))
            self.weights.update(fits[i])
        return [by_member[request.member] for request in requests]

    def _fits(
        self, requests: Sequence[FitRequest], batches: Sequence[TokenBatches], peaks: Sequence[float]
    ) -> list[Fit]:
        """Prepare one fit per member, on two-dimensional weights."""
        fits = []
        for request, member_batches, peak in zip(requests, batches, peaks, strict=True):
            start = self.weights.start(request)
            fits.append(
                Fit(
                    members=[request.member],
                    parameters=list(start.values()),
                    decayed=[tensor.dim() > 1 for tensor in start.values()],
                    batches=[member_batches],
                    training=self.training,
                    peak=peak,
                    gradients=self._gradients(start),
                    part_rows=max(1, self._part_tokens // member_batches.length),
                )
            )
        return fits

    def _stacked_fits(
        self, requests: Sequence[FitRequest], batches: Sequence[TokenBatches], peaks: Sequence[float]
    ) -> list[Fit]:
        """Prepare one fit per group of members with the same learning rate and steps, on stacked weights."""
        groups: dict[tuple[int, int, float], list[int]] = {}
        for i, (b, peak) in enumerate(zip(batches, peaks, strict=True)):
            groups.setdefault((b.total, b.length, peak), []).append(i)
        fits = []
        for (_, length, peak), group in groups.items():
            starts = [self.weights.start(requests[i]) for i in group]
            stack = {name: torch.stack([start[name] for start in starts]) for name in self.weights.shapes}
            fits.append(
                Fit(
                    members=[requests[i].member for i in group],
                    parameters=list(stack.values()),
                    decayed=[tensor.dim() > 2 for tensor in stack.values()],
                    batches=[batches[i] for i in group],
                    training=self.training,
                    peak=peak,
                    gradients=self._gradients(stack),
                    part_rows=max(1, self._part_tokens // (length * len(group))),
                    stacked=True,
                )
            )
        return fits

    def _gradients(self, weights: Mapping[str, Tensor]) -> Gradients:
        compute = compiled_training.plain_gradients if self._stacks else compiled_training.gradients

        def gradients(rows: Rows, total: Sequence[Tensor] | None = None) -> Result:
            with self._autocast():
                return compute(weights, self.shape, rows, total)

        return gradients

    # Writing and scoring.

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        if not self._stacks:
            weights = self.weights.of(members[0])
            narrow = self._workers[1] == 1
            kind = CompiledDecoder if narrow and usable(weights, self.shape) else Gpt2Decoder
            return kind(weights, self.shape, rows, length)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        separate = [self.weights.of(member) for member in members]
        stack = {name: torch.stack([tensors[name] for tensors in separate]).to(dtype) for name in self.weights.shapes}
        return Gpt2Decoder(stack, self.shape, rows * len(members), length)

    def _nll(self, member: Member) -> Nll:
        weights = self.weights.of(member)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            with self._autocast():
                x = transformer.hidden(weights, self.shape, inputs)
                return loss.token_nll(x[scored.flatten()], weights[transformer.WTE], targets[scored])

        return nll


def draw(shape: Shape, stream: Stream) -> dict[str, Tensor]:
    """Draw random weights of one member; they are the same on every device."""
    return transformer.initial(shape, torch.Generator().manual_seed(stream.integer()))
