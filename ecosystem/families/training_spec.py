"""How a family trains: frozen values shared by every family of language models, and the learning-rate schedule."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from ecosystem.families.base import Budget
from ecosystem.spec import Spec

Positive = Annotated[int, Field(gt=0, le=10**12)]
Rate = Annotated[float, Field(gt=0)]


class Training(Spec):
    """One fit: fused AdamW (Loshchilov & Hutter 2019) on packed blocks, with a fresh optimiser every time."""

    batch: Positive = Field(32, description="blocks of `context` tokens per optimiser step")
    learning_rate: Rate = Field(1e-3, description="at its peak")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="after the warm-up: down to zero, or level")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(0.05, description="share of the optimiser steps")
    weight_decay: Annotated[float, Field(ge=0)] = Field(
        0.01, description="on matrices and embeddings, not on biases and norms"
    )
    beta1: Annotated[float, Field(ge=0, lt=1)] = Field(0.9, description="decay of the mean of gradients")
    beta2: Annotated[float, Field(ge=0, lt=1)] = Field(0.95, description="decay of the mean of their squares")
    clip: Rate = Field(1.0, description="largest norm of a member's gradient")


class Foundation(Spec):
    """Pre-training on the web's initial human documents; what is not said here is as in ``training``."""

    tokens: Positive = Field(2_000_000, description="tokens seen, with repetition")
    learning_rate: Rate = Field(3e-3, description="at its peak")
    batch: Positive = Field(32, description="blocks per optimiser step")

    def training(self, usual: Training) -> Training:
        """Return how the pre-training fit trains, given how the others do."""
        return usual.model_copy(update={"batch": self.batch, "learning_rate": self.learning_rate})

    def budget(self) -> Budget:
        """Return the budget of the pre-training fit."""
        return Budget(tokens=self.tokens)


def learning_rate(training: Training, peak: float, step: int, steps: int) -> float:
    """Rate at a step (from 0): linear warm-up to ``peak``, then constant or a half cosine down to zero."""
    warm = math.ceil(training.warmup * steps)
    if step < warm:
        return peak * (step + 1) / warm
    if training.schedule == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))
