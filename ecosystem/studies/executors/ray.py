"""The engine for a Ray cluster: sends jobs as text and receives the folder or URL of each run."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.input_files import is_url
from ecosystem.interpreter import cores, thread_limits
from ecosystem.placement.cluster import Room, connect
from ecosystem.studies.executors.jobs import AttemptResult, Job, attempt_in_worker


class Ray:
    """Executes jobs on the machines of a Ray cluster; each reserves one CPU per thread, and ``gpus`` GPUs.

    A job that loses its machine or its worker is retried elsewhere. It resumes after its last committed step if all
    machines can access its run, in a shared folder or an object store.
    """

    def __init__(self, slots: int | None, threads: int, address: str | None, gpus: float) -> None:
        self._threads, self._gpus = threads, gpus
        self._ray, self._owns_cluster = connect(address, (slots or max(1, cores() // threads)) * threads)
        self._running: dict[Any, tuple[int, float]] = {}
        capacity = self._capacity()
        self.slots = slots or capacity
        # run_jobs retries failed jobs, so Ray must not.
        self._attempt = self._ray.remote(max_retries=0)(_attempt_remotely).options(
            num_cpus=threads, num_gpus=gpus, runtime_env={"env_vars": thread_limits(threads)}
        )

    def _capacity(self) -> int:
        """Return how many jobs fit into the cluster; raise EcosystemError if no machine is large enough for one."""
        room = Room.of(self._ray, self._threads, self._gpus)
        if not room.workers:
            needs = f"--threads {self._threads}" + (f" --gpus {self._gpus:g}" if self._gpus else "")
            self.close()
            raise EcosystemError(f"{needs}: no machine of this Ray cluster is large enough (it has {room.sizes}).")
        return room.workers

    def start(self, number: int, job: Job) -> None:
        """Submit a job to the cluster."""
        self._running[self._attempt.remote(number, job, str(Path.cwd()))] = number, time.monotonic()

    def wait(self, seconds: float) -> list[AttemptResult]:
        """Return the results received, and errors for jobs whose worker was lost."""
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        results = []
        for task in ready:
            number, began = self._running.pop(task)
            try:
                results.append(self._ray.get(task))
            except self._ray.exceptions.RayError as problem:
                error = f"its worker was lost: {str(problem).splitlines()[0]}"
                results.append(AttemptResult(number, error=error, seconds=time.monotonic() - began))
        return results

    def close(self) -> None:
        """Cancel all running jobs, and stop the cluster if this engine started it."""
        for task in self._running:
            self._ray.cancel(task, force=True)
        self._running.clear()
        if self._owns_cluster:
            self._ray.shutdown()


def _attempt_remotely(number: int, job: Job, home: str) -> AttemptResult:
    """Execute a job on a machine of the cluster, in the study's current folder if the machine has it."""
    if Path(home).is_dir():
        os.chdir(home)
    elif not is_url(job.out):
        error = f"--out {job.out}: a machine of the cluster has no folder {home}; give a shared folder or a URL."
        return AttemptResult(number, error=error, final=True)
    return attempt_in_worker(number, job)
