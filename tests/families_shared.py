"""What the tests of families share: tiny cohorts, a tokenizer of numbers, and the same weights in transformers."""

from pathlib import Path

import numpy as np
import polars as pl
import torch

from ecosystem.families.base import BuildContext
from ecosystem.families.language.cohort import CohortSettings
from ecosystem.families.language.gpt2 import transformer
from ecosystem.families.language.gpt2.cohort import Gpt2Cohort, draw
from ecosystem.families.language.gpt2.shape import Shape
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest
from ecosystem.families.training_spec import Training
from ecosystem.streams import Streams

STREAMS = Streams(7)
SHAPE = Shape(n_layer=2, n_embd=32, n_head=4, vocabulary=70, context=24, n_inner=128)
PLAIN = Training(batch=4, learning_rate=3e-3, schedule="constant", warmup=0.0)


class Numbers:
    """A tokenizer whose texts are the ids themselves, so that a test chooses tokens; 0 is the end of text."""

    end = 0
    size = SHAPE.vocabulary

    def encode(self, docs):
        return [np.array([int(word) for word in text.split()], dtype=np.int32) for text in docs.to_list()]

    def ids_without_text(self, types):
        return np.arange(self.size, types)

    def decode(self, ids):
        return [" ".join(map(str, row)) for row in ids]


def build_context(threads=2, device="cpu", human=(), seed=7, cache=Path("unused"), progress=lambda *_: None):
    return BuildContext(
        pl.Series("text", list(human), dtype=pl.String), Streams(seed), device, threads, cache, progress
    )


def weights(shape=SHAPE, spread=1.0, name="weights"):
    """Random weights; ``spread`` widens them, so that nothing in the arithmetic hides behind small numbers."""
    drawn = draw(shape, STREAMS.at(name))
    generator = torch.Generator().manual_seed(1)
    return {k: v + spread * 0.1 * torch.randn(v.shape, generator=generator) for k, v in drawn.items()}


def cohort(members=1, shape=SHAPE, training=PLAIN, threads=2, initial=None, stacks=None):
    settings = CohortSettings("model", members, Numbers(), shape.context)
    made = Gpt2Cohort(settings, shape, initial or weights(shape), training, build_context(threads))
    if stacks is not None:
        made._stacks = stacks  # the way of a GPU, computed on the CPU
    return made


def documents(n, seed=0, low=3, high=40, vocabulary=SHAPE.vocabulary):
    rng = np.random.default_rng(seed)
    return pl.Series([" ".join(map(str, rng.integers(1, vocabulary, rng.integers(low, high)))) for _ in range(n)])


def fit_request(docs, member=0, weight=None, budget=None, rate=None, start="foundation", name=None):
    weight = np.ones(len(docs)) if weight is None else np.asarray(weight, dtype=float)
    stream = STREAMS.at(name or f"trainer/{member}/fit", 3)
    return FitRequest(member, docs, weight, budget or Budget(tokens=400), rate, start, stream)


def generate_request(n, decoding=None, member=0, prompts=None, name=None):
    stream = STREAMS.at(name or f"trainer/{member}/generate", 3)
    return GenerateRequest(member, n, decoding or Decoding(max_tokens=23), prompts, stream)


def in_transformers(made, member=0):
    """The same weights as a GPT2LMHeadModel, ready to compare (no dropout)."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = {k: v for k, v in made.shape.config(0).items() if k not in ("architectures", "model_type", "dtype")}
    model = GPT2LMHeadModel(GPT2Config(**config, loss_type="ForCausalLM"))
    state = {name: torch.from_numpy(values[member]) for name, values in made.state().items()}
    model.load_state_dict(state | {"lm_head.weight": state[transformer.WTE]})
    return model.eval()


def largest_difference(a, b):
    return max(float(np.abs(a[name] - b[name]).max()) for name in a)
