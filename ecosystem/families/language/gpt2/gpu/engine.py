"""Gradients and decoders of GPT-2s of one shape on a GPU.

Models of more than 20 M parameters are compiled; smaller ones spend their time between operations, and are recorded as
CUDA graphs instead, which takes less than a second. Decoders are recorded, and compiled if the model is large.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ecosystem.families.language import loss
from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.compiled_training import gradients_of
from ecosystem.families.language.gpt2.gpu import decoder
from ecosystem.families.language.gpt2.gpu.choice import Choices
from ecosystem.families.language.gpt2.gpu.recording import Compiled, Record, Recorded, record_cuda
from ecosystem.families.language.gpt2.shape import NARROW, Shape
from ecosystem.families.training import Gradients, Result, Rows
from ecosystem.families.training_spec import Objective

_log = logging.getLogger(__name__)


class Engine:
    """Compiled and recorded functions of models of one shape, shared by their fits and decoders."""

    def __init__(
        self,
        shape: Shape,
        device: torch.device,
        cache: Path,
        *,
        compiles: bool | None = None,
        backend: str = "inductor",
        record: Record | None = None,
    ) -> None:
        """``cache`` is the folder of measured choices; the device and the shape decide the rest, unless it is given.

        ``backend`` is that of ``torch.compile``.
        """
        cuda = device.type == "cuda"
        self.shape, self.device = shape, device
        self.compiles = cuda and shape.count() > NARROW if compiles is None else compiles
        self.record = record_cuda if record is None and cuda else record
        self.choices = Choices(cache, device, shape, self.note)
        self._backend = backend
        self._notes: list[str] = []

    def note(self, sentence: str) -> None:
        """Keep a sentence for the record of the step, and log it; one that has been said is not repeated."""
        if sentence not in self._notes:
            self._notes.append(sentence)
            _log.info(sentence)

    def take_notes(self) -> list[str]:
        """Return the sentences since the last call."""
        notes, self._notes = self._notes, []
        return notes

    @cached_property
    def _hidden(self) -> Callable[..., Tensor]:
        return self._compiled(transformer.hidden)

    @cached_property
    def _kernel(self) -> loss.Kernel:
        return self._compiled(loss.softmax_minus_one_hot)

    @cached_property
    def _step(self) -> Callable[..., Tensor]:
        # With this option a product of one query and many keys is fused with what surrounds it.
        fused = {"options": {"coordinate_descent_tuning": True}} if self._backend == "inductor" else {}
        return self._compiled(decoder.step, dynamic=True, **fused)

    def _compiled(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        return Compiled(function, self.note, backend=self._backend, **options) if self.compiles else function

    def gradients(
        self, weights: Mapping[str, Tensor], autocast: Callable[[], torch.autocast], objective: Objective | None = None
    ) -> Gradients:
        """Return the gradients of the weights of a member, or of a stack, which change in place.

        They are those of an ``objective``, or of cross-entropy (None).
        """

        def compute(rows: Rows, total: Sequence[Tensor] | None = None) -> Result:
            with autocast():
                return self._gradients(weights, rows, total, objective)

        if self.record is None or self.compiles:
            return compute

        def flat(*rows: Tensor) -> list[Tensor]:
            losses, grads = compute((rows[0], rows[1], rows[2]))
            return [losses, *grads]

        recorded = Recorded(flat, self.note, self.record)

        def replayed(rows: Rows, total: Sequence[Tensor] | None = None) -> Result:
            losses, *grads = recorded(*rows)
            if total is None:
                return losses.clone(), [grad.clone() for grad in grads]
            torch._foreach_add_(list(total), grads)
            return losses.clone(), total

        return replayed

    def _gradients(
        self,
        weights: Mapping[str, Tensor],
        rows: Rows,
        total: Sequence[Tensor] | None,
        objective: Objective | None,
    ) -> Result:
        # A recorded function may not ask the GPU which targets count.
        of = loss.scored_loss if self.record is None or self.compiles else loss.weighted_loss
        return gradients_of(
            lambda w, ids: (self._hidden(w, self.shape, ids), w[transformer.WTE]),
            weights,
            rows,
            total,
            partial(of, kernel=self._kernel, objective=objective),
        )

    def decoder(self, weights: transformer.Weights, rows: int, length: int) -> decoder.StaticDecoder:
        """Return a decoder of ``rows`` documents in all, of up to ``length`` positions."""
        return decoder.StaticDecoder(weights, self.shape, rows, length, self._step, self._recorded)

    def _recorded(self, function: Callable[..., Sequence[Tensor]]) -> Callable[..., Sequence[Tensor]]:
        return function if self.record is None else Recorded(function, self.note, self.record)
