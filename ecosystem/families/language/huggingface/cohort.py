"""Cohorts of models of transformers: a single module computes with the weights of each member in turn.

Members run one after the other, with all compute threads; results depend on the thread count alone. With adapters,
members share the weights of the base model, and only the adapters' weights are theirs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from inspect import signature
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import BuildContext, Progress
from ecosystem.families.footprint import PART_TOKENS
from ecosystem.families.language.cohort import CohortSettings, Nll
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.huggingface.adapters import Adapter, add_adapter, trained_parameters
from ecosystem.families.language.huggingface.decoders import fastest_decoder, token_rows
from ecosystem.families.language.huggingface.division import divide
from ecosystem.families.language.huggingface.modules import build as build_module
from ecosystem.families.language.loss import objective_of, scored_loss, token_nll
from ecosystem.families.language.neural import NeuralCohort
from ecosystem.families.language.packing import TokenBatches
from ecosystem.families.members import MemberWeights
from ecosystem.families.requests import FitRecord, FitRequest, Member
from ecosystem.families.training import Fit, Rows, accumulated
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.interpreter import return_freed_memory
from ecosystem.streams import Stream

# transformers 5.24 renamed `past_key_values` to `cache`; modules outside the library may use the old name.
_CACHE_NAMES = ("cache", "past_key_values", "cache_params")
_WHOLE = 1 << 24  # logits of a part that are computed at once, 64 MB in float32; more are computed in chunks
_SAME = 1e-3  # rounding errors of logits, in their standard deviations
_MOST = 1 << 26  # logits of a part of a module that is more than hidden states times an output matrix


class ModuleCohort(NeuralCohort):
    """M members with the architecture of a transformers module."""

    def __init__(
        self,
        settings: CohortSettings,
        module: Any,
        training: Training,
        build: BuildContext,
        *,
        reread: Callable[[], Any] | None = None,
        adapter: Adapter | None = None,
    ) -> None:
        """``module`` is a causal language model in float32 with the weights that all members start from.

        ``reread`` returns an equal module, if that is possible; ``adapter`` is trained instead of the module.
        """
        size = module.get_output_embeddings().weight.shape[0]
        if settings.tokenizer.size > size:
            raise DataError(
                f'the tokenizer of model "{settings.name}" has {settings.tokenizer.size} tokens but its output only '
                f"{size}; they do not belong together."
            )
        config = module.config
        layers, width = getattr(config, "num_hidden_layers", 12), getattr(config, "hidden_size", 768)
        self._frozen = {} if adapter is None else dict(module.named_parameters())
        if adapter is not None:
            add_adapter(module, adapter, build.streams.at(f"model/{settings.name}/adapter"))
        self._trained = trained_parameters(module)
        self.divided = bool(build.devices)
        if self.divided:
            divide(module, build.devices)
        initial = {name: parameter.detach() for name, parameter in self._trained.items()}
        untrained = initial if adapter is not None else {}

        def draw(stream: Stream) -> dict[str, Tensor]:
            return {name: p.detach() for name, p in build_module(config, stream).named_parameters()} | untrained

        renewed = None if reread is None or adapter is not None else lambda: dict(reread().named_parameters())
        devices = {name: p.device for name, p in {**self._frozen, **self._trained}.items()} if self.divided else {}
        super().__init__(
            settings,
            MemberWeights(settings.name, settings.members, initial, draw, build, renewed, devices),
            training,
            workers=(1, build.threads),
            stacks=False,
            cached_values=2 * layers * width,
        )
        self.module = (module if self.divided else module.to(self.device)).eval()
        self._base = {name: parameter.data for name, parameter in self._frozen.items()}
        self._attention = 2 * layers * width
        parameters = signature(module.forward).parameters
        self._cache_name = next((name for name in _CACHE_NAMES if name in parameters), _CACHE_NAMES[0])
        self._decoder_class = fastest_decoder(self)
        self._in_chunks = size * PART_TOKENS > _WHOLE and self._ends_with_a_product()
        self._part_tokens = build.part_tokens or (PART_TOKENS if self._in_chunks else min(PART_TOKENS, _MOST // size))

    @property
    def parameters(self) -> int:
        """Number of parameters of one member, those that all members share included."""
        shared: int = sum(tensor.numel() for tensor in self._base.values())
        return self.weights.count() + shared

    def flops_per_token(self, length: int) -> float:
        """Return the floating-point operations per token of a forward pass over ``length`` tokens.

        They are twice the parameters, without an input embedding that is not tied to the output matrix, plus causal
        attention (Kaplan et al. 2020, section 2.1).
        """
        table, output = self.module.get_input_embeddings().weight, self.module.get_output_embeddings().weight
        embedding = 0 if table is output else table.numel()
        return float(2 * (self.parameters - embedding) + self._attention * length)

    @property
    def types(self) -> int:
        """Size of the output distribution in tokens."""
        return int(self.module.get_output_embeddings().weight.shape[0])

    def save_assets(self, folder: Path) -> None:
        """Write config.json and the tokenizer's files into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        self.tokenizer.save(folder, self.context)
        self.module.config.save_pretrained(str(folder))

    def compute_with(self, weights: Mapping[str, Tensor]) -> None:
        """Make the module compute with these tensors; nothing is copied."""
        for name, parameter in self._trained.items():
            parameter.data = weights[name]
        for name, parameter in self._frozen.items():  # random weights have their own base
            parameter.data = weights.get(name, self._base[name])

    def forward(self, ids: Tensor, cache: Any = None) -> tuple[Tensor, Any]:
        """Run the module on token ids [rows, length] that follow those in ``cache``.

        Return the logits [rows, length, V] and the cache of keys and values with these tokens added.
        """
        with self._autocast():
            output = self.module(input_ids=ids, use_cache=True, **{self._cache_name: cache})
        return output.logits, getattr(output, self._cache_name, None)

    def logits(self, ids: Tensor) -> Tensor:
        """Run the module on token ids [rows, length] without a cache; return the logits [rows, length, V]."""
        with self._autocast():
            logits: Tensor = self.module(input_ids=ids, use_cache=False).logits
        return logits

    def _hidden(self, ids: Tensor) -> Tensor:
        """Return the input of the output matrix for token ids [rows, length], shape [rows length, width]."""
        head = self.module.get_output_embeddings()
        head.forward = lambda states: states  # instead of the product
        try:
            states: Tensor = self.module(input_ids=ids, use_cache=False).logits
        finally:
            del head.forward
        return states.flatten(0, 1)

    def _ends_with_a_product(self) -> bool:
        """Whether the logits are hidden states times the output matrix, without a bias, a scale or a cap."""
        head = self.module.get_output_embeddings()
        if type(head) is not torch.nn.Linear or head.bias is not None:
            return False
        with torch.no_grad(), self._autocast():
            ids = token_rows(self)
            logits = self.logits(ids).flatten(0, 1)
            product = self._hidden(ids) @ head.weight.t()
            return bool(((product - logits).abs() <= _SAME * logits.std()).all())

    # Training.

    def _train(
        self,
        requests: Sequence[FitRequest],
        batches: Sequence[TokenBatches],
        peaks: Sequence[float],
        progress: Progress,
    ) -> list[FitRecord]:
        total = sum(b.total for b in batches)
        with WorkerPool(*self._workers) as pool:
            jobs = [partial(self._train_one, pool, *args) for args in zip(requests, batches, peaks, strict=True)]
            results = pool.run(jobs, "fit", total, progress)
        for fit, _ in results:
            self.weights.update(fit)
        return [record for _, record in results]

    def _train_one(
        self, pool: WorkerPool, request: FitRequest, batches: TokenBatches, peak: float
    ) -> tuple[Fit, FitRecord]:
        weights = self.weights.start(request)
        self.compute_with(weights)
        return_freed_memory()
        fit = Fit(
            members=[request.member],
            parameters=list(weights.values()),
            decayed=[tensor.dim() > 1 for tensor in weights.values()],
            batches=[batches],
            training=self.training,
            peak=peak,
            gradients=self._gradients,
            part_rows=max(1, self._part_tokens // batches.length) if self.device.type == "cpu" else None,
            report=pool.report,
        )
        (record,) = fit.run()
        return fit, record

    def _gradients(self, rows: Rows, total: Sequence[Tensor] | None = None) -> tuple[Tensor, Sequence[Tensor]]:
        inputs, targets, scale = (tensor.to(self.device) for tensor in rows)  # those of a divided module may not be
        objective = self.training.loss
        with torch.enable_grad(), self._autocast():
            if self._in_chunks:
                table = self.module.get_output_embeddings().weight
                states, flat = self._hidden(inputs), (targets.flatten(), scale.flatten())
                loss = scored_loss(states, table, *flat, objective=objective)
            else:
                logits = self.module(input_ids=inputs, use_cache=False).logits
                nll = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
                if objective is not None:
                    nll, _ = objective_of(nll, objective)
                loss = (nll * scale.flatten()).sum()
            # A part of the module that the loss does not depend on has a gradient of zero.
            grads = accumulated(loss, list(self._trained.values()), total)
        return loss.detach(), grads

    # Writing and scoring.

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        self.compute_with(self.weights.of(members[0]))
        return self._decoder_class(self)

    def _nll(self, member: Member) -> Nll:
        weights = self.weights.of(member)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            self.compute_with(weights)
            if self._in_chunks:
                with self._autocast():
                    states = self._hidden(inputs)[scored.flatten()]
                    return token_nll(states, self.module.get_output_embeddings().weight, targets[scored])
            return F.cross_entropy(self.logits(inputs)[scored].float(), targets[scored], reduction="none")

        return nll
