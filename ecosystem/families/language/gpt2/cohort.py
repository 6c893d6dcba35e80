"""The GPT-2 cohort: members of one shape, computed in parallel on a CPU and stacked on a GPU.

On a CPU, one thread computes each member with two-dimensional matrix products, and batches in parts of about a thousand
tokens; the parts of a single member are distributed over the threads. The numbers are identical, bit for bit, for any
number of threads and any other members in the call. Models of more than 20 M parameters are trained one after the other
with all compute threads; their numbers depend on the thread count alone. On a GPU, in bf16 autocast, members with the
same learning rate and steps form one stack of batched matrix products, or are computed one after the other with all
of its cores: whichever is faster there, as measured for every size (gpu/choice.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
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
from ecosystem.families.language.gpt2.gpu.choice import Size
from ecosystem.families.language.gpt2.gpu.engine import Engine
from ecosystem.families.language.gpt2.low_rank import LowRank
from ecosystem.families.language.gpt2.shape import NARROW, Shape
from ecosystem.families.language.huggingface.adapters import Adapter
from ecosystem.families.language.neural import NeuralCohort
from ecosystem.families.language.packing import TokenBatches
from ecosystem.families.members import MemberWeights
from ecosystem.families.requests import FitRecord, FitRequest, GenerateRequest, Member
from ecosystem.families.training import Batch, Fit, Gradients, Result, Rows
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.streams import Stream

_STACK_TOKENS = 1 << 15  # tokens of a stack's batches that are computed at once on a GPU; bounds activation memory
_TRIAL_STEPS, _TRIAL_POSITIONS = 2, 16  # of a measurement on a GPU


class _First:
    """The first batches of a fit."""

    def __init__(self, batches: TokenBatches) -> None:
        self._batches = batches
        self.length, self.total = batches.length, batches.total
        self.steps = min(_TRIAL_STEPS, batches.steps)

    def __iter__(self) -> Iterator[Batch]:
        return islice(iter(self._batches), self.steps)


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
        adapter: Adapter | None = None,
    ) -> None:
        """``initial`` holds the weights (of one member) that all start from; the context is at most the shape's.

        ``reread`` returns them again, if that is possible; see :class:`MemberWeights`. An ``adapter`` is trained
        instead of them.
        """
        self._low_rank: LowRank | None = None
        untrained: Mapping[str, Tensor] = {}
        if adapter is not None:
            self._low_rank = LowRank(adapter, shape, {n: t.to(build.device) for n, t in initial.items()})
            initial = untrained = self._low_rank.initial(build.streams.at(f"model/{settings.name}/adapter"))
            reread = None

        def drawn(stream: Stream) -> dict[str, Tensor]:
            return {**draw(shape, stream), **untrained}

        on_cpu = build.device == "cpu"
        parallel = on_cpu and shape.count() <= NARROW
        super().__init__(
            settings,
            MemberWeights(settings.name, settings.members, initial, drawn, build, reread),
            training,
            workers=(build.threads, 1) if parallel else (1, build.threads),
            stacks=not on_cpu and adapter is None,
            cached_values=2 * shape.n_layer * shape.n_embd,
        )
        self.shape = shape
        self._part_tokens = build.part_tokens or (PART_TOKENS if on_cpu else _STACK_TOKENS)
        self._gpu = None if on_cpu else Engine(shape, self.device, build.cache)

    def take_notes(self) -> list[str]:
        """Return what was chosen on a GPU since the last call, as sentences."""
        return [] if self._gpu is None else [f'model "{self.name}": {note}' for note in self._gpu.take_notes()]

    def flops_per_token(self, length: int) -> float:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens."""
        adapted = 0 if self._low_rank is None else self.weights.count()
        return float(self.shape.flops(length) + 2 * adapted)

    @property
    def parameters(self) -> int:
        """Number of parameters of one member, those that all members share included."""
        return self.weights.count() + (0 if self._low_rank is None else self.shape.count())

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
        fits = self._fits(requests, batches, peaks)
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
        """Prepare the fits: of one member each or, on a GPU, of members with the same learning rate and steps."""
        alone = [[i] for i in range(len(requests))]
        fits = []
        for group in self._groups(batches, peaks) if self._stacks else alone:
            starts = [self.weights.start(requests[i]) for i in group]
            fit = self._fit_of(starts, [batches[i] for i in group], peaks[group[0]])
            fits.append(replace(fit, members=[requests[i].member for i in group]))
        return fits

    def _groups(self, batches: Sequence[TokenBatches], peaks: Sequence[float]) -> list[list[int]]:
        """Group the indices of requests to train in one stack."""
        groups: dict[tuple[int, int, float], list[int]] = {}
        for i, (b, peak) in enumerate(zip(batches, peaks, strict=True)):
            groups.setdefault((b.total, b.length, peak), []).append(i)
        divided: list[list[int]] = []
        for group in groups.values():
            stacked = self._trains_stacked([batches[i] for i in group])
            divided += [group] if stacked else [[i] for i in group]
        return divided

    def _trains_stacked(self, batches: Sequence[TokenBatches]) -> bool:
        """Return whether members with equally many steps are trained in one stack; measured with their first steps."""
        if self._gpu is None or len(batches) == 1:
            return True

        def trial(stacks: Sequence[Sequence[TokenBatches]]) -> None:
            for stack in stacks:
                starts = [{n: t.clone() for n, t in self.weights.initial.items()} for _ in stack]
                self._fit_of(starts, [_First(b) for b in stack], 0.0).run()

        size = Size("train on", len(batches), self.training.batch, batches[0].length)
        return self._gpu.choices.stacks(size, lambda: trial([batches]), lambda: trial([[b] for b in batches]))

    def _fit_of(
        self, starts: Sequence[Mapping[str, Tensor]], batches: Sequence[TokenBatches | _First], peak: float
    ) -> Fit:
        """Prepare the fit of members from copies of weights: of one on two-dimensional ones, of several on a stack."""
        stacked = len(starts) > 1 or (self._stacks and self._gpu is None)
        weights = starts[0]
        if stacked:
            weights = {name: torch.stack([start[name] for start in starts]) for name in self.weights.shapes}
        return Fit(
            members=range(len(starts)),
            parameters=list(weights.values()),
            decayed=[tensor.dim() > 1 + stacked for tensor in weights.values()],
            batches=batches,
            training=self.training,
            peak=peak,
            gradients=self._gradients(weights),
            part_rows=max(1, self._part_tokens // (batches[0].length * len(starts))),
            stacked=stacked,
        )

    def _gradients(self, weights: Mapping[str, Tensor]) -> Gradients:
        if self._gpu is not None and self._low_rank is None:
            return self._gpu.gradients(weights, self._autocast, self.training.loss)
        compute = compiled_training.plain_gradients if self._stacks else compiled_training.gradients

        def gradients(rows: Rows, total: Sequence[Tensor] | None = None) -> Result:
            with self._autocast():
                if self._low_rank is not None:
                    return self._low_rank.gradients(weights, rows, total, self.training.loss)
                return compute(weights, self.shape, rows, total, self.training.loss)

        return gradients

    # Writing and scoring.

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        separate = [self._whole(member) for member in members]
        if self._gpu is None and not self._stacks:
            [alone] = separate
            narrow = self._workers[1] == 1
            kind = CompiledDecoder if narrow and usable(alone, self.shape) else Gpt2Decoder
            return kind(alone, self.shape, rows, length)
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        if len(members) == 1 and self._gpu is not None:
            weights = {name: tensor.to(dtype) for name, tensor in separate[0].items()}
        else:
            weights = {name: torch.stack([one[name] for one in separate]).to(dtype) for name in self.weights.shapes}
        if self._gpu is None:
            return Gpt2Decoder(weights, self.shape, rows * len(members), length)
        return self._gpu.decoder(weights, rows * len(members), length)

    def _together(self, group: list[int], requests: Sequence[GenerateRequest], rows: int) -> list[list[int]]:
        if self._gpu is None or len(group) == 1:
            return [group]
        members = [requests[i].member for i in group]
        count = max(1, min(requests[group[0]].n, rows // len(group)))
        size = Size("write", len(group), count, self.context)

        def trial(stacks: Sequence[Sequence[Member]]) -> None:
            for stack in stacks:
                length = min(_TRIAL_POSITIONS, self.context)
                decoder = self._decoder(stack, count, length)
                ids = torch.zeros((count * len(stack), 1), dtype=torch.int64, device=self.device)
                logits = decoder.begin(ids)
                for position in range(1, length):
                    logits = decoder.step(logits.argmax(-1), position)

        with torch.inference_mode():
            stacked = self._gpu.choices.stacks(size, lambda: trial([members]), lambda: trial([[m] for m in members]))
        return [group] if stacked else [[i] for i in group]

    def _whole(self, member: Member) -> Mapping[str, Tensor]:
        """Return the weights of a whole model: those of an adapter are added to the base model's."""
        weights = self.weights.of(member)
        return weights if self._low_rank is None else self._low_rank.merged(weights)

    def _nll(self, member: Member) -> Nll:
        weights: Mapping[str, Tensor] = self.weights.of(member)
        pairs = None
        if self._low_rank is not None:
            weights, pairs = self._low_rank.base(weights), self._low_rank.pairs(weights)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            with self._autocast():
                x = transformer.hidden(weights, self.shape, inputs, low_rank=pairs)
                return loss.token_nll(x[scored.flatten()], weights[transformer.WTE], targets[scored])

        return nll


def draw(shape: Shape, stream: Stream) -> dict[str, Tensor]:
    """Draw random weights of one member; they are the same on every device."""
    return transformer.initial(shape, torch.Generator().manual_seed(stream.integer()))
