"""How strong watermarks are, what weakens them and what they cost: ``python -m benchmarks.watermarks``.

Texts are written by the foundation of a preset. Strength is the z-score of a text: on the tokens that were chosen, on
the text read again, and after paraphrases that need no other model than those at hand. Means have standard errors over
texts. Human texts are looked at under many keys, since with one key common phrases are always marked, or never.
"""

from __future__ import annotations

import json
import math
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import torch

from ecosystem.cache import cache_folder
from ecosystem.corpus.watermark_spec import WatermarkSpec
from ecosystem.families.base import FAMILIES, BuildContext
from ecosystem.families.language import watermark
from ecosystem.families.requests import Decoding, GenerateRequest, Prompt, ScoreRequest
from ecosystem.scenario.presets import with_preset
from ecosystem.sources.base import SOURCES
from ecosystem.streams import Streams

SHARES = (0.1, 0.25, 0.5, 0.75)
KEYS = 100
MIN_TOKENS = 16
THRESHOLD = 4.0
MARKS = {
    "green_list": WatermarkSpec("green_list", 15_485_863),
    "green_list, bias 1": WatermarkSpec("green_list", 15_485_863, bias=1.0),
    "synthid": WatermarkSpec("synthid", 15_485_863),
    "synthid, depth 10": WatermarkSpec("synthid", 15_485_863, depth=10),
    "synthid, depth 30": WatermarkSpec("synthid", 15_485_863, depth=30),
}

Change = Callable[[list[str], float, np.random.Generator], list[str]]


def replaced(words: np.ndarray) -> Change:
    """Return a change that replaces a share of the words by words drawn from human text, by their frequency."""

    def change(text: list[str], share: float, rng: np.random.Generator) -> list[str]:
        return [str(rng.choice(words)) if rng.random() < share else word for word in text]

    return change


