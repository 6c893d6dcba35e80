"""Run a target on many inputs and count what happened, without stopping at the first failure."""

from __future__ import annotations

import contextlib
import io
import tempfile
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, seed, settings
from scipy import stats

from tests.fuzz.targets import TARGETS


@dataclass
class Tally:
    """How the inputs of one target were answered; ``failures`` maps the place of an error to its first input."""

    outcomes: Counter[str] = field(default_factory=Counter)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def tried(self) -> int:
        """Number of inputs."""
        return self.outcomes.total()

    def upper_bound(self) -> float:
        """Return the upper 95 % bound of the probability that an input fails."""
        return upper_bound(self.outcomes["failed"], self.tried)


def upper_bound(failed: int, tried: int) -> float:
    """Return the upper 95 % bound (Clopper-Pearson) of a probability, of which ``failed`` of ``tried`` were seen."""
    return float(stats.beta.ppf(0.95, failed + 1, tried - failed)) if tried > failed else 1.0


def run(target: str, inputs: int, number: int) -> Tally:
    """Try ``inputs`` inputs of a target, drawn with the seed ``number``."""
    tally, spec = Tally(), TARGETS[target]

    @seed(number)
    @settings(
        max_examples=inputs,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(spec.inputs)
    def attempt(drawn: Any) -> None:
        with tempfile.TemporaryDirectory() as name, _quiet(Path(name)):
            try:
                outcome: str = spec.use(drawn, Path(name))
            except Exception as error:
                outcome = "failed"
                tally.failures.setdefault(_place(error), f"{str(error)[:200]}\n  {repr(drawn)[:2000]}")
        tally.outcomes[outcome] += 1

    attempt()
    return tally


@contextlib.contextmanager
def _quiet(folder: Path) -> Any:
    """Discard output, and work in a folder."""
    quiet = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(quiet), contextlib.redirect_stderr(quiet):
        yield


def _place(error: Exception) -> str:
    """Return the type of an error and the innermost line of the package that it passed."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ecosystem/" in frame.filename]
    where = f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "outside of the package"
    return f"{type(error).__name__} at {where}"
