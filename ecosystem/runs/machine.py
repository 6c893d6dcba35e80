"""What a run is computed on: the device, and the number of compute threads."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ecosystem.errors import EcosystemError, nearest

DEVICES = ("auto", "cpu", "cuda", "mps")


@dataclass(frozen=True)
class Machine:
    """What a run's numbers depend on besides the scenario: the device and the number of compute threads."""

    device: str
    threads: int

    @classmethod
    def choose(cls, device: str = "auto", threads: int | None = None) -> Machine:
        """Resolve ``auto`` and check that the device exists; ``threads`` None means all cores this process may use."""
        validate_device(device, threads)
        import torch

        there = ["cpu"]
        if torch.cuda.is_available():
            there.append("cuda")
        if torch.backends.mps.is_available():
            there.append("mps")
        if device == "auto":
            device = there[-1]
        if device not in there:
            raise EcosystemError(f"--device {device}: this machine has none; it has {', '.join(there)}.")
        return cls(device, threads or cores())

    def describe(self) -> str:
        """Return the device in words."""
        if self.device == "cuda":
            import torch

            return f"{torch.cuda.get_device_name(0)} (CUDA)"
        return f"{self.device} with {self.threads} compute thread{'s' if self.threads > 1 else ''}"


def validate_device(device: str = "auto", threads: int | None = None) -> None:
    """Raise EcosystemError for a device that no machine has, or a number of threads that is none."""
    if device not in DEVICES:
        raise EcosystemError(
            f"--device {device}: there is no such thing{nearest(str(device), DEVICES)}; give {', '.join(DEVICES)}."
        )
    if threads is not None and (not isinstance(threads, int) or threads < 1):
        raise EcosystemError(f"--threads {threads}: give a whole number from 1 on, or leave it out.")


def cores() -> int:
    """Return the cores this process may run on; all of the machine where the system does not say."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
