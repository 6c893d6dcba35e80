"""A worker: a process of a Ray cluster with a part of every cohort, whose members it fits, samples and scores."""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from numpy.typing import NDArray

from ecosystem.errors import EcosystemError
from ecosystem.families import foundation
from ecosystem.families.base import (
    BuildContext,
    Cohort,
    Describes,
    Family,
    MemberError,
    SavesAssets,
    SupportsPrompts,
    TextCohort,
)
from ecosystem.families.tensor_files import Shaped, shapes_of
from ecosystem.placement.parts import DividedArrays, Target, Written, renumbered
from ecosystem.placement.texts import Shared, Table, joined, unpack
from ecosystem.plugins import Plugin, load_all
from ecosystem.streams import Streams
from ecosystem.version import __version__

if TYPE_CHECKING:
    from ecosystem.families.requests import (
        FitRecord,
        FitRequest,
        GenerateRequest,
        PromptedFitRequest,
        Score,
        ScoreRequest,
        WriteRecord,
    )

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Process:
    """The process of a worker: its machine, its number, and the versions that its numbers depend on."""

    machine: str
    number: int
    versions: dict[str, str]


def versions() -> dict[str, str]:
    """Return the versions of the packages that numbers depend on."""
    found = {"ecosystem": __version__}
    for package in ("numpy", "polars", "tokenizers", "torch"):
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


@dataclass(frozen=True)
class Blueprint:
    """What a worker needs to build its part of a cohort."""

    family: Family
    name: str
    members: int  # of this part
    first: int  # number, in the whole cohort, of its first member
    streams: Streams
    device: str
    threads: int
    cache: Path
    part_tokens: int | None = None
    gpus: int = 1  # over which the layers of a member are divided


@dataclass(frozen=True)
class Built:
    """What the process of the run needs to know of a cohort that it does not have."""

    fingerprint: str
    context: int | None  # of a cohort of language models
    describes: bool
    folders: list[str]  # of the cache that it was built from


@dataclass(frozen=True)
class Refusal:
    """An EcosystemError as plain values: exceptions with several arguments do not survive being sent."""

    kind: type[EcosystemError]
    sentence: str
    member: int | None

    @classmethod
    def of(cls, error: EcosystemError, first: int) -> Refusal:
        """Describe an error of a part whose first member is ``first``; members are renumbered."""
        sentence, member = str(error), None
        if isinstance(error, MemberError):
            member = error.member + first
            sentence = re.sub(rf"\bmember {error.member}\b", f"member {member}", sentence)
        return cls(type(error), sentence, member)

    def error(self) -> EcosystemError:
        """Return the error."""
        return self.kind(self.sentence) if self.member is None else MemberError(self.member, self.sentence)


