"""Cohorts of statistical models: every parameter is one array with the member as its leading axis.

A subclass implements four array functions (estimate, draw, log density, describe), each for many members at once; this
module groups requests into stacks. It does not use PyTorch: arrays are small, fits have closed forms, and precision is
double.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field

from ecosystem.errors import DataError
from ecosystem.families.base import BuildContext, Family, MemberError, Progress, silent
from ecosystem.families.requests import Decoding, FitRecord, FitRequest, GenerateRequest, Score, ScoreRequest
from ecosystem.sources.base import Truth
from ecosystem.types import Floats

Parameters = dict[str, Floats]
"""Name → array of shape [members, …]."""


class FittedFamily(Family):
    """A family that is fitted by an estimate from the documents, without optimiser steps."""

    uses_budget: ClassVar[bool] = False
    depends_on_threads: ClassVar[bool] = False

    init: Literal["foundation", "untrained"] = Field(
        "untrained",
        description="initial parameters: foundation: fitted to the web's initial human documents; untrained: none, so "
        "that nothing is published before the first fit",
    )

    @property
    def starts_pretrained(self) -> bool:
        """Whether members start from a fit to the initial human documents."""
        return self.init == "foundation"


class StackedCohort(ABC):
    """M models of one shape; all start from the parameters ``initial``, those of one member."""

    min_documents = 1  # of a fit

    def __init__(self, name: str, members: int, dtype: pl.DataType, initial: Mapping[str, Any]) -> None:
        """``dtype`` is the type of the documents: Array(Float64, d) or Int32."""
        self.name = name
        self.members = members
        self.dtype = dtype
        self.fingerprint = ""
        self._initial: Parameters = {key: np.asarray(value, dtype=np.float64) for key, value in initial.items()}
        self._parameters: Parameters = {
            key: np.repeat(value[None], members, axis=0) for key, value in self._initial.items()
        }

    # Methods of a model.

    @abstractmethod
    def estimate(self, x: NDArray[Any], weight: Floats) -> Parameters:
        """Estimate the parameters of M members from documents x [M, n, …] with weights [M, n] (at least 0, mean 1)."""

    @abstractmethod
    def draw(self, parameters: Parameters, decoding: Decoding, noise: Floats) -> NDArray[Any]:
        """Turn uniform numbers [M, n, *noise_shape] into documents [M, n, …]."""

    @abstractmethod
    def log_density(self, parameters: Parameters, x: NDArray[Any]) -> Floats:
        """Return the log-likelihood in nats of documents x [n, …] under one member; its parameters have no M axis."""

    @abstractmethod
    def describe(self, truth: Truth) -> dict[str, Floats]:
        """Compare every member's parameters with the truth: metric name → value, shape [M] each."""

    def fit_problem(self, x: NDArray[Any]) -> str:
        """Return why documents x [n, …] allow no estimate, as the end of a sentence; "" if they allow one."""
        if len(x) < self.min_documents:
            return f"it needs at least {self.min_documents} documents but has {len(x)}; give it more"
        return ""

    def begin_from(self, human: NDArray[Any]) -> None:
        """Start every member from the estimate from documents [n, …]; raise DataError if they allow none."""
        problem = self.fit_problem(human)
        if problem:
            raise DataError(
                f'model "{self.name}" cannot be fitted to the initial documents of the web: {problem}; see web.initial.'
            )
        fitted = self.estimate(human[None], np.ones((1, len(human))))
        for key, value in fitted.items():
            self._initial[key] = value[0]
            self._parameters[key] = np.repeat(value, self.members, axis=0)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """Shape of the uniform numbers of one document."""
        return ()

    # The requests.

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Fit members, each to its own documents; members with equally many documents share a stack.

        The parameters depend on these documents alone: budget, learning rate and start are ignored. Raises MemberError
        if there are fewer documents than the estimate needs, or parameters are not finite.
        """
        started = time.perf_counter()
        sizes: dict[int, list[FitRequest]] = {}
        for request in requests:
            problem = self.fit_problem(request.docs.to_numpy())
            if problem:
                raise MemberError(request.member, f"member {request.member} cannot be fitted: {problem}.")
            sizes.setdefault(request.docs.len(), []).append(request)
        losses: dict[int, float] = {}
        for group in sizes.values():
            losses |= self._fit_stack(group)
        progress("fit", len(requests), len(requests))
        seconds = (time.perf_counter() - started) / max(1, len(requests))
        return [FitRecord(request.docs.len(), losses[request.member], seconds) for request in requests]

    def _fit_stack(self, group: Sequence[FitRequest]) -> dict[int, float]:
        """Fit members with equally many documents; return each member's mean loss."""
        members = [request.member for request in group]
        x = np.stack([request.docs.to_numpy() for request in group])
        weight = np.stack([request.weight for request in group])
        with np.errstate(over="ignore", invalid="ignore"):  # parameters that are not finite raise an error below
            fitted = self.estimate(x, weight / weight.mean(axis=1, keepdims=True))
        for row, member in enumerate(members):
            if not all(np.isfinite(value[row]).all() for value in fitted.values()):
                raise MemberError(
                    member,
                    f"member {member} has diverged: its documents are too large for a number; lower its "
                    "decoding.temperature, or the source's variance.",
                )
        losses = {}
        for key, value in fitted.items():
            self._parameters[key][members] = value
        for row, member in enumerate(members):
            parameters = {key: value[row] for key, value in fitted.items()}
            with np.errstate(divide="ignore", invalid="ignore"):
                losses[member] = -float(np.average(self.log_density(parameters, x[row]), weights=weight[row]))
        return losses

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Draw documents, one Series of length ``n`` per request; the noise is keyed by the document's number."""
        written: list[pl.Series] = [pl.Series("content", [], dtype=self.dtype)] * len(requests)
        groups: dict[tuple[int, Decoding], list[int]] = {}
        for i, request in enumerate(requests):
            groups.setdefault((request.n, request.decoding), []).append(i)
        for (n, decoding), group in groups.items():
            if n == 0:
                continue
            members = [requests[i].member for i in group]
            parameters = {key: value[members] for key, value in self._parameters.items()}
            each = int(np.prod(self.noise_shape, dtype=np.int64))
            noise = np.stack([requests[i].stream.uniform(np.arange(n * each)) for i in group])
            with np.errstate(over="ignore", invalid="ignore"):  # a fit to documents that are not finite raises an error
                drawn = self.draw(parameters, decoding, noise.reshape(len(group), n, *self.noise_shape))
            for i, docs in zip(group, drawn, strict=True):
                written[i] = pl.Series("content", docs, dtype=self.dtype)
        progress("generate", len(requests), len(requests))
        return written

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents; each is one unit."""
        scores = []
        for request in requests:
            if isinstance(request.member, int):
                parameters = {key: value[request.member] for key, value in self._parameters.items()}
            else:
                parameters = self._initial
            n = request.docs.len()
            with np.errstate(divide="ignore", invalid="ignore"):
                nll = -self.log_density(parameters, request.docs.to_numpy()) if n else np.zeros(0)
            scores.append(Score.of_documents(nll))
        return scores

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's parameters, with a leading member axis."""
        return {key: value.copy() for key, value in self._parameters.items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if it does not fit."""
        for key, value in self._parameters.items():
            if key not in state or state[key].shape != value.shape:
                shape = state[key].shape if key in state else "missing"
                raise DataError(
                    f'the stored parameters of model "{self.name}" do not fit: {key} is {shape}, not {value.shape}; '
                    "they belong to another preset or another number of members."
                )
        for key in self._parameters:
            self._parameters[key] = np.array(state[key], dtype=np.float64)


def human_documents(name: str, context: BuildContext, modality: str) -> NDArray[Any]:
    """Return the web's initial human documents as an array; raise DataError if there are none."""
    if context.human.len() == 0:
        raise DataError(
            f'model "{name}" takes the form of its {modality} documents from the initial human documents of the web, '
            "but there are none; set web.initial.documents."
        )
    return context.human.to_numpy()
