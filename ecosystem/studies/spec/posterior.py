"""Posterior samples of a fit as a table, and the uncertain worlds that studies draw from it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import polars as pl
from pydantic import Discriminator, Field, Tag, ValidationError

from ecosystem.errors import ScenarioError
from ecosystem.runs.store import Store
from ecosystem.spec import Spec
from ecosystem.studies.spec.design import Seed
from ecosystem.studies.spec.settings import Setting, settings_at
from ecosystem.types import Floats

_METADATA = "ecosystem.parameters"  # key of the settings in the file
LOG_LIKELIHOOD = "log_likelihood"


def write_posterior(
    store: Store, parameters: Mapping[str, Setting], samples: Mapping[str, Floats], log_likelihood: Floats
) -> None:
    """Write samples as ``posterior.parquet``: a column for each parameter, whose settings are in the metadata."""
    table = pl.DataFrame({**samples, LOG_LIKELIHOOD: log_likelihood})
    own = ("path", "paths", "unit", "since", "whole")
    settings = {
        name: {key: value for key, value in setting.plain().items() if key in own}
        for name, setting in parameters.items()
    }
    buffer = BytesIO()
    table.write_parquet(buffer, metadata={_METADATA: json.dumps(settings)})
    store.write("posterior.parquet", buffer.getvalue())


class PosteriorWorlds(Spec):
    """Worlds drawn from the posterior of a fit; the parameters of a draw are the same in every arm."""

    posterior: str = Field(
        description="the posterior.parquet of `ecosystem fit`: a path relative to this file, or to the current folder"
    )
    draws: Annotated[int, Field(ge=3, le=1000)] = Field(16, description="number of samples that are drawn as worlds")
    seed: Seed = Field(1, description="seed of the choice of samples")


def _sort_of_worlds(value: Any) -> str | None:
    if isinstance(value, PosteriorWorlds):
        return "<posterior>"
    if not isinstance(value, dict):
        return None
    return "<named>" if isinstance(value.get("posterior", {}), dict) else "<posterior>"


Worlds = Annotated[
    Annotated[dict[str, dict[str, Any]], Tag("<named>")] | Annotated[PosteriorWorlds, Tag("<posterior>")],
    Discriminator(
        _sort_of_worlds,
        custom_error_type="worlds",
        custom_error_message='must be named tables of path = value, or posterior = "PATH" of a posterior.parquet',
    ),
]


@dataclass(frozen=True)
class PosteriorFile:
    """Posterior samples read from a file: name of a parameter → [samples], and its setting."""

    samples: Mapping[str, Floats]
    settings: Mapping[str, Setting]
    digest: str

    @classmethod
    def open(cls, file: Path) -> PosteriorFile:
        """Read a file written by a fit; raise ScenarioError for any other."""
        try:
            content = file.read_bytes()
            settings = json.loads(pl.read_parquet_metadata(BytesIO(content))[_METADATA])
            table = pl.read_parquet(BytesIO(content))
            parsed = {name: Setting.model_validate(setting) for name, setting in settings.items()}
            samples = {name: table[name].to_numpy() for name in parsed}
        except FileNotFoundError:
            raise ScenarioError(f"there is no file {file}; give the posterior.parquet of a fit.") from None
        except (OSError, KeyError, ValueError, ValidationError, pl.exceptions.PolarsError):
            raise ScenarioError(f"{file} is not the posterior.parquet of a fit.") from None
        return cls(samples, parsed, hashlib.sha256(content).hexdigest()[:12])

    @property
    def size(self) -> int:
        """Number of samples."""
        return next(iter(self.samples.values())).size

    def worlds(self, draws: int, seed: int) -> dict[str, dict[str, Any]]:
        """Return ``draws`` samples as worlds: name → dotted path → value, all parameters of a sample together.

        Raises ScenarioError if there are fewer samples.
        """
        if draws > self.size:
            raise ScenarioError(f"there are only {self.size} samples; give draws = {self.size}, or fewer.")
        chosen = np.sort(np.random.default_rng(seed).choice(self.size, draws, replace=False))
        return {
            f"draw {number}": settings_at(self.settings, {name: float(x[i]) for name, x in self.samples.items()})
            for number, i in enumerate(chosen)
        }
