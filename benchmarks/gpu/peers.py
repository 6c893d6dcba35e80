"""Other ways to train and write with the same weights: plain loops, and three ways to write with ``transformers``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.engines import LEARNING_RATE, Bench

Job = Callable[[], object]


def training(bench: Bench) -> dict[str, Callable[[], Job]]:
    """Return what prepares each plain loop; a loop trains one model on all blocks, as one of our trainers does."""
    return {"plain loop": lambda: _loop(bench, False), "compiled plain loop": lambda: _loop(bench, True)}


def _loop(bench: Bench, compiled: bool) -> Job:
    model = bench.model()
    optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
        return loss

    compute = torch.compile(loss_of, dynamic=False) if compiled else loss_of

    def train() -> None:
        model.train()
        for first in range(0, len(bench.blocks), bench.batch):
            ids = bench.blocks[first : first + bench.batch].to(bench.device)
            with torch.autocast(bench.device, torch.bfloat16, enabled=bench.device == "cuda"):
                loss = compute(ids)
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    return train


def writing(bench: Bench) -> dict[str, Callable[[], Job]]:
    """Return what prepares each way to fill the context of ``bench.rows`` documents."""
    return {
        "generate": lambda: _generate(bench),
        "generate, static cache, compiled": lambda: _generate(bench, cache_implementation="static"),
        "continuous batching": lambda: _continuous(bench),
    }


def _model(bench: Bench) -> Any:
    return bench.model().to(torch.bfloat16 if bench.device == "cuda" else torch.float32).eval()


def _generate(bench: Bench, **options: Any) -> Job:
    """``transformers`` itself compiles the step of a static cache on a GPU."""
    model, end = _model(bench), bench.cohort.tokenizer.end
    start = torch.full((bench.rows, 1), end, device=bench.device)
    sampling = {"do_sample": True, "temperature": 1.0, "top_k": 0, "pad_token_id": end}

    def write() -> None:
        with torch.inference_mode():
            mask = torch.ones_like(start)
            written = model.generate(start, attention_mask=mask, max_length=bench.context, **sampling, **options)
        assert written.shape == (bench.rows, bench.context)

    return write


def _continuous(bench: Bench) -> Job:
    from transformers import ContinuousBatchingConfig, GenerationConfig

    model, end = _model(bench), bench.cohort.tokenizer.end
    config = GenerationConfig(
        max_new_tokens=bench.context - 1, do_sample=True, top_k=0, eos_token_id=-1, pad_token_id=end
    )

    # On a GPU it takes the memory that is free; so it would on a CPU, from other programs.
    blocks = {} if bench.device == "cuda" else {"num_blocks": 2 * bench.rows, "max_batch_tokens": 4 * bench.rows}
    batching = ContinuousBatchingConfig(**blocks)

    def write() -> None:
        results = model.generate_batch([[end]] * bench.rows, config, batching)
        short = [r for r in results.values() if len(r.generated_tokens) < bench.context - 1]
        if len(results) < bench.rows or short:
            raise RuntimeError(f"{bench.rows - len(results)} documents are missing, and {len(short)} too short")

    return write
