"""Training settings of every family that is trained by gradient descent, and the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from ecosystem.families.requests import Budget
from ecosystem.spec import Spec
from ecosystem.types import Positive

Rate = Annotated[float, Field(gt=0)]


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


class Foundation(Spec):
    """Pre-training on the web's initial human documents; all other settings come from ``training``."""

    tokens: int = Field(2_000_000, gt=0, le=10**12, description="training tokens, repetitions included")
    learning_rate: Rate = Field(3e-3, description="peak learning rate")
    batch: Positive = Field(32, description="blocks per optimiser step")

    def training(self, default: Training) -> Training:
        """Return the settings of the pre-training fit; ``default`` holds those of all other fits."""
        return default.model_copy(update={"batch": self.batch, "learning_rate": self.learning_rate})

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
