"""Whether members are faster in one stack or one after the other: measured once for each size, and remembered.

The two ways add up in another order, so numbers on a GPU depend on the choice. It is kept in the cache folder: a run
that is resumed on the same device with the same cache makes the same choice.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ecosystem.cache import keep
from ecosystem.families.language.gpt2.shape import Shape

_ROUNDS = 3  # of both ways in turn, after one that warms up


@dataclass(frozen=True)
class Size:
    """Work of members side by side: ``rows`` of ``length`` tokens of each are trained on or written at once."""

    what: str
    members: int
    rows: int
    length: int


class Choices:
    """Measured choices on one device for models of one shape."""

    def __init__(self, folder: Path, device: torch.device, shape: Shape, note: Callable[[str], None]) -> None:
        """``note`` is called with a sentence for each choice that is used for the first time."""
        self._folder, self._device, self._shape, self._note = folder / "choices", device, shape, note
        self._known: dict[Size, bool] = {}

    def stacks(self, size: Size, stacked: Callable[[], object], separate: Callable[[], object]) -> bool:
        """Return whether ``stacked`` is faster than ``separate``, which do the same work of this size."""
        if size not in self._known:
            file = self._file(size)
            seconds = _read(file) or self._measure(stacked, separate)
            keep(file, json.dumps(seconds))
            self._known[size] = seconds["stacked"] <= seconds["separate"]
            self._note(_sentence(size, seconds, self._known[size]))
        return self._known[size]

    def _file(self, size: Size) -> Path:
        cuda = self._device.type == "cuda"
        name = torch.cuda.get_device_name(self._device) if cuda else self._device.type
        key = [name, torch.__version__, asdict(self._shape), asdict(size)]
        return self._folder / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:32]}.json"

    def _measure(self, stacked: Callable[[], object], separate: Callable[[], object]) -> dict[str, float]:
        seconds = {"stacked": float("inf"), "separate": float("inf")}
        for one_round in range(_ROUNDS + 1):
            for key, work in (("stacked", stacked), ("separate", separate)):
                elapsed = self._seconds(work)
                if one_round:
                    seconds[key] = min(seconds[key], elapsed)
        return seconds

    def _seconds(self, work: Callable[[], object]) -> float:
        """Time some work; work that needs more memory than there is takes forever."""
        self._wait()
        started = time.perf_counter()
        try:
            work()
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return float("inf")
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize()


def _sentence(size: Size, seconds: dict[str, float], stacked: bool) -> str:
    way = "in one stack" if stacked else "one after the other"
    return (
        f"{size.members} members are computed {way} when they {size.what} {size.rows} rows of {size.length} tokens: "
        f"{seconds['stacked']:.3g} s stacked, {seconds['separate']:.3g} s one after the other"
    )


def _read(file: Path) -> dict[str, float] | None:
    try:
        stored: Any = json.loads(file.read_text())
        return {key: float(stored[key]) for key in ("stacked", "separate")}
    except (OSError, ValueError, TypeError, KeyError):
        return None  # a lost or damaged file of a cache is made again
