"""The benchmarks of a GPU: their limits, and the same measurements at small sizes on a CPU."""

import pytest
import torch
from click.testing import CliRunner

from benchmarks.__main__ import main
from benchmarks.gpu import measure, peers, trainers
from benchmarks.gpu.limits import limits, training_flops, writing_bytes
from ecosystem.families.language.gpt2.shape import Shape

GPT2 = Shape(12, 768, 12, 50257, 1024, 3072)


def test_the_limits_of_known_devices_are_looked_up(monkeypatch):
    for name, bandwidth in (("NVIDIA H100 80GB HBM3", 3.35e12), ("NVIDIA H100 PCIe", 2.0e12), ("NVIDIA L4", 0.3e12)):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda index, name=name: name)
        assert limits("cuda").bandwidth == bandwidth


def test_a_token_costs_what_the_shape_says():
    # Six operations per parameter but those of positions and norms, and attention over half the context.
    assert training_flops(GPT2, 1024) == pytest.approx(6 * 124.3e6 * 0.995 + 6 * 12 * 768 * 1024, rel=0.005)
    # The weights, read once for all rows, and 36,864 bytes of keys and values for each position before the token.
    assert writing_bytes(GPT2, 1, 1024) == pytest.approx(2 * 124.4e6 + 36_864 * 513, rel=0.001)
    assert writing_bytes(GPT2, 192, 1024) == pytest.approx(2 * 124.4e6 / 192 + 36_864 * 513, rel=0.001)


@pytest.mark.slow
def test_every_side_is_measured_or_says_why_not(monkeypatch):
    def broken(bench):
        raise ImportError("no module of this name")

    loops, writers = peers.training, peers.writing
    monkeypatch.setattr(peers, "training", lambda bench: {"plain loop": loops(bench)["plain loop"]})
    monkeypatch.setattr(
        peers, "writing", lambda bench: {"generate": writers(bench)["generate"], "other": lambda: broken(bench)}
    )
    figures = measure.measure("cpu", 1, processes=False)
    assert figures["rates"]["write"]["other"] == "not measured: ImportError: no module of this name"
    rates = [rate for sides in figures["rates"].values() for rate in sides.values() if isinstance(rate, float)]
    assert len(rates) == 4 and min(rates) > 0
    text = measure.report(figures)
    assert "MFU  (to reach: 50%)" in text and "ours against the best of the others" in text
    assert "one after the other" in text and "(to reach: 20x)" in text


def test_processes_that_cannot_share_a_gpu_say_why(monkeypatch):
    monkeypatch.setattr(trainers.shutil, "which", lambda name: None)
    said = trainers.processes("gpt2-nano", "cuda", (8, 8, 512), 2)
    assert said == "nvidia-cuda-mps-control is not installed here, so processes that share the GPU under MPS are not measured."  # fmt: skip # noqa: E501


@pytest.mark.parametrize("options", [["--documents", "5000"], ["--chart", "a.svg"], ["--near-duplicates", "--memory"]])
def test_options_of_large_webs_are_refused_elsewhere(options):
    result = CliRunner().invoke(main, options)
    assert result.exit_code == 2 and "belong to --scale" in result.output


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ("--scale --memory", "--scale and --memory are measured one at a time; give one of them."),
        ("--gpu --recursions", "--recursions and --gpu are measured one at a time"),
        ("--scale --rounds 2", "--rounds: not read by --scale; omit it."),
        ("--view --device cuda", "--device: not read by --view; omit it."),
        ("--device cuda --preset gpt2 --generations 1", "--preset and --generations: not read by --device cuda; omit"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options, sentence):
    result = CliRunner().invoke(main, options.split())
    assert result.exit_code == 2 and sentence in " ".join(result.output.split())
