"""Training settings of every family that is trained by gradient descent, its objective, and the learning rates."""

from __future__ import annotations

import math
from typing import Annotated, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from ecosystem.families.requests import Budget
from ecosystem.spec import Spec
from ecosystem.types import Positive

Rate = Annotated[float, Field(gt=0)]


class Objective(NamedTuple):
    """An objective that counts the nats of targets less which the model already expects.

    For a target of probability p, truncated cross-entropy (ForTIFAI 2025, 2509.08972) is -log p if p <= ``gamma``, else
    0. The focal loss is -(1 - p)^gamma log p (Lin et al. 2017). Both are means over all targets.
    """

    kind: Literal["truncated", "focal"]
    gamma: float


DEFAULT_GAMMA = {"truncated": 0.99, "focal": 2.0}


class Training(Spec):
    """Settings of a fit: AdamW (Loshchilov & Hutter 2019) on packed blocks, with a new optimiser for every fit."""

    batch: Positive = Field(32, description="blocks of `context` tokens per optimiser step")
    learning_rate: Rate = Field(1e-3, description="peak learning rate")
    schedule: Literal["cosine", "constant"] = Field(
        "cosine", description="learning rate after the warm-up: down to zero along a half cosine, or constant"
    )
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="share of the optimiser steps with a linear warm-up"
    )
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.01, description="weight decay of matrices and embeddings; biases and norms have none"
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="decay rate of the mean of gradients")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.95, description="decay rate of the mean of squared gradients")
    clip: Rate = Field(1.0, description="largest gradient norm of a member; larger gradients are scaled down")
    # Both are absent by default, so that the fingerprints of earlier scenarios remain.
    objective: Literal["cross_entropy", "truncated", "focal"] | None = Field(
        None,
        description="what fits minimise, as a mean over all tokens; cross_entropy, also if absent: -log p; truncated: "
        "-log p of tokens of probability up to `gamma` only; focal: (1 - p)^gamma times -log p; a foundation always "
        "minimises cross_entropy",
    )
    gamma: Rate | None = Field(
        None,
        description="of truncated: largest probability of a token that is still learnt (absent: 0.99); of focal: the "
        "exponent (absent: 2)",
    )

    @field_validator("objective")
    @classmethod
    def _cross_entropy_is_absent(cls, objective: str | None) -> str | None:
        return None if objective == "cross_entropy" else objective

    @model_validator(mode="after")
    def _gamma_fits(self) -> Training:
        if self.gamma is not None and self.objective is None:
            raise ValueError("gamma has no meaning for cross_entropy; remove it, or set objective")
        if self.objective == "truncated" and self.gamma is not None and self.gamma > 1:
            raise ValueError(f"gamma: {self.gamma:g} is no probability; truncated needs at most 1")
        return self

    @property
    def loss(self) -> Objective | None:
        """The objective of fits; None: cross-entropy."""
        if self.objective is None or self.objective == "cross_entropy":
            return None
        return Objective(self.objective, DEFAULT_GAMMA[self.objective] if self.gamma is None else self.gamma)


NOT_OF_FOUNDATIONS = ("objective", "gamma")
"""Fields of Training without effect on a foundation, which models with different objectives share."""


class Foundation(Spec):
    """Pre-training on the web's initial human documents; all other settings come from ``training``."""

    tokens: int = Field(2_000_000, gt=0, le=10**12, description="training tokens, repetitions included")
    learning_rate: Rate = Field(3e-3, description="peak learning rate")
    batch: Positive = Field(32, description="blocks per optimiser step")

    def training(self, default: Training) -> Training:
        """Return the settings of the pre-training fit, by cross-entropy; ``default`` holds those of all other fits."""
        own = {"batch": self.batch, "learning_rate": self.learning_rate}
        return default.model_copy(update={**own, **dict.fromkeys(NOT_OF_FOUNDATIONS)})

    def budget(self) -> Budget:
        """Return the budget of the pre-training fit."""
        return Budget(tokens=self.tokens)


def learning_rate(training: Training, peak: float, step: int, steps: int) -> float:
    """Return the rate at a step (from 0): linear warm-up to ``peak``, then constant or half a cosine down to zero."""
    warm = math.ceil(training.warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    if training.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
