"""Peak memory of a fine-tuned model of real size: ``python -m benchmarks --memory``.

SmolLM2-135M (the extra ``smollm``) as ``causal_lm`` and a GPT-2 of 124 M parameters as ``gpt2``, in float32. Each is
trained by a run of this project (opening, fit and commit of one step) and by a plain PyTorch loop with AdamW, with the
same batch and length, each in a process of its own. The peak is the largest resident set of the whole process.
"""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

TARGET = 1.15
"""Most memory of a run, relative to the plain loop."""
MODELS = ("smollm2", "gpt2")
SIZES = ((8, 256), (1, 256))
"""Blocks per optimiser step, and tokens per block."""
_STEPS = 2  # of the optimiser
_GPT2 = {"n_layer": 12, "n_embd": 768, "n_head": 12, "vocab_size": 50257, "n_positions": 1024}
_SCENARIO = """
name = "memory"
steps = 1
[sources.language]
kind = "process"
mean_words = 40.0
held_out = 4
[web]
sites = 10
initial = {{ source = "language", documents = 40 }}
[models.large]
kind = "{kind}"
init = "{folder}"
context = {length}
training = {{ batch = {batch}, learning_rate = 1e-5 }}
{adapter}
[trainers.lab]
model = "large"
count = {members}
scrape = {{ docs = 40 }}
budget = {{ tokens = {tokens} }}
publish = 1
decoding = {{ max_tokens = 8 }}
"""


def measure(rounds: int = 1, say: Callable[[str], None] = print) -> list[dict[str, Any]]:
    """Return peak memory in GB and seconds of both sides, by model and size; say every row once it is measured."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        for model in MODELS:
            folder = str(Path(place) / model)
            _call("prepare", model, folder)
            for batch, length in SIZES:
                for _ in range(rounds):
                    sides = {side: _call(side, model, folder, batch, length) for side in ("plain", "run", "adapter")}
                    row = {"model": model, "batch": batch, "length": length}
                    for side, figures in sides.items():
                        row |= {f"{side}_{key}": value for key, value in figures.items()}
                    rows.append(row)
                    say(json.dumps(row))
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Return the figures as a table in Markdown."""
    lines = [
        f"| model | batch | plain loop, GB | run, GB | run / plain (target {TARGET}) | LoRA, rank 16, GB |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        ratio = row["run_gb"] / row["plain_gb"]
        adapter = f"{row['adapter_gb']:.2f}" if "adapter_gb" in row else ""
        lines.append(
            f"| {row['model']} | {row['batch']} × {row['length']} | {row['plain_gb']:.2f} | {row['run_gb']:.2f} | "
            f"{ratio:.2f} | {adapter} |"
        )
    return "\n".join(lines)


def _call(*arguments: object) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *map(str, arguments)], capture_output=True, text=True
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def _prepare(model: str, folder: Path) -> None:
    """Write a checkpoint folder: SmolLM2, or a GPT-2 with random weights and the same tokenizer."""
    from ecosystem.cache import cache_folder
    from ecosystem.families.language.conversion import folder_of

    real = folder_of("smollm2", "init", cache_folder())
    shutil.copytree(real, folder)
    if model == "smollm2":
        return
    import torch
    import transformers

    torch.manual_seed(0)
    no_dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    transformers.GPT2LMHeadModel(transformers.GPT2Config(**_GPT2, **no_dropout)).save_pretrained(folder)


def _plain(folder: Path, batch: int, length: int) -> float:
    """Train with a plain loop; return seconds per optimiser step."""
    import torch
    import transformers

    torch.set_num_threads(2)
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).train()
    optimiser = torch.optim.AdamW(module.parameters(), lr=1e-5, fused=True)
    generator = torch.Generator().manual_seed(0)
    began = time.perf_counter()
    for _ in range(_STEPS):
        ids = torch.randint(0, 300, (batch, length), generator=generator)
        module(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
    return (time.perf_counter() - began) / _STEPS


def _run(model: str, folder: Path, batch: int, length: int, adapter: str = "", members: int = 1) -> float:
    """Train by a run of one step; return seconds per optimiser step."""
    from ecosystem.runs.environment import Machine
    from ecosystem.runs.execute import begin
    from ecosystem.scenario.scenario import Scenario

    kind = "gpt2" if model == "gpt2" else "causal_lm"
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "memory.toml"
        tokens = _STEPS * batch * length
        file.write_text(
            _SCENARIO.format(
                kind=kind, folder=folder, batch=batch, length=length, tokens=tokens, adapter=adapter, members=members
            )
        )
        times = []

        def progress(what: str, done: int, total: int) -> None:
            if what == "fit":
                times.append(time.perf_counter())

        for _ in begin(Scenario.load(file), out=place, machine=Machine("cpu", 2), cache=place, progress=progress):
            pass
    return (times[-1] - times[0]) / _STEPS / members


def main(side: str, model: str, folder: Path, *sizes: int) -> dict[str, float]:
    """Measure one side in this process."""
    if side == "prepare":
        _prepare(model, folder)
        return {}
    if side == "plain":
        seconds = _plain(folder, *sizes)
    else:
        seconds = _run(model, folder, *sizes, adapter="adapter = { rank = 16 }" if side == "adapter" else "")
    return {"gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9, "seconds": seconds}


if __name__ == "__main__":
    side, model, folder, *sizes = sys.argv[1:]
    print(json.dumps(main(side, model, Path(folder), *map(int, sizes))))
