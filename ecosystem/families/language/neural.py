"""Cohorts of language models that are trained by gradient descent: their weights and training batches."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from numpy.typing import NDArray

from ecosystem.families.base import Progress, of_member, silent
from ecosystem.families.footprint import LARGE
from ecosystem.families.language.cohort import CohortSettings, LanguageCohort
from ecosystem.families.language.packing import Packing, PromptedBatches, TokenBatches
from ecosystem.families.members import MemberWeights
from ecosystem.families.requests import FitRecord, FitRequest, PromptedFitRequest
from ecosystem.families.training_spec import Training
from ecosystem.interpreter import return_freed_memory

R = TypeVar("R", bound=FitRequest)


class NeuralCohort(LanguageCohort):
    """M members with the same architecture and training settings, each with its own weights."""

    def __init__(
        self,
        settings: CohortSettings,
        weights: MemberWeights,
        training: Training,
        *,
        workers: tuple[int, int],
        stacks: bool,
        cached_values: int,
    ) -> None:
        """``training`` holds the settings of every fit; for the others, see :class:`LanguageCohort`."""
        super().__init__(
            settings, device=str(weights.device), workers=workers, stacks=stacks, cached_values=cached_values
        )
        self.weights = weights
        self.training = training

    @abstractmethod
    def _train(
        self,
        requests: Sequence[FitRequest],
        batches: Sequence[TokenBatches],
        peaks: Sequence[float],
        progress: Progress,
    ) -> list[FitRecord]:
        """Train the members of the requests on their batches, with these peak learning rates."""

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents, with at most one request per member.

        Raises MemberError (a TrainingError) if there is nothing to train on or a loss is not finite; no weights are
        changed then.
        """
        return self._fit(requests, self._packed, progress)

    def fit_prompted(self, requests: Sequence[PromptedFitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members on answers to prompts; raise the same errors as :meth:`fit`."""
        return self._fit(requests, self._prompted, progress)

    def _fit(
        self, requests: Sequence[R], batches_of: Callable[[R], TokenBatches], progress: Progress
    ) -> list[FitRecord]:
        self._check_fit(requests)
        batches = []
        for request in requests:
            with of_member(request.member, " cannot be trained"):
                batches.append(batches_of(request))
        peaks = [self.training.learning_rate if r.learning_rate is None else r.learning_rate for r in requests]
        if not requests:
            return []
        with self.weights.changing():
            records = self._train(requests, batches, peaks, progress)
        if self.parameters >= LARGE:
            return_freed_memory()
        return records

    def _packed(self, request: FitRequest) -> Packing:
        return Packing(
            self.tokenizer.encode(request.docs),
            request.weight,
            self.tokenizer.end,
            self.context,
            self.training.batch,
            request.budget,
            request.stream.child("order"),
        )

    def _prompted(self, request: PromptedFitRequest) -> PromptedBatches:
        return PromptedBatches(
            self.tokenizer.encode(request.prompts),
            self.tokenizer.encode(request.docs),
            request.weight,
            self.tokenizer.end,
            self.context,
            request.batch or self.training.batch,
            request.budget,
            request.stream.child("order"),
        )

    def state(self) -> Mapping[str, NDArray[Any]]:
        """Return every member's parameters by checkpoint name, float32 with a leading member axis."""
        return self.weights.state()

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if the shape differs."""
        self.weights.load(state)

    @property
    def parameters(self) -> int:
        """Number of parameters of one member."""
        return self.weights.count()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
