"""The ``[placement]`` table: where the members of a run's models are computed. It affects no number."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, Field, ValidationError, model_validator

from ecosystem.errors import EcosystemError, nearest
from ecosystem.families.base import Family
from ecosystem.formats import counted
from ecosystem.spec import Spec

ADDRESS = "the address of a Ray cluster (HOST:PORT or auto), or omit it"
_MOST_WORKERS = 100_000
_GPUS = "a number from 0 to 1, or a whole number above it"
EngineKind = Literal["local", "ray"]


def _whole_above_one(gpus: float) -> float:
    if gpus > 1 and not gpus.is_integer():
        raise ValueError(f"give {_GPUS}")
    return gpus


def _not_blank(address: str) -> str:
    if not address.strip():
        raise ValueError(f"give {ADDRESS}")
    return address


class PlacementSpec(Spec):
    """Where models are computed. It affects no result on a CPU; the command line (`--engine`, …) replaces it."""

    engine: EngineKind = Field("ray", description="local: in the process of the run; ray: in workers of a Ray cluster")
    address: Annotated[str, Field(json_schema_extra={"pattern": r"\S"}), AfterValidator(_not_blank)] | None = Field(
        None, description='address of the Ray cluster; "auto" finds a running one; absent: start one on this machine'
    )
    workers: Annotated[int, Field(gt=0, le=_MOST_WORKERS)] | None = Field(
        None, description="processes among which the members of every model are divided; absent: as many as have room"
    )
    gpus_per_worker: Annotated[float, Field(ge=0), AfterValidator(_whole_above_one)] = Field(
        0.0,
        description="GPUs of each worker: 0.25 puts four workers on one GPU, 2 divides the layers of a causal_lm over "
        "two; 0: workers compute on CPUs",
    )

    @model_validator(mode="after")
    def _used(self) -> Self:
        keys = {"address": self.address, "workers": self.workers, "gpus_per_worker": self.gpus_per_worker}
        given = [name for name, value in keys.items() if value]
        if self.engine == "local" and given:
            raise ValueError(
                f'{" and ".join(given)}: only the engine ray has workers; set engine = "ray" (--engine local still '
                f"computes in one process), or remove {'it' if len(given) == 1 else 'them'}"
            )
        return self

    def described(self) -> str:
        """Return where the models are computed, without connecting to a cluster."""
        if self.engine == "local":
            return "models are computed in the process of the run"
        count = counted(self.workers, "worker") if self.workers else "as many workers as have room"
        where = f"the Ray cluster at {self.address}" if self.address else "a Ray cluster started on this machine"
        gpus = f", {self.gpus()} each" if self.gpus_per_worker else ""
        return f"models are computed by {count} of {where}{gpus}"

    def gpus(self) -> str:
        """Return the GPUs of a worker in words."""
        return f"{self.gpus_per_worker:g} GPU{'s' if self.gpus_per_worker > 1 else ''}"

    def problem(self, models: Mapping[str, Family], table: PlacementSpec | None) -> str:
        """Return a sentence if a worker has several GPUs but one of the models needs one; else an empty string.

        ``table`` is that of the scenario: the sentence names its key if the number is from there, else the option.
        """
        whole = [f"models.{name} ({family.kind})" for name, family in models.items() if not family.divides_layers]
        if self.engine == "local" or self.gpus_per_worker <= 1 or not whole:
            return ""
        in_table = table is not None and table.gpus_per_worker == self.gpus_per_worker
        name = "placement.gpus_per_worker =" if in_table else "--gpus-per-worker"
        return (
            f"{name} {self.gpus_per_worker:g}: only a causal_lm is divided over GPUs, but each member of "
            f"{' and '.join(whole)} is computed on one; give at most 1, or only models of kind causal_lm."
        )


IGNORED_BY_STUDIES = (
    "[placement] of the scenario is ignored: a study places whole runs (--engine, --jobs), each in one process"
)
IGNORED_BY_PAGE = "[placement] of the scenario is ignored: the page computes its worlds in its own process"

_ALLOWED = {"address": ADDRESS, "workers": f"a whole number from 1 to {_MOST_WORKERS:,}", "gpus_per_worker": _GPUS}


def chosen_placement(table: PlacementSpec | None, options: dict[str, Any]) -> PlacementSpec | None:
    """Return the placement of a run: that of the scenario, with these options set; None: in this process.

    ``options`` are fields of PlacementSpec; None stands for an option that is not given. Raises EcosystemError for an
    invalid value, and for options of Ray without it.
    """
    given = {name: value for name, value in options.items() if value is not None}
    engine = given.get("engine", "local" if table is None else table.engine)
    kinds = get_args(EngineKind)
    if engine not in kinds:
        raise EcosystemError(
            f"--engine {engine}: unknown engine{nearest(str(engine), kinds)}; choose from {', '.join(kinds)}."
        )
    if engine == "local":
        if needless := [_option(name) for name in given if name != "engine"]:
            raise EcosystemError(
                f"{' and '.join(needless)}: only the engine ray has workers; add --engine ray, or omit "
                f"{'it' if len(needless) == 1 else 'them'}."
            )
        return None
    data = {} if table is None else table.plain()
    try:
        return PlacementSpec.model_validate({**data, **given, "engine": engine})
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        name = str(problem["loc"][0])
        value = f'"{given[name]}"' if name == "address" else given.get(name)
        raise EcosystemError(f"{_option(name)} {value}: give {_ALLOWED[name]}.") from None


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"
