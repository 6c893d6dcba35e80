"""The two limits of a device, arithmetic and memory bandwidth, and what a token costs of each."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from benchmarks.engines import matrix_rate
from ecosystem.families.language.gpt2.shape import Shape

PEAKS = {
    "B200": (2250e12, 8.0e12),
    "H200": (989e12, 4.8e12),
    "H100 NVL": (835e12, 3.9e12),
    "H100 PCIe": (756e12, 2.0e12),
    "H100": (989e12, 3.35e12),
    "A100-SXM4-80GB": (312e12, 2.039e12),
    "A100 80GB PCIe": (312e12, 1.935e12),
    "A100": (312e12, 1.555e12),
    "L40S": (362e12, 0.864e12),
    "RTX 4090": (165e12, 1.008e12),
    "L4": (121e12, 0.3e12),
}
"""Dense bf16 FLOP/s and bytes/s by a part of the device's name, from the data sheets; the first that matches counts."""


@dataclass(frozen=True)
class Limits:
    """Peak FLOP/s (bf16, dense) and bytes/s of a device, and where these come from."""

    flops: float
    bandwidth: float
    origin: str


def limits(device: str) -> Limits:
    """Look up the limits of a device by its name, or measure them by a large product and a large copy."""
    name = torch.cuda.get_device_name(0) if device == "cuda" else "CPU"
    for part, (flops, bandwidth) in PEAKS.items():
        if part in name:
            return Limits(flops, bandwidth, f"data sheet of {part}")
    cuda = device == "cuda"
    return Limits(
        matrix_rate(device, 8192 if cuda else 512), copy_rate(device, 1 << (31 if cuda else 25)), "measured here"
    )


def copy_rate(device: str, size: int) -> float:
    """Return bytes read and written per second by the fastest of some copies of ``size`` bytes."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target, best = torch.empty_like(source), float("inf")
    for _ in range(6):
        started = time.perf_counter()
        target.copy_(source)
        target[-1].item()  # wait
        best = min(best, time.perf_counter() - started)
    return 2 * size / best


def training_flops(shape: Shape, length: int) -> float:
    """Return the operations of a trained token: three forward passes, with causal attention over half the length."""
    return 3.0 * shape.flops(length)


def writing_bytes(shape: Shape, rows: int, length: int) -> float:
    """Return the least bytes that a written token reads in bf16, on average over ``length`` positions.

    They are its share of the weights, which all ``rows`` read together, and the keys and values before it.
    """
    kept = 2 * shape.n_layer * shape.n_embd  # keys and values of a position
    return 2.0 * (shape.count() / rows + kept * (length / 2 + 1))
