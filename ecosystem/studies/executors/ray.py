"""A Ray cluster as an engine: strings go out, and the path or address of a run comes back."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.runs.environment import cores
from ecosystem.studies.executors.jobs import Ended, Job, attempt_in_worker, caps
from ecosystem.studies.object_store import is_url

_PATIENCE_SECONDS = 10.0  # for a cluster to answer


class Ray:
    """Runs on the machines of a Ray cluster, each with its threads as CPUs and, where asked for, a share of a GPU.

    A run that loses its machine or its worker is begun again elsewhere, and goes on after its last committed step if
    the place where runs go is one that all machines see: a shared folder, or an object store.
    """

    def __init__(self, slots: int | None, threads: int, address: str | None, gpus: float) -> None:
        try:
            import ray
        except ImportError:
            raise EcosystemError('--engine ray needs the package ray: pip install "ecosystem[ray]".') from None
        self._ray, self._threads, self._gpus = ray, threads, gpus
        self._mine = not ray.is_initialized()
        if self._mine:
            at_once = slots or max(1, cores() // threads)
            local = {"num_cpus": at_once * threads, "include_dashboard": False} if address is None else {}
            _answers(address)
            os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a run asks for its own device
            try:
                ray.init(address=address, log_to_driver=False, logging_level="ERROR", **local)
            except (OSError, ValueError, RuntimeError) as problem:
                where = f"--address {address}: no Ray cluster answers there" if address else "Ray cannot be started"
                raise EcosystemError(f"{where} ({str(problem).splitlines()[0]}).") from None
        self._under_way: dict[Any, tuple[int, float]] = {}
        room = self._room()
        self.slots = slots or room
        # Each failure is counted by the study, which tries again itself.
        self._attempt = ray.remote(max_retries=0)(_attempt_there).options(
            num_cpus=threads, num_gpus=gpus, runtime_env={"env_vars": caps(threads)}
        )

    def _room(self) -> int:
        """Return how many runs the cluster has room for at a time; raise EcosystemError where one alone has none."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        fits = [
            min(
                int(has.get("CPU", 0) // self._threads),
                int(has.get("GPU", 0) / self._gpus) if self._gpus else 10**6,
            )
            for has in machines
        ]
        if not any(fits):
            asked = f"--threads {self._threads}" + (f" --gpus {self._gpus:g}" if self._gpus else "")
            has = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in machines)
            self.close()
            raise EcosystemError(f"{asked}: no machine of this Ray cluster has room for such a run (they have {has}).")
        return sum(fits)

    def start(self, number: int, job: Job) -> None:
        """Hand a job to the cluster, which finds a machine with room for it."""
        self._under_way[self._attempt.remote(number, job, str(Path.cwd()))] = number, time.monotonic()

    def wait(self, seconds: float) -> list[Ended]:
        """Return what has ended, and what was lost with its worker."""
        done, _ = self._ray.wait(list(self._under_way), num_returns=1, timeout=seconds)
        ends = []
        for task in done:
            number, began = self._under_way.pop(task)
            try:
                ends.append(self._ray.get(task))
            except self._ray.exceptions.RayError as problem:
                why = f"its worker was lost: {str(problem).splitlines()[0]}"
                ends.append(Ended(number, error=why, seconds=time.monotonic() - began))
        return ends

    def close(self) -> None:
        """Stop what is under way, and the cluster if it was started here."""
        for task in self._under_way:
            self._ray.cancel(task, force=True)
        self._under_way.clear()
        if self._mine:
            self._ray.shutdown()


def _answers(address: str | None) -> None:
    """Raise EcosystemError if nothing listens at HOST:PORT, which Ray itself would go on trying for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_PATIENCE_SECONDS).close()
    except OSError as problem:
        raise EcosystemError(f"--address {address}: nothing answers there ({problem}).") from None


def _attempt_there(number: int, job: Job, home: str) -> Ended:
    """Do a job on a machine of the cluster, from the folder that the study is conducted from if it is there."""
    if Path(home).is_dir():
        os.chdir(home)
    elif not is_url(job.out):
        why = f"--out {job.out}: a machine of the cluster does not see {home}"
        return Ended(number, error=f"{why}; give a folder that all share, or the URL of an object store.", final=True)
    return attempt_in_worker(number, job)
