"""Connections to a Ray cluster, for runs whose models it computes and for studies whose runs it computes."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

from ecosystem.errors import EcosystemError

_CONNECT_SECONDS = 10.0


def connect(address: str | None, cpus: int) -> tuple[Any, bool]:
    """Connect to a cluster; return the package ray, and whether a cluster was started.

    Without an address, a cluster of this machine is started with so many CPUs, and its GPUs. In a process that is
    connected, nothing changes. Raises EcosystemError if the package is missing or no cluster responds.
    """
    try:
        import ray
    except ImportError:
        raise EcosystemError('--engine ray needs the package ray: pip install "ecosystem[ray]".') from None
    if ray.is_initialized():
        return ray, False
    local = {"num_cpus": cpus, "include_dashboard": False} if address is None else {}
    _require_server(address)
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # a job selects its own device
    try:
        ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **local)
    except (OSError, ValueError, RuntimeError) as problem:
        where = f"--address {address}: no Ray cluster responds" if address else "Ray cannot be started"
        token = (
            " If it asks for a token, set RAY_AUTH_MODE=token and copy its ~/.ray/auth_token here." if address else ""
        )
        raise EcosystemError(f"{where} ({str(problem).splitlines()[0]}).{token}") from None
    return ray, True


def _require_server(address: str | None) -> None:
    """Raise EcosystemError if no server listens at HOST:PORT; Ray itself would retry for many minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except OSError as problem:
        raise EcosystemError(f"--address {address}: no response ({problem}).") from None


@dataclass(frozen=True)
class Room:
    """How many workers of one size a cluster has room for, its machines in words, and their GPUs."""

    workers: int
    machines: int
    sizes: str
    gpus: float

    @classmethod
    def of(cls, ray: Any, cpus: int, gpus: float) -> Room:
        """Count the workers with so many CPUs and GPUs that fit into the machines of a cluster, if they are empty."""
        alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        fits = [
            min(
                int(resources.get("CPU", 0) // cpus),
                int(resources.get("GPU", 0) / gpus + 1e-9) if gpus else 10**6,
            )
            for resources in alive
        ]
        sizes = "; ".join(f"{m.get('CPU', 0):g} CPUs, {m.get('GPU', 0):g} GPUs" for m in alive)
        return cls(sum(fits), len(alive), sizes, sum(m.get("GPU", 0) for m in alive))
