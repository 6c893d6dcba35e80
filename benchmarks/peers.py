"""The strongest peers on a CPU: CTranslate2 in generation, and a plain loop compiled by ``torch.compile`` in training.

Both get the best settings found: those of CTranslate2 are tried before every measurement; ``max-autotune`` of
``torch.compile`` was no faster than its default (docs/performance.md).
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from itertools import product
from typing import Any

import torch

from benchmarks.engines import LEARNING_RATE, Bench
from ecosystem.families.language.tokenizer import END_OF_TEXT

_BATCHES = (16, 32, 64, 128, 256)  # documents that a worker of CTranslate2 writes at once
_TRIALS = 3  # runs of each setting, of which the fastest counts


class CTranslate2:
    """The shared weights in CTranslate2 (float32), converted from the checkpoint."""

    def __init__(self, bench: Bench) -> None:
        from ctranslate2.converters import TransformersConverter

        self._bench, self._folder = bench, bench.folder / "ctranslate2"
        TransformersConverter(str(bench.checkpoint)).convert(str(self._folder))
        self._end = END_OF_TEXT
        self.setting = ""
        self._batch, self._generator = self._fastest()

    def _fastest(self) -> tuple[int, Any]:
        """Try workers with equally many threads each, and sizes of a batch; return the fastest batch and engine."""
        from ctranslate2 import Generator

        best: tuple[float, int, Any] | None = None
        threads = self._bench.threads
        workers = sorted({1, threads})
        for count, batch in product(workers, _BATCHES):
            settings = {"inter_threads": count, "intra_threads": threads // count}
            engine = Generator(str(self._folder), device="cpu", compute_type="float32", **settings)
            seconds = min(self._bench.seconds(self.generate, batch, engine) for _ in range(_TRIALS))
            if best is None or seconds < best[0]:
                best = seconds, batch, engine
                self.setting = f"{count} workers of {threads // count} threads, batches of {batch}"
        assert best is not None
        return best[1], best[2]

    def generate(self, batch: int | None = None, engine: Any = None) -> Any:
        """Fill the context with as many documents as the others write, by ancestral sampling at temperature 1."""
        engine = engine or self._generator
        length = self._bench.context - 1
        return engine.generate_batch(
            [[self._end]] * self._bench.rows,
            max_batch_size=batch or self._batch,
            max_length=length,
            min_length=length,
            sampling_topk=0,
            sampling_temperature=1,
            include_prompt_in_result=False,
        )


def ctranslate2(bench: Bench) -> CTranslate2 | str:
    """Return the peer, or a sentence that says why it is left out."""
    if bench.device != "cpu":
        return "CTranslate2 is compared on a CPU only."
    if find_spec("ctranslate2") is None:
        return 'CTranslate2 is not installed; pip install "ecosystem[bench]" compares with it.'
    return CTranslate2(bench)


def compiled_train(bench: Bench, model: Any) -> Callable[[], None] | str:
    """Return the plain loop of ``Bench.plain_train``, compiled, or a sentence that says why it is left out."""
    if shutil.which("c++") is None:
        return "torch.compile needs a C++ compiler; there is none here."
    torch._dynamo.reset()  # type: ignore[no-untyped-call]

    def loss_of(ids: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = model(input_ids=ids, labels=ids, use_cache=False).loss
        return loss

    compiled = torch.compile(loss_of, dynamic=False)

    def train() -> None:
        model.train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01, fused=True)
        for first in range(0, len(bench.blocks), bench.batch):
            loss = compiled(bench.blocks[first : first + bench.batch].to(bench.device))
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    return train