class Worker:
    """Holds parts of cohorts by model name; :meth:`call` runs one of its methods on one of them."""

    def __init__(self, home: str, plugins: Sequence[Plugin] = ()) -> None:
        """``home`` is the current folder of the run, for relative paths of checkpoints; ``plugins`` are its files."""
        load_all(plugins)
        if Path(home).is_dir():
            os.chdir(home)
        self._cohorts: dict[str, Cohort] = {}
        self._first: dict[str, int] = {}
        self._kept: dict[tuple[str, int], Arrays] = {}  # states by model and token

    def process(self) -> Process:
        """Describe the process of this worker; also a sign that it has started."""
        return Process(socket.gethostname(), os.getpid(), versions())

    def call(
        self, method: str, model: str, arguments: Sequence[Any], shared: Shared | None, own: Table | None
    ) -> tuple[Any, Refusal | None]:
        """Run a method on the part of a cohort; return its result, or the error of a user.

        ``shared`` and ``own`` are the texts and arrays that packed arguments refer to.
        """
        table, arrays = shared or (None, [])
        texts = joined(table, own)
        try:
            function: Callable[..., Any] = getattr(self, method)
            return function(model, *(unpack(argument, texts, arrays) for argument in arguments)), None
        except EcosystemError as error:
            return None, Refusal.of(error, self._first.get(model, 0))

    # Building.

    def build(self, model: str, plan: Blueprint, human: pl.Series, folders: Sequence[Any]) -> Built:
        """Build a part from the ``human`` documents; ``folders`` may hold a reference to folders of the cache."""
        import torch

        if plan.device == "cuda" and not torch.cuda.is_available():
            install = ", or install a CUDA build of PyTorch there" if shutil.which("nvidia-smi") else ""
            raise EcosystemError(
                f"--device cuda: {socket.gethostname()}, a machine of the cluster, has no GPU that PyTorch can use; "
                f"give --device cpu{install}."
            )
        divided = plan.device == "cuda" and plan.gpus > 1
        if divided and torch.cuda.device_count() < plan.gpus:
            raise EcosystemError(
                f"--gpus-per-worker {plan.gpus}: PyTorch sees only {torch.cuda.device_count()} GPUs in a worker on "
                f"{socket.gethostname()}."
            )
        devices = tuple(f"cuda:{number}" for number in range(plan.gpus)) if divided else ()
        torch.set_num_threads(plan.threads)
        self._take_folders(plan.cache, folders)
        context = BuildContext(
            *(human, plan.streams, plan.device, plan.threads, plan.cache), part_tokens=plan.part_tokens, devices=devices
        )
        with foundation.folders_used() as used:
            cohort = plan.family.cohort(plan.name, plan.members, context)
        self._cohorts[model], self._first[model] = cohort, plan.first
        length = cohort.context if isinstance(cohort, TextCohort) else None
        return Built(cohort.fingerprint, length, isinstance(cohort, Describes), used)

    def _take_folders(self, cache: Path, references: Sequence[Any]) -> None:
        """Write the cache folders of another machine, unless they are here already."""
        if not references:
            return
        import ray

        try:
            folders: dict[str, dict[str, Table]] = ray.get(references[0])[0]
        except ray.exceptions.RayError:
            return  # the machine that had them is gone: they are computed again, with the same result
        for name, files in folders.items():

            def write(folder: Path, files: Mapping[str, Table] = files) -> None:
                for file, content in files.items():
                    (folder / file).write_bytes(content.data)

            foundation.obtain(cache, name, lambda write=write: write)  # type: ignore[misc]

    def folders(self, model: str, cache: Path, names: Sequence[str]) -> dict[str, dict[str, Table]]:
        """Return the files of folders of the cache, by folder and name."""
        return {name: foundation.contents(cache / name) for name in names}

    # Requests.

    def fit(self, model: str, requests: Sequence[FitRequest]) -> list[FitRecord]:
        """Train members."""
        return self._cohorts[model].fit(requests)

    def fit_prompted(self, model: str, requests: Sequence[PromptedFitRequest]) -> list[FitRecord]:
        """Train members on answers."""
        return cast(SupportsPrompts, self._cohorts[model]).fit_prompted(requests)

    def generate(
        self, model: str, requests: Sequence[GenerateRequest]
    ) -> tuple[list[pl.Series], Sequence[WriteRecord | None]]:
        """Write documents; return them, and the work of writing texts."""
        cohort = self._cohorts[model]
        docs = cohort.generate(requests)
        return docs, cohort.written if isinstance(cohort, TextCohort) else [None] * len(docs)

    def score(self, model: str, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents."""
        return self._cohorts[model].score(requests)

    def map_members(
        self, model: str, function: Callable[..., Any], members: Sequence[int], shared: tuple[Any, ...], own: list[Any]
    ) -> list[Any]:
        """Call a function with this cohort, a member, the arguments of all members and its own."""
        cohort = self._cohorts[model]
        return [function(cohort, member, *shared, *one) for member, one in zip(members, own, strict=True)]

    def ask(self, model: str, method: str, *arguments: Any) -> Any:
        """Return the result of any method of the cohort."""
        return getattr(self._cohorts[model], method)(*arguments)

    def assets(self, model: str) -> dict[str, bytes]:
        """Return the files that the cohort's checkpoints need besides weights."""
        import tempfile

        cohort = self._cohorts[model]
        if not isinstance(cohort, SavesAssets):
            return {}
        with tempfile.TemporaryDirectory() as folder:
            cohort.save_assets(Path(folder))
            return {path.name: path.read_bytes() for path in Path(folder).iterdir()}

    # Weights.

    def keep(self, model: str, token: int) -> dict[str, Shaped]:
        """Keep the present state under a token; return the types and shapes of its arrays."""
        state = self._cohorts[model].state()
        self._kept[model, token] = state
        return shapes_of(state)

    def forget(self, model: str, token: int) -> None:
        """Drop a state."""
        self._kept.pop((model, token), None)

    def arrays(self, model: str, token: int, name: str) -> NDArray[Any] | None:
        """Return one array of a state that was kept; None if this part has none of this name."""
        return self._kept[model, token].get(name)

    def load_kept(self, model: str, token: int) -> None:
        """Restore a state that was kept."""
        self._cohorts[model].load(self._kept[model, token])

    def load_arrays(self, model: str, arrays: Arrays) -> None:
        """Restore a state."""
        self._cohorts[model].load(arrays)

    def load_files(self, model: str, arrays: DividedArrays, marker: Path) -> bool:
        """Restore a state from files, if ``marker`` shows that this machine sees the folder of the run."""
        if not marker.exists():
            return False
        self._cohorts[model].load(arrays)
        return True

    def write(self, model: str, token: int, target: Target, number: int) -> Written | dict[str, NDArray[Any]]:
        """Write a state that was kept to a file, or return its arrays if this machine does not see the folder."""
        first = self._first[model]
        arrays = {f"{model}/{renumbered(name, first)}": array for name, array in self._kept[model, token].items()}
        return target.write(number, arrays) if target.seen else arrays
