"""The workers of a run: calls to them, and their replacement when a process or a machine is lost.

A worker holds weights that exist nowhere else until they are committed. Every part of a cohort therefore remembers
where its last committed weights are (``base``) and the calls that have changed them since (``journal``). A worker that
is lost is built again from the base, the journal is repeated, and then the call that it was lost in. On a CPU a call
gives the same numbers every time, so nothing else shows.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Self

from numpy.typing import NDArray

from ecosystem.errors import EcosystemError
from ecosystem.families.base import Progress, silent
from ecosystem.formats import counted
from ecosystem.interpreter import cores, thread_limits
from ecosystem.placement.cluster import Room, connect
from ecosystem.placement.parts import sendable
from ecosystem.placement.spec import PlacementSpec
from ecosystem.placement.worker import Process, Worker, versions
from ecosystem.plugins import loaded

_ATTEMPTS = 3  # at a call, before the run is given up
_START_SECONDS = 120.0  # to start a worker; libraries may come from a slow disk
_RESTART_SECONDS = 20.0  # to start another one in its place, before it shares a machine that is full
_POLL_SECONDS = 0.5
Base = Mapping[str, NDArray[Any]] | None
"""State that a part begins from: in files, in this process, or (None) that of a cohort just built."""


@dataclass(frozen=True)
class Call:
    """A call of a method of a worker, on its part of a cohort."""

    part: Part
    method: str
    arguments: Sequence[Any]
    _: KW_ONLY
    shared: Any = None  # what several workers read, or a reference to it
    own: Any = None
    changes: bool = False  # whether it changes the state of the part


@dataclass(eq=False)
class Part:
    """The members of a cohort that one worker holds."""

    model: str
    worker: int
    first: int
    members: int
    building: list[Call] = field(default_factory=list)  # the call of Worker.build
    base: Base = None
    journal: list[Call] = field(default_factory=list)
    kept: dict[int, tuple[Base, list[Call]]] = field(default_factory=dict)  # states in the worker: base, calls since

    def restore_calls(self) -> list[Call]:
        """Return the calls that bring a newly built part to its present state, with the states that it keeps."""
        calls = [] if self.base is None else [Call(self, "load_arrays", (sendable(self.base),))]
        self.kept = {token: past for token, past in self.kept.items() if self._passes(*past)}
        for done in range(len(self.journal) + 1):
            tokens = [token for token, (_, journal) in self.kept.items() if len(journal) == done]
            calls += [Call(self, "keep", (token,)) for token in tokens]
            calls += self.journal[done : done + 1]
        return calls

    def _passes(self, base: Base, journal: Sequence[Call]) -> bool:
        """Return whether a state is on the way from the base to the present one."""
        same = len(journal) <= len(self.journal) and all(a is b for a, b in zip(journal, self.journal, strict=False))
        return base is self.base and same


class Workers:
    """The workers of one run; use it as a context manager."""

    def __init__(
        self, spec: PlacementSpec, threads: int, members: int, say: Callable[[str], None], device: str = "cpu"
    ) -> None:
        """Connect to the cluster and count its room.

        ``threads`` are the compute threads of each worker, ``members`` those of all models, ``say`` prints a sentence,
        and ``device`` is that of the workers. Raises EcosystemError if there is no cluster, no room for the workers, or
        no GPU where they need one.
        """
        self.spec, self._threads, self._members, self._say = spec, threads, members, say
        cpus = (spec.workers or max(1, cores() // threads)) * threads
        self.ray, self._owns_cluster = connect(spec.address, cpus)
        try:
            self.room = Room.of(self.ray, threads, spec.gpus_per_worker)
            self._require_room(device)
        except EcosystemError:
            self.close()
            raise
        self.count = min(spec.workers or self.room.workers, max(1, members))
        self._actors: list[Any] = []
        self.processes: list[Process] = []
        self._parts: list[list[Part]] = [[] for _ in range(self.count)]
        self._lost = (
            self.ray.exceptions.RayActorError,
            self.ray.exceptions.ObjectLostError,
            self.ray.exceptions.WorkerCrashedError,
        )

    def _require_room(self, device: str) -> None:
        spec, room = self.spec, self.room
        started_here = self._owns_cluster and spec.address is None
        if started_here and device == "cuda" and not (room.gpus or spec.gpus_per_worker):
            raise EcosystemError(
                "--device cuda: the Ray cluster started on this machine has no GPU; give --device cpu, or the "
                "--address of a cluster with GPUs."
            )
        if room.workers >= (spec.workers or 1):
            return
        needs = f"--threads {self._threads}"
        needs += f" --gpus-per-worker {spec.gpus_per_worker:g}" if spec.gpus_per_worker else ""
        if not room.workers:
            raise EcosystemError(f"{needs}: no machine of this Ray cluster is large enough (it has {room.sizes}).")
        raise EcosystemError(
            f"--workers {spec.workers} {needs}: this Ray cluster has room for {counted(room.workers, 'worker')} of "
            f"that size ({room.sizes}); give fewer workers, or smaller ones."
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def describe(self) -> str:
        """Return the workers in words, for the plan of a run."""
        gpus = f", {self.spec.gpus()}" if self.spec.gpus_per_worker else ""
        return (
            f"{counted(self.count, 'Ray worker')} on {counted(self.room.machines, 'machine')}, "
            f"{counted(self._threads, 'thread')}{gpus} each, for {counted(self._members, 'model')}"
        )

    def close(self) -> None:
        """Stop the workers, and the cluster if it was started here."""
        for actor in getattr(self, "_actors", []):
            self.ray.kill(actor)
        self._actors = []
        if self._owns_cluster:
            self.ray.shutdown()

    # Starting.

    def start(self) -> None:
        """Start the workers, unless they are running."""
        if self._actors:
            return
        self._actors = [self._new_actor(self._threads) for _ in range(self.count)]
        try:
            self.processes = [self._process(actor, _START_SECONDS) for actor in self._actors]
        except self.ray.exceptions.GetTimeoutError:
            raise EcosystemError(
                f"the Ray cluster did not start {counted(self.count, 'worker')} within {_START_SECONDS:g} s; others "
                "may be using it. Give fewer --workers, or wait."
            ) from None

    def _new_actor(self, cpus: int) -> Any:
        environment = {"env_vars": thread_limits(self._threads)}
        options = {"num_cpus": cpus, "num_gpus": self.spec.gpus_per_worker, "runtime_env": environment}
        remote = self.ray.remote(max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD")(Worker)
        return remote.options(**options).remote(str(Path.cwd()), loaded())

    def _process(self, actor: Any, seconds: float) -> Process:
        """Wait until a worker has started; raise EcosystemError if its packages are not those of this process."""
        process: Process = self.ray.get(actor.process.remote(), timeout=seconds)
        if process.versions != (own := versions()):
            listed = ", ".join(
                f"{package} {process.versions.get(package, 'missing')} instead of {own.get(package, 'none')}"
                for package in sorted(own.keys() | process.versions.keys())
                if process.versions.get(package) != own.get(package)
            )
            raise EcosystemError(
                f"{process.machine}, a machine of the Ray cluster, has {listed}; numbers depend on these packages. "
                "Install the same versions on all machines."
            )
        return process

    def put(self, value: Any) -> Any:
        """Put a value into the object store, which keeps it once per machine; return a reference."""
        return self.ray.put(value)

    def build(self, parts: Sequence[Part], progress: Progress) -> list[Any]:
        """Register parts, at most one per worker, and return their results of Worker.build."""
        for part in parts:
            self._parts[part.worker].append(part)
        return self.run([call for part in parts for call in part.building], "build", progress)

    # Calls.

    def run(self, calls: Sequence[Call], what: str = "", progress: Progress = silent) -> list[Any]:
        """Run calls at the same time, at most one per worker; return their results in order.

        Raises the first error of a call, and EcosystemError if a worker is lost again and again.
        """
        results: list[Any] = [None] * len(calls)
        running = {self._submit(call): number for number, call in enumerate(calls)}
        attempts: Counter[int] = Counter()
        while running:
            progress(what, len(calls) - len(running), len(calls))
            ready, _ = self.ray.wait(list(running), num_returns=len(running), timeout=_POLL_SECONDS)
            for task in ready:
                number = running.pop(task)
                call = calls[number]
                try:
                    results[number] = self._result(task)
                except self._lost as problem:
                    attempts[number] += 1
                    self._replace(call.part.worker, call.method, attempts[number], problem)
                    running[self._submit(call)] = number
                    continue
                if call.changes:
                    call.part.journal.append(call)
        return results

    def _submit(self, call: Call) -> Any:
        actor = self._actors[call.part.worker]
        return actor.call.remote(call.method, call.part.model, call.arguments, call.shared, call.own)

    def reference(self, call: Call) -> Any:
        """Run a call; return a reference to its result, which stays where it is."""
        return self._submit(call)

    def tell(self, call: Call) -> None:
        """Run a call without waiting for it."""
        if self._actors:
            self._submit(call)

    def _result(self, task: Any) -> Any:
        value, refusal = self.ray.get(task)
        if refusal is not None:
            raise refusal.error()
        return value

    # Losses.

    def _replace(self, worker: int, method: str, attempt: int, problem: Exception) -> None:
        """Start another worker in place of a lost one and bring its parts to their present state."""
        members = sum(part.members for part in self._parts[worker])
        cause = str(problem).strip().splitlines()[0]
        process = self.processes[worker]
        lost = f"worker {worker} ({counted(members, 'model')}; process {process.number} on {process.machine}) was lost"
        while True:
            if attempt >= _ATTEMPTS:
                raise EcosystemError(
                    f"{lost} {attempt} times during {method} ({cause}). If its machine ran out of memory, use smaller "
                    "workers or more machines. Committed steps are kept; run the same command again to continue."
                )
            self._say(f"  note: {lost} during {method}; its models are restored and the work is repeated")
            try:
                self._start_again(worker)
                return
            except self._lost as again:
                attempt, cause = attempt + 1, str(again).strip().splitlines()[0]

    def _start_again(self, worker: int) -> None:
        self.ray.kill(self._actors[worker])
        self._actors[worker] = actor = self._new_actor(self._threads)
        try:
            self.processes[worker] = self._process(actor, _RESTART_SECONDS)
        except self.ray.exceptions.GetTimeoutError:
            # The other machines are full. On a CPU, one of them computes more slowly; a GPU would run out of memory.
            self.ray.kill(actor)
            if self.spec.gpus_per_worker:
                raise EcosystemError(
                    f"no machine of the Ray cluster has room for worker {worker}, which was lost. Add a machine, or "
                    "run the same command again with fewer --workers; committed steps are kept."
                ) from None
            self._actors[worker] = actor = self._new_actor(0)
            self.processes[worker] = self._process(actor, _START_SECONDS)
        for part in self._parts[worker]:
            for call in [*part.building, *part.restore_calls()]:
                self._result(self._submit(call))


def forget_later(workers: Workers, part: Part, token: int, owner: object) -> None:
    """Drop the state that a part keeps under a token once ``owner`` is gone."""

    def forget() -> None:
        if part.kept.pop(token, None) is not None:
            workers.tell(Call(part, "forget", (token,)))

    weakref.finalize(owner, forget).atexit = False
