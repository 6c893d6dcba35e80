"""The cohort of variational autoencoders: training, sampling and scoring of members with the same shape.

The leading axis of every tensor is the member. Small members are trained in stacks, since calling a function takes
longer than its arithmetic; large ones are trained separately, one per thread. A matrix product whose numbers of rows or
columns do not fill whole vectors of the processor rounds differently, and depends on the memory alignment too.
Therefore rows are padded, members whose layers do not fill whole vectors are not stacked, and documents are written and
scored in blocks of fixed size. So the numbers of a member depend neither on other members nor on the number of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import BuildContext, Progress, silent
from ecosystem.families.members import MemberWeights
from ecosystem.families.requests import (
    Decoding,
    FitRecord,
    FitRequest,
    GenerateRequest,
    Member,
    Score,
    ScoreRequest,
)
from ecosystem.families.statistical.gaussian import GaussianCohort
from ecosystem.families.training import Fit, Gradients, Rows, accumulated
from ecosystem.families.training_spec import Training
from ecosystem.families.vae.batches import Floats32, VaeBatches, range_problem
from ecosystem.families.vae.networks import Network, Weights
from ecosystem.families.worker_pool import WorkerPool
from ecosystem.sources.base import Truth
from ecosystem.sources.vectors import as_documents

_BLOCK = 128  # documents
_DRAWS = 8  # latent draws per scored document
_DESCRIBED = 500  # documents by which a member is described


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of N(mean, variance) from the standard normal, in nats, [M, n]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def loss(network: Network, weights: Weights, x: Tensor, noise: Tensor, beta: float) -> Tensor:
    """Return the loss of each document, [M, n], with one latent draw from ``noise`` [M, n, latent].

    With ``beta`` = 1 it is the negative evidence lower bound (Kingma & Welling 2014, equation 10).
    """
    mean, log_variance = network.encode(weights, x)
    z = mean + (0.5 * log_variance).exp() * noise
    reconstruction = F.binary_cross_entropy_with_logits(network.logits(weights, z), x, reduction="none").sum(-1)
    return reconstruction + beta * divergence(mean, log_variance)


class VaeCohort:
    """M variational autoencoders of one shape."""

    def __init__(
        self,
        name: str,
        members: int,
        network: Network,
        initial: Weights,
        build: BuildContext,
        *,
        training: Training,
        beta: float,
        fingerprint: str = "",
    ) -> None:
        """``initial`` holds the weights (of one member) that all start from; ``beta`` is the weight of the divergence.

        ``fingerprint`` identifies the foundation that members start from; "" if there is none.
        """
        self.name = name
        self.members = members
        self.network = network
        self.fingerprint = fingerprint
        self.training, self.beta = training, beta
        self.device = torch.device(build.device)
        # The order of the parameters, not that of the file that they were read from.
        initial = {key: initial[key] for key in network.parameters()}
        self.weights = MemberWeights(name, members, initial, network.draw, build)
        self._streams = build.streams
        self._workers = (build.threads, 1) if build.device == "cpu" else (1, build.threads)

    # Training.

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents.

        Raises MemberError if there is nothing to train on, a value is outside [0, 1] or a loss is not finite. No
        weights are changed in that case.
        """
        batches = [VaeBatches(request, self.training.batch, self.network.latent) for request in requests]
        peaks = [self.training.learning_rate if r.learning_rate is None else r.learning_rate for r in requests]
        with WorkerPool(*self._workers) as pool, self.weights.changing():
            fits = [self._stacked_fit(requests, batches, peaks, stack, pool) for stack in self._stacks(batches, peaks)]
            total = sum(b.total for b in batches)
            results = pool.run([fit.run for fit in fits], "fit", total, progress)
            records: dict[int, FitRecord] = {}
            for fit, result in zip(fits, results, strict=True):
                records |= dict(zip(fit.members, result, strict=True))
                self.weights.update(fit)
        return [records[request.member] for request in requests]

    def _stacks(self, batches: Sequence[VaeBatches], peaks: Sequence[float]) -> list[list[int]]:
        """Group the indices of requests to train in one stack, with the same length and learning rate."""
        groups: dict[tuple[int, float], list[int]] = {}
        for i, (b, peak) in enumerate(zip(batches, peaks, strict=True)):
            groups.setdefault((b.total, peak), []).append(i)
        stacks: list[list[int]] = []
        for group in groups.values():
            size = min(self.network.stack(self.training.batch), math.ceil(len(group) / self._workers[0]))
            stacks += [group[i : i + size] for i in range(0, len(group), size)]
        return stacks

    def _stacked_fit(
        self,
        requests: Sequence[FitRequest],
        batches: Sequence[VaeBatches],
        peaks: Sequence[float],
        stack: Sequence[int],
        pool: WorkerPool,
    ) -> Fit:
        """Prepare the fit of one stack of requests."""
        starts = [self.weights.start(requests[i]) for i in stack]
        weights = {name: torch.stack([start[name] for start in starts]) for name in self.weights.shapes}
        return Fit(
            members=[requests[i].member for i in stack],
            parameters=list(weights.values()),
            decayed=[False] * len(weights),
            batches=[batches[i] for i in stack],
            training=self.training,
            peak=peaks[stack[0]],
            gradients=self._gradients(weights),
            stacked=True,
            report=pool.report,
        )

    def _gradients(self, weights: Weights) -> Gradients:
        def gradients(rows: Rows, total: Sequence[Tensor] | None = None) -> tuple[Tensor, Sequence[Tensor]]:
            x, noise, scale = rows
            leaves = [weight.detach().requires_grad_() for weight in weights.values()]
            with torch.enable_grad():
                document_losses = loss(self.network, dict(zip(weights, leaves, strict=True)), x, noise, self.beta)
                losses = (document_losses * scale[..., 0]).sum(-1)
                grads = accumulated(losses.sum(), leaves, total)
            return losses.detach(), grads

        return gradients

    # Writing and scoring.

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents, one Series of length ``n`` per request: the decoder's means for latent variables.

        The latent variables are N(0, temperature), keyed by the document's number.
        """
        with WorkerPool(*self._workers) as pool:
            total = sum(request.n for request in requests)
            jobs = [partial(self._decode, request) for request in requests]
            return [as_documents(x) for x in pool.run(jobs, "generate", total, progress)]

    def _decode(self, request: GenerateRequest) -> NDArray[np.float64]:
        latent = self.network.latent
        noise = request.stream.uniform(np.arange(request.n * latent)).reshape(request.n, latent)
        z = (ndtri(noise) * math.sqrt(request.decoding.temperature)).astype(np.float32)
        weights = self._weights_of(request.member)
        return self._in_blocks(lambda part: self.network.decode(weights, part), z, self.network.length)

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents by their negative evidence lower bound in nats (with ``beta`` = 1); each is one unit.

        The divergence is exact; the reconstruction is averaged over a few latent draws. They are the same for all
        documents, so that a score depends on its document alone. Raises DataError for values outside [0, 1].
        """
        latent = self.network.latent
        uniform = self._streams.at("vae/score").uniform(np.arange(_DRAWS * latent)).reshape(_DRAWS, latent)
        noise = torch.from_numpy(ndtri(uniform).astype(np.float32)).to(self.device)
        with WorkerPool(*self._workers) as pool:
            return pool.run([partial(self._score, request, noise) for request in requests])

    def _score(self, request: ScoreRequest, noise: Tensor) -> Score:
        weights, n = self._weights_of(request.member), request.docs.len()
        x = request.docs.to_numpy().reshape(n, self.network.length)
        problem = range_problem(x) if n else ""
        if problem:
            raise DataError(f'model "{self.name}" cannot score these documents: {problem}')

        def negative_bound(part: Tensor) -> Tensor:
            losses = [loss(self.network, weights, part, draw.expand(*part.shape[:2], -1), 1.0) for draw in noise]
            return torch.stack(losses, dim=-1).mean(-1, keepdim=True)

        return Score.of_documents(self._in_blocks(negative_bound, x.astype(np.float32), 1)[:, 0])

    def _in_blocks(self, function: Callable[[Tensor], Tensor], rows: Floats32, width: int) -> NDArray[np.float64]:
        """Apply a function to rows [n, …] in blocks, the last padded with zeros; return [n, width]."""
        values = np.zeros((len(rows), width))
        with torch.inference_mode():
            for i in range(0, len(rows), _BLOCK):
                part = rows[i : i + _BLOCK]
                block = torch.zeros(1, _BLOCK, rows.shape[1])
                block[0, : len(part)] = torch.from_numpy(part)
                values[i : i + _BLOCK] = function(block.to(self.device))[0, : len(part)].cpu().numpy()
        return values

    def _weights_of(self, member: Member) -> Weights:
        """Return a copy of one member's weights, the initial ones or random ones, as a stack of one."""
        return {name: tensor.clone()[None] for name, tensor in self.weights.of(member).items()}

    def describe(self, truth: Truth) -> dict[str, NDArray[np.float64]]:
        """Compare the documents of members with the truth: 500 each, from latent variables that never change.

        They are compared through a normal distribution with their moments (``mean_error``, ``variance``,
        ``log_variance``, ``w2``). The moments of 500 documents are estimates, so even for the truth itself the
        distances would not be exactly 0. ``latent_log_std`` is the measure of Shumailov et al. (2024): the log of the
        standard deviation, over documents and latent variables, of the foundation encoder's means for these documents.
        Without a foundation it is left out.
        """
        stream = self._streams.at(f"model/{self.name}/describe")
        requests = [GenerateRequest(m, _DESCRIBED, Decoding(), None, stream) for m in range(self.members)]
        x = np.stack([docs.to_numpy() for docs in self.generate(requests)])
        normal = GaussianCohort(self.name, self.members, self.network.length)
        normal.load(normal.estimate(x, np.ones(x.shape[:2])))
        described = normal.describe(truth)
        values = {metric: described[metric] for metric in ("mean_error", "variance", "log_variance", "w2")}
        if self.fingerprint:
            initial, latent = self._weights_of("initial"), self.network.latent
            means = [
                self._in_blocks(lambda part: self.network.encode(initial, part)[0], docs.astype(np.float32), latent)
                for docs in x
            ]
            with np.errstate(divide="ignore"):
                logarithm = np.log(np.stack(means).std(axis=(1, 2)))
            values["latent_log_std"] = np.where(np.isfinite(logarithm), logarithm, np.nan)
        return values

    def state(self) -> Mapping[str, NDArray[Any]]:
        """Return every member's parameters, float32 with a leading member axis."""
        return self.weights.state()

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if the shape differs."""
        self.weights.load(state)
