"""A Ray cluster as an engine: strings go out, and the path or address of a run folder comes back."""

from __future__ import annotations

import time
from typing import Any

from ecosystem.cores import cores
from ecosystem.errors import EcosystemError
from ecosystem.studies.jobs import Ended, Job, attempt


class Ray:
    """Runs on the machines of a Ray cluster, each with its threads as CPUs and, where asked for, a share of a GPU.

    A run that loses its machine or its worker is begun again elsewhere, and goes on after its last committed step if
    the place where runs go is one that all machines see: a shared folder, or an object store.
    """

    def __init__(self, slots: int | None, address: str | None, gpus: float) -> None:
        try:
            import ray
        except ImportError:
            raise EcosystemError('--engine ray needs the package ray: pip install "ecosystem[ray]".') from None
        self._ray, self._gpus = ray, gpus
        if not ray.is_initialized():
            local = {"num_cpus": slots or cores(), "include_dashboard": False} if address is None else {}
            try:
                ray.init(address=address, log_to_driver=False, **local)
            except (ConnectionError, ValueError, RuntimeError) as problem:
                raise EcosystemError(f"--address {address}: no Ray cluster answers there ({problem}).") from None
        self.slots = slots or max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._under_way: dict[Any, tuple[int, float]] = {}
        # Each failure is counted by the study, which tries again itself.
        self._attempt = ray.remote(max_retries=0)(attempt)

    def start(self, number: int, job: Job) -> None:
        """Hand a job to the cluster, which finds a machine with room for it."""
        task = self._attempt.options(num_cpus=job.threads, num_gpus=self._gpus).remote(number, job)
        self._under_way[task] = number, time.monotonic()

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
        self._ray.shutdown()
