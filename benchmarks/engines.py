"""The same work done twice: by this project's cohort engine, and with ``transformers`` as published code does it.

Both sides have the same weights, the same documents and the same number of compute threads. End of text is made
so improbable in the shared weights that every document fills the context on both sides.
"""

from __future__ import annotations

import sys
import tempfile
import time
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from ecosystem.families.base import BuildContext
from ecosystem.families.language.gpt2.family import Gpt2
from ecosystem.families.requests import Budget, Decoding, FitRequest, GenerateRequest
from ecosystem.scenario.presets import presets, read_toml
from ecosystem.sources.base import SOURCES
from ecosystem.streams import Stream, Streams

LEARNING_RATE = 1e-3
FULL_SIZE = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocabulary": 16384, "context": 1024}


@dataclass
class Bench:
    """One preset on one device: our cohort of four, and the same weights as a ``GPT2LMHeadModel``."""

    name: str
    device: str
    threads: int
    batch: int  # sequences per training step
    rows: int  # documents generated at once
    tokens: int  # tokens each member trains on
    fields: dict[str, int] | None = None  # sizes of the model instead of the preset's
    members: int = 4

    def __post_init__(self) -> None:
        torch.set_num_threads(self.threads)
        fields = self.fields or (FULL_SIZE if self.name == "gpt2" else read_toml(presets()[self.name]))
        fields = {k: v for k, v in fields.items() if k in FULL_SIZE}
        self.family = Gpt2(init="random", **fields)
        reservoir = SOURCES.get("python_docs")().open("docs", Streams(1), Path())
        self.docs = reservoir.rows(np.arange(min(3000, reservoir.size or 0)))
        self.folder = Path(tempfile.mkdtemp())
        context = BuildContext(self.docs, Streams(1), self.device, self.threads, self.folder / "cache")
        self.cohort: Any = self.family.cohort("bench", self.members, context)
        self.state = self._without_end(self.cohort.state())
        self.cohort.load(self.state)
        self.checkpoint = self.folder / "checkpoint"
        self.cohort.save_assets(self.checkpoint)
        self.family.save_weights(self.checkpoint, self.state, 0)
        self.context = self.cohort.context
        ids = np.concatenate([np.append(d, self.cohort.tokenizer.end) for d in self.cohort.tokenizer.encode(self.docs)])
        length = len(ids) // self.context * self.context
        blocks = ids[:length].reshape(-1, self.context).astype(np.int64)
        need = -(-self.tokens // self.context)
        self.blocks = torch.from_numpy(np.resize(blocks, (need, self.context)))

    def seconds(self, work: Any, *arguments: Any) -> float:
        """Time one piece of work, waiting for the device."""
        self._wait()
        started = time.perf_counter()
        work(*arguments)
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()

    # Ours

    def ours_generate(self, members: int = 1) -> pl.Series:
        """Fill the context with ``rows`` documents of each member."""
        decoding = Decoding(max_tokens=self.context)
        requests = [GenerateRequest(m, self.rows, decoding, None, Stream(1, f"bench/{m}")) for m in range(members)]
        written: list[pl.Series] = self.cohort.generate(requests)
        return written[0]

    def ours_train(self, members: int = 4, docs: pl.Series | None = None, epochs: float | None = None) -> None:
        """Train members on the same number of tokens each."""
        docs = self.docs if docs is None else docs
        budget = Budget(epochs=epochs) if epochs else Budget(tokens=self.tokens)
        weight = np.ones(docs.len())
        requests = [
            FitRequest(m, docs, weight, budget, LEARNING_RATE, "previous", Stream(1, f"bench/{m}"))
            for m in range(members)
        ]
        self.cohort.fit(requests)

    def ours_recursion(self, generations: int) -> None:
        """Run the replace regime: generate texts, train one epoch on them, repeat."""
        for _ in range(generations):
            self.cohort.load(self._without_end(self.cohort.state()))
            self.ours_train(1, self.ours_generate(), epochs=1)

    def _without_end(self, weights: dict[str, Any]) -> dict[str, Any]:
        """Make the logit of end of text -50: the first of the final features is constant, and only it reads that."""
        weights["transformer.ln_f.weight"][..., 0] = 0.0
        weights["transformer.ln_f.bias"][..., 0] = 5.0
        weights["transformer.wte.weight"][..., 0] = 0.0
        weights["transformer.wte.weight"][..., self.cohort.tokenizer.end, 0] = -10.0
        return weights

    # transformers

    def model(self) -> Any:
        """Return the same weights as a ``GPT2LMHeadModel`` without dropout."""
        import transformers

        transformers.utils.logging.disable_progress_bar()
        off = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
        model = transformers.GPT2LMHeadModel.from_pretrained(self.checkpoint, **off)
        return model.to(self.device)

    def theirs_generate(self, model: Any) -> torch.Tensor:
        """Call ``generate`` with ancestral sampling from the end-of-text token to the full context."""
        model.eval()
        start = torch.full((self.rows, 1), self.cohort.tokenizer.end, device=self.device)
        with torch.inference_mode(), self._autocast():
            written: torch.Tensor = model.generate(
                start,
                attention_mask=torch.ones_like(start),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                max_length=self.context,
                pad_token_id=self.cohort.tokenizer.end,
            )
        return written

    def plain_train(self, model: Any, blocks: torch.Tensor | None = None) -> None:
        """Train in a plain PyTorch loop: AdamW, clipping, batches of blocks."""
        blocks = self.blocks if blocks is None else blocks
        model.train()
        optimiser = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
        for first in range(0, len(blocks), self.batch):
            ids = blocks[first : first + self.batch].to(self.device)
            with self._autocast():
                loss = model(input_ids=ids, labels=ids).loss
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimiser.step()

    def trainer_train(self, model: Any, blocks: torch.Tensor | None = None) -> None:
        """Train with ``transformers.Trainer``, with all reporting disabled."""
        import transformers

        blocks = self.blocks if blocks is None else blocks
        data = [{"input_ids": row, "labels": row} for row in blocks.cpu()]
        arguments = transformers.TrainingArguments(
            output_dir=str(self.folder / "trainer"),
            per_device_train_batch_size=self.batch,
            num_train_epochs=1,
            learning_rate=LEARNING_RATE,
            weight_decay=0.01,
            max_grad_norm=1.0,
            save_strategy="no",
            logging_strategy="no",
            report_to=[],
            disable_tqdm=True,
            use_cpu=self.device == "cpu",
            bf16=self.device == "cuda",
        )
        with redirect_stdout(StringIO()):  # it prints its summary regardless of the settings
            transformers.Trainer(model=model, args=arguments, train_dataset=data).train()

    def theirs_recursion(self, generations: int, model: Any) -> None:
        """Run the same recursion with ``generate``, ``Trainer`` and text in between, as in published code."""
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.checkpoint)
        for _ in range(generations):
            with torch.no_grad():
                self._without_end(dict(model.named_parameters()))
            texts = tokenizer.batch_decode(self.theirs_generate(model), skip_special_tokens=True)
            ids = np.concatenate([np.append(d, tokenizer.eos_token_id) for d in tokenizer(texts)["input_ids"]])
            blocks = ids[: len(ids) // self.context * self.context].reshape(-1, self.context)
            self.trainer_train(model, torch.from_numpy(blocks.astype(np.int64)))

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.device == "cuda")


def matrix_rate(device: str, size: int) -> float:
    """Return the rate (FLOP/s) of a large matrix product, in single precision on a CPU and bf16 on a GPU."""
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
    rates = []
    for _ in range(6):
        started = time.perf_counter()
        for _ in range(4):
            c = a @ b
        c[0, 0].item()
        rates.append(4 * 2 * size**3 / (time.perf_counter() - started))
    return sorted(rates)[3]


def peak() -> float:
    """Return the peak resident memory of this process in MiB (on Linux, excluding that of its parent)."""
    status = Path("/proc/self/status")
    if status.exists():
        [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
        return int(line.split()[1]) / 1024
    import resource

    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
