"""Cohorts of models that transformers computes: one module, into which the members' weights are put in turn.

Members run one after the other, with all compute threads; results depend on the thread count, and on nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import DataError, nearest
from ecosystem.families.base import FitRecord, FitRequest, Member, Progress, Surroundings
from ecosystem.families.language.cohort import LanguageCohort, Nll, copy_state
from ecosystem.families.language.generation import Decoder
from ecosystem.families.language.packing import Batches
from ecosystem.families.language.tokenizer import Tokenizer
from ecosystem.families.training import Fit, Rows
from ecosystem.families.training_spec import Training
from ecosystem.families.worker_pool import Crew
from ecosystem.streams import Stream

_PART_TOKENS = 1024  # of a batch, computed at once on a CPU; bounds the logits in memory


class ModuleCohort(LanguageCohort):
    """M members with the architecture of ``module``, whose weights are what all of them start from."""

    def __init__(
        self,
        name: str,
        members: int,
        module: Any,
        tokenizer: Tokenizer,
        context: int,
        training: Training,
        around: Surroundings,
        fingerprint: str,
    ) -> None:
        """``module`` is a causal language model of transformers in float32; ``context`` the longest input in tokens."""
        config = module.config
        cached = 2 * getattr(config, "num_hidden_layers", 12) * getattr(config, "hidden_size", 768)
        super().__init__(
            name, members, tokenizer, context, training, around, (1, around.threads), False, fingerprint, cached
        )
        size = module.get_output_embeddings().weight.shape[0]
        if tokenizer.size > size:
            raise DataError(
                f'the tokenizer of model "{name}" has {tokenizer.size} tokens but its output only {size}; '
                "they do not belong together."
            )
        self.module = module.to(self.device).eval()
        width, layers = getattr(config, "hidden_size", 768), getattr(config, "num_hidden_layers", 12)
        self._attention = 2 * layers * width
        self._initial = {name: p.detach().clone() for name, p in module.named_parameters()}
        self._weights = {k: v.unsqueeze(0).repeat(members, *[1] * v.dim()) for k, v in self._initial.items()}

    @property
    def parameters(self) -> int:
        """Number of parameters of one member."""
        return sum(tensor.numel() for tensor in self._initial.values())

    def flops_per_token(self, length: int) -> float:
        """Return the floating-point operations per token of one forward pass over ``length`` tokens.

        Twice the parameters, without an input embedding that is not also the output matrix, and the causal attention
        (Kaplan et al. 2020, section 2.1).
        """
        table, output = self.module.get_input_embeddings().weight, self.module.get_output_embeddings().weight
        looked_up = 0 if table is output else table.numel()
        return float(2 * (self.parameters - looked_up) + self._attention * length)

    @property
    def types(self) -> int:
        """Number of tokens that the model chooses from."""
        return int(self.module.get_output_embeddings().weight.shape[0])

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's parameters by their checkpoint names, float32 with a leading member axis."""
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self._weights.items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError if it belongs to another shape."""
        copy_state(self.name, self._weights, state)

    def _put(self, weights: Mapping[str, Tensor]) -> None:
        """Let the module compute with these tensors; nothing is copied."""
        for name, parameter in self.module.named_parameters():
            parameter.data = weights[name]

    def _of(self, member: Member) -> dict[str, Tensor]:
        if member == "initial":
            return self._initial
        if member == "random":
            return self._drawn(self.random_stream)
        return {name: tensor[member] for name, tensor in self._weights.items()}

    def _fit(
        self, requests: Sequence[FitRequest], packings: Sequence[Batches], peaks: Sequence[float], progress: Progress
    ) -> list[FitRecord]:
        trained: list[dict[str, Tensor]] = []

        def job(crew: Crew, request: FitRequest, packing: Batches, peak: float) -> FitRecord:
            weights = {name: tensor.clone() for name, tensor in self._start(request).items()}
            self._put(weights)
            fit = Fit(
                [request.member],
                list(weights.values()),
                [tensor.dim() > 1 for tensor in weights.values()],
                [packing],
                self.training,
                peak,
                self._gradients,
                part_rows=max(1, _PART_TOKENS // packing.length) if self.device.type == "cpu" else None,
                report=crew.report,
            )
            (record,) = fit.run()
            trained.append(weights)
            return record

        with Crew(*self._crew) as crew:
            jobs = zip(requests, packings, peaks, strict=True)
            total = sum(packing.total for packing in packings)
            records = crew.run([lambda given=given: job(crew, *given) for given in jobs], "fit", total, progress)  # type: ignore[misc]
        for request, weights in zip(requests, trained, strict=True):
            for name, tensor in weights.items():
                self._weights[name][request.member].copy_(tensor)
        return records

    def _start(self, request: FitRequest) -> Mapping[str, Tensor]:
        if request.start == "scratch":
            return self._drawn(request.stream.child("initial"))
        return self._of(request.member) if request.start == "previous" else self._initial

    def _drawn(self, stream: Stream) -> dict[str, Tensor]:
        module = build(self.module.config, stream)
        return {name: p.detach().to(self.device) for name, p in module.named_parameters()}

    def _gradients(self, rows: Rows) -> tuple[Tensor, Sequence[Tensor]]:
        inputs, targets, scale = rows
        with torch.enable_grad(), self._autocast():
            logits = self.module(input_ids=inputs, use_cache=False).logits
            nll = F.cross_entropy(logits.flatten(0, 1).float(), targets.flatten(), reduction="none")
            loss = (nll * scale.flatten()).sum()
            # A part of the module that the loss does not depend on has no gradient.
            grads = torch.autograd.grad(loss, list(self.module.parameters()), allow_unused=True, materialize_grads=True)
        return loss.detach(), grads

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")

    def _decoder(self, members: Sequence[Member], rows: int, length: int) -> Decoder:
        self._put(self._of(members[0]))
        return _ModuleDecoder(self)

    def _nll(self, member: Member) -> Nll:
        weights = self._of(member)

        def nll(inputs: Tensor, targets: Tensor, scored: Tensor) -> Tensor:
            self._put(weights)
            with self._autocast():
                logits = self.module(input_ids=inputs, use_cache=False).logits
            return F.cross_entropy(logits[scored].float(), targets[scored], reduction="none")

        return nll


class _ModuleDecoder:
    """Documents being written by the module, with the weights that it has now."""

    def __init__(self, cohort: ModuleCohort) -> None:
        self._cohort = cohort
        self._past: Any = None

    def begin(self, ids: Tensor) -> Tensor:
        """Take the first tokens [N, T] of every row; return the logits of the next one, [N, V] (float32)."""
        return self._logits(ids)

    def step(self, ids: Tensor, position: int) -> Tensor:
        """Take the tokens [N] at ``position``; return the logits of the next one, [N, V] (float32)."""
        return self._logits(ids.unsqueeze(1))

    def keep(self, rows: Tensor, used: int) -> None:
        """Go on with these rows only (an index tensor)."""
        self._past.batch_select_indices(rows)

    def _logits(self, ids: Tensor) -> Tensor:
        with self._cohort._autocast():
            out = self._cohort.module(input_ids=ids, past_key_values=self._past, use_cache=True)
        self._past = getattr(out, "past_key_values", None)
        if not hasattr(self._past, "batch_select_indices"):
            kind = type(self._cohort.module).__name__
            raise DataError(f"{kind} keeps no keys and values between tokens, which the causal_lm family writes with.")
        logits: Tensor = out.logits[:, -1].float()
        return logits


# Modules from configurations and checkpoints.


@contextmanager
def quietly() -> Iterator[Any]:
    """Give transformers, without its progress bars and advice on standard error."""
    import transformers
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield transformers
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def configuration(architecture: str, sizes: Mapping[str, Any], end: int) -> Any:
    """Return the configuration of a new model; raise DataError if transformers knows no such architecture or sizes."""
    with quietly() as transformers:
        known = transformers.models.auto.configuration_auto.CONFIG_MAPPING
        if architecture not in known:
            raise DataError(
                f'transformers has no architecture "{architecture}"{nearest(architecture, known)}; '
                "give a model type such as opt, llama or gpt_neox."
            )
        empty = known[architecture]()
        names = {*empty.to_dict(), *empty.attribute_map}
        for name in sizes:  # transformers takes any name and builds its default size, of billions perhaps
            if name not in names:
                raise DataError(f'config: {architecture} has no "{name}"{nearest(name, names)}.')
        try:
            config = transformers.AutoConfig.for_model(
                architecture, bos_token_id=end, eos_token_id=end, pad_token_id=None, **sizes
            )
            config.architectures = [type(build(config, Stream(0, "check"))).__name__]
        except Exception as error:  # whatever a configuration or a model class objects to
            raise DataError(
                f"config: {architecture} cannot be built with these sizes: {_first_line(error)}."
            ) from error
        return config


def read_configuration(folder: Path) -> Any:
    """Return the configuration in a checkpoint folder."""
    with quietly() as transformers:
        return transformers.AutoConfig.from_pretrained(str(folder))


def build(config: Any, stream: Stream) -> Any:
    """Return the model of a configuration in float32, with its architecture's own random initialisation."""
    # transformers draws from PyTorch's global generator; it is lent the stream's seed and then put back.
    with quietly() as transformers, torch.random.fork_rng(devices=[]):
        torch.manual_seed(stream.integer())
        return transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


def load(folder: Path) -> Any:
    """Return the model of a checkpoint folder in float32; raise DataError if it is not whole."""
    with quietly() as transformers:
        try:
            module, found = transformers.AutoModelForCausalLM.from_pretrained(
                str(folder), dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
        except Exception as error:  # transformers raises many kinds; all mean the same to the user
            raise DataError(f"{folder} cannot be opened as a causal language model: {_first_line(error)}") from error
    missing = sorted(found["missing_keys"])
    if missing:
        raise DataError(f'{folder} lacks {len(missing)} weights of its model, "{missing[0]}" for one.')
    return module.eval()


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