def deleted(text: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """Delete a share of the words."""
    return [word for word in text if rng.random() >= share]


def swapped(text: list[str], share: float, rng: np.random.Generator) -> list[str]:
    """Swap a share of the words with the next one."""
    text = list(text)
    place = 0
    while place + 1 < len(text):
        if rng.random() < share / 2:  # each swap moves two words
            text[place : place + 2] = text[place + 1], text[place]
            place += 1
        place += 1
    return text


def words_of(text: str) -> list[str]:
    """Split into words, each with the white space before it."""
    return re.findall(r"\s*\S+", text)


class Bench:
    """The foundation of one preset, pre-trained on the source python_docs."""

    def __init__(self, preset: str, texts: int, cache: Path) -> None:
        torch.set_num_threads(1)
        fields = with_preset({"preset": preset}, None)
        self.texts, self.streams = texts, Streams(1)
        reservoir = SOURCES.get("python_docs")().open("docs", self.streams, Path())
        human = reservoir.rows(np.arange(3000))
        context = BuildContext(human, self.streams, "cpu", 1, cache)
        self.cohort: Any = FAMILIES.get(fields.pop("kind"))(**fields).cohort("bench", 1, context)
        self.human = reservoir.held_out
        self.words = np.array([word for text in human for word in words_of(text)])

    def request(
        self, mark: WatermarkSpec | None, decoding: Decoding | None = None, prompts: Any = None
    ) -> GenerateRequest:
        """Return a request for texts, with the same noise for every mark."""
        return GenerateRequest(0, self.texts, decoding or Decoding(), prompts, self.streams.at("bench", 1), mark)

    def strength(self, mark: WatermarkSpec, texts: pl.Series) -> dict[str, tuple[float, float]]:
        """Return the mean z-score and the share found, of texts that are long enough to be judged."""
        return strength(*self.cohort.watermark(texts, mark))

    def measure(self, name: str) -> dict[str, Any]:
        """Measure one watermark."""
        mark, rng = MARKS[name], np.random.default_rng(0)
        [tokens] = self.cohort.tokens([self.request(mark)])
        texts = pl.Series(self.cohort.tokenizer.decode(tokens))
        [plain] = self.cohort.generate([self.request(None)])
        figures: dict[str, Any] = {
            "unmarked": self.strength(mark, plain),
            "chosen tokens": strength(
                *watermark.detect(mark, [np.array(t, np.int32) for t in tokens], self.cohort.types)
            ),
            "read again": self.strength(mark, texts),
        }
        changes: dict[str, Change] = {"replaced": replaced(self.words), "deleted": deleted, "swapped": swapped}
        for what, change in changes.items():
            for share in SHARES:
                new = ["".join(change(words_of(text), share, rng)) for text in texts]
                figures[f"{what} {share:.0%}"] = self.strength(mark, pl.Series(new))
        # The same model goes on without a mark where a text is cut off: its first tokens are kept, the rest is new.
        for kept in (32, 16, 8):
            [again] = self.cohort.generate([self.request(None, Decoding(prompt=Prompt(tokens=kept)), texts)])
            figures[f"rewritten after {kept} tokens"] = self.strength(mark, again)
        nats, units = self.cohort.score([ScoreRequest(0, texts)])[0].per_document()
        before, count = self.cohort.score([ScoreRequest(0, plain)])[0].per_document()
        figures["nats per token of the writer"] = per_token(nats, units)
        figures["the same, unmarked"] = per_token(before, count)
        return figures

    def humans(self, name: str) -> dict[str, float]:
        """Return how human texts look under many keys: mean z, its spread between keys, share taken for marked."""
        means, over = [], []
        for key in range(1, KEYS + 1):
            z, scored = self.cohort.watermark(self.human, replace(MARKS[name], key=key))
            z = z[scored >= MIN_TOKENS]
            means.append(float(z.mean()))
            over.append(float((z > THRESHOLD).mean()))
        error = statistics.stdev(over) / math.sqrt(KEYS)
        return {
            "mean z": statistics.mean(means),
            "its standard deviation between keys": statistics.stdev(means),
            "share above the threshold": statistics.mean(over),
            "its standard error": error,
        }

    def cost(self, rounds: int) -> dict[str, dict[str, float]]:
        """Return CPU microseconds per token, and relative to no mark, taking turns."""
        marks: dict[str, WatermarkSpec | None] = {"no mark": None, **MARKS}
        times: dict[str, list[float]] = {name: [] for name in marks}
        for turn in range(rounds + 1):
            for name, mark in marks.items():
                began = time.process_time()
                [tokens] = self.cohort.tokens([self.request(mark)])
                if turn:  # the first one warms up
                    times[name].append((time.process_time() - began) / sum(map(len, tokens)) * 1e6)
        return {
            name: {
                "microseconds per token": statistics.median(values),
                "relative": statistics.median(v / b for v, b in zip(values, times["no mark"], strict=True)),
            }
            for name, values in times.items()
        }


def strength(z: np.ndarray, scored: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return mean z-score and share above the threshold with standard errors."""
    z = z[scored >= MIN_TOKENS]
    over = z > THRESHOLD
    return {
        name: (float(values.mean()), float(values.std(ddof=1) / math.sqrt(len(values))))
        for name, values in (("z", z), ("found", over.astype(float)))
    }


def per_token(nats: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """Return nats per token and their standard error over texts."""
    value = nats.sum() / units.sum()
    rest = nats - value * units
    return float(value), float(math.sqrt(rest @ rest) / units.sum())


@click.command()
@click.option("--preset", "presets", multiple=True, default=("trigram", "gpt2-nano"), show_default=True)
@click.option("--texts", type=click.IntRange(min=10), default=500, show_default=True, help="Texts of each sort.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True, help="Rounds of the timing.")
@click.option("--cache", type=click.Path(path_type=Path), help="Folder for foundations (default: ecosystem's own).")
@click.option("--json", "as_json", is_flag=True)
def main(presets: tuple[str, ...], texts: int, rounds: int, cache: Path | None, as_json: bool) -> None:
    """Measure the strength and the cost of watermarks."""
    FAMILIES.all()
    results: dict[str, Any] = {}
    for preset in presets:
        bench = Bench(preset, texts, cache_folder(cache))
        results[preset] = {
            "strength": {name: bench.measure(name) for name in MARKS},
            "human": {name: bench.humans(name) for name in ("green_list", "synthid")},
            "cost": bench.cost(rounds),
        }
        if not as_json:
            _print(preset, results[preset])
    if as_json:
        click.echo(json.dumps(results, indent=1))


def _print(preset: str, figures: dict[str, Any]) -> None:
    click.echo(f"\n{preset}")
    for name, rows in figures["strength"].items():
        click.echo(f"  {name}: mean z-score, share found above z = {THRESHOLD:g}")
        for what, values in rows.items():
            if isinstance(values, dict):
                (z, error), (share, share_error) = values["z"], values["found"]
                click.echo(f"    {what:28} {z:6.2f} ± {error:4.2f}   {share:6.3f} ± {share_error:5.3f}")
            else:
                click.echo(f"    {what:28} {values[0]:6.3f} ± {values[1]:5.3f}")
    for name, values in figures["human"].items():
        rates = ", ".join(f"{what} {value:.5f}" for what, value in values.items())
        click.echo(f"  human texts under {KEYS} keys, {name}: {rates}")
    for name, values in figures["cost"].items():
        click.echo(f"  {name:20} {values['microseconds per token']:8.2f} µs per token, {values['relative']:.2f} x")


if __name__ == "__main__":
    main()
