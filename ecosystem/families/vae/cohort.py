"""The cohort of variational autoencoders: training, sampling and scoring of members that share one shape.

Every tensor has the member as its leading axis. Small members are trained in stacks, since calling the functions takes
longer than what they compute; large ones one by one, as many at once as there are threads. A matrix product rounds
differently where its numbers of rows or columns fill no whole vectors of the processor, and then also by where a matrix
lies in memory. So rows are filled up, members whose layers do not fill vectors are trained on their own, and documents
are written and scored in blocks of fixed size: the numbers of a member depend neither on the others nor on the number
of threads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np
import polars as pl
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from ecosystem.errors import DataError
from ecosystem.families.base import (
    Budget,
    Decoding,
    FitRecord,
    FitRequest,
    GenerateRequest,
    MemberError,
    Progress,
    Score,
    ScoreRequest,
    Surroundings,
    silent,
)
from ecosystem.families.language import checkpoint
from ecosystem.families.language.cohort import copy_state
from ecosystem.families.language.packing import Batches
from ecosystem.families.statistical.gaussian import GaussianCohort
from ecosystem.families.training import Fit, Gradients, Rows
from ecosystem.families.vae.networks import VECTOR, Network, Weights
from ecosystem.families.worker_pool import Crew
from ecosystem.sources.base import Truth
from ecosystem.sources.vectors import as_documents
from ecosystem.streams import Stream

if TYPE_CHECKING:
    from ecosystem.families.vae.family import Vae

Floats = NDArray[np.float32]
Writer = Callable[[Path], None]

_ROWS = 128  # documents of a block
_DRAWS = 8  # latent numbers tried for each document that is scored
_DESCRIBED = 500  # documents that a member writes to be described


def outside(x: NDArray[np.float64]) -> str:
    """Return what is wrong with documents that are not within [0, 1], as the end of a sentence, or ""."""
    if bool(((x >= 0) & (x <= 1)).all()):  # not so where one is not a number
        return ""
    return (
        f"their values run from {x.min():g} to {x.max():g}, but the binary cross-entropy of a vae is defined from 0 to "
        "1; scale them in the source, or use a model of kind gaussian."
    )


# Members, each with documents of its own.


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Return the Kullback-Leibler divergence of each N(mean, variance) from the standard normal, in nats, [M, n]."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def loss(network: Network, weights: Weights, x: Tensor, noise: Tensor, beta: float) -> Tensor:
    """Return the loss of each document, [M, n], with one latent draw made of ``noise`` [M, n, latent].

    With ``beta`` = 1 this is minus the evidence lower bound (Kingma & Welling 2014, equation 10).
    """
    mean, log_variance = network.encode(weights, x)
    z = mean + (0.5 * log_variance).exp() * noise
    found = F.binary_cross_entropy_with_logits(network.logits(weights, z), x, reduction="none").sum(-1)
    return found + beta * divergence(mean, log_variance)


# Batches.


@dataclass(frozen=True)
class Batch:
    """Documents [rows, d], the luck of their latent numbers [rows, latent] and their weights [rows, 1].

    ``tokens`` counts the documents; behind the last of them rows of zeros, of weight 0, fill the last vector up.
    """

    inputs: Floats
    targets: Floats
    weight: Floats
    tokens: int


class Deck:
    """The batches of one fit, as language models have them: in every epoch all documents, in an order drawn anew.

    Documents of weight 0 are left out, weights are scaled to a mean of 1. Raises MemberError if nothing is left.
    """

    def __init__(self, request: FitRequest, batch: int, latent: int) -> None:
        member = request.member
        weight = np.asarray(request.weight, dtype=np.float64)
        if not (np.isfinite(weight) & (weight >= 0)).all():
            raise MemberError(member, f"a weight of a document of member {member} is negative or not a number.")
        x = request.docs.to_numpy()
        kept = np.flatnonzero(weight > 0)
        if not kept.size:
            raise MemberError(
                member,
                f"member {member} has nothing to train on, as "
                f"{'every document has weight 0' if x.size else 'there is no document'}; loosen the policies or let "
                "it scrape more.",
            )
        wrong = outside(x[kept])
        if wrong:
            raise MemberError(member, f"member {member} cannot be trained on its documents: {wrong}")
        self._x = x[kept].astype(np.float32)
        self._weight = (weight[kept] / weight[kept].mean()).astype(np.float32)
        self._batch, self._latent, self._stream = batch, latent, request.stream
        budget = request.budget
        epochs = budget.epochs or 0
        self.total = budget.tokens if budget.tokens is not None else max(1, round(epochs * kept.size))
        self.steps = math.ceil(self.total / batch)

    def _order(self) -> Iterator[NDArray[np.int64]]:
        epoch = 0
        while True:
            yield self._stream.child(f"order/epoch/{epoch}").rng().permutation(len(self._x))
            epoch += 1

    def __iter__(self) -> Iterator[Batch]:
        """Iterate over the ``steps`` batches; together they hold ``total`` documents."""
        luck = self._stream.child("noise").rng()
        epochs, left = self._order(), self.total
        order = next(epochs)
        while left:
            n = min(self._batch, left)
            while len(order) < n:
                order = np.append(order, next(epochs))
            rows, order = order[:n], order[n:]
            noise = luck.standard_normal((n, self._latent), dtype=np.float32)
            yield Batch(_filled(self._x[rows]), _filled(noise), _filled(self._weight[rows, None]), n)
            left -= n


def _filled(rows: Floats) -> Floats:
    missing = -len(rows) % VECTOR
    return np.pad(rows, ((0, missing), (0, 0))) if missing else rows


# The cohort.


class VaeCohort:
    """M variational autoencoders; ``initial`` are the weights (of one member) that all of them start from."""

    def __init__(
        self,
        name: str,
        members: int,
        network: Network,
        initial: Weights,
        family: Vae,
        around: Surroundings,
        fingerprint: str = "",
    ) -> None:
        """``fingerprint`` names the foundation that the members start from; "" if there is none."""
        self.name = name
        self.members = members
        self.network = network
        self.fingerprint = fingerprint
        self.device = torch.device(around.device)
        self._family, self._streams = family, around.streams
        self._crew = (around.threads, 1) if around.device == "cpu" else (1, around.threads)
        # In the order of the parameters, whatever that of the file they were read from.
        self._initial = {k: initial[k].to(self.device, torch.float32).contiguous() for k in network.parameters()}
        self._weights = {k: v.unsqueeze(0).repeat(members, *[1] * v.dim()) for k, v in self._initial.items()}

    def fit(self, requests: Sequence[FitRequest], progress: Progress = silent) -> list[FitRecord]:
        """Train members, each on its own documents.

        Raises MemberError if there is nothing to train on, a value is outside [0, 1] or a loss is not finite; the
        members of the call then keep the weights they had.
        """
        training = self._family.training()
        decks = [Deck(request, training.batch, self.network.latent) for request in requests]
        peaks = [training.learning_rate if r.learning_rate is None else r.learning_rate for r in requests]
        alike: dict[tuple[int, float], list[int]] = {}
        for i, (deck, peak) in enumerate(zip(decks, peaks, strict=True)):
            alike.setdefault((deck.total, peak), []).append(i)
        stacks: list[list[int]] = []
        for group in alike.values():
            size = min(self.network.stack(training.batch), math.ceil(len(group) / self._crew[0]))
            stacks += [group[i : i + size] for i in range(0, len(group), size)]
        with Crew(*self._crew) as crew:
            fits = []
            for stack in stacks:
                starts = [self._start(requests[i]) for i in stack]
                weights = {name: torch.stack([start[name] for start in starts]) for name in self._initial}
                fits.append(
                    Fit(
                        [requests[i].member for i in stack],
                        list(weights.values()),
                        [False] * len(weights),
                        [cast(Batches, decks[i]) for i in stack],
                        training,
                        peaks[stack[0]],
                        self._gradients(weights),
                        stacked=True,
                        report=crew.report,
                    )
                )
            found = crew.run([fit.run for fit in fits], "fit", sum(deck.total for deck in decks), progress)
        records: dict[int, FitRecord] = {}
        for fit, own in zip(fits, found, strict=True):
            records |= dict(zip(fit.members, own, strict=True))
            for name, parameter in zip(self._weights, fit.parameters, strict=True):
                self._weights[name][list(fit.members)] = parameter
        return [records[request.member] for request in requests]

    def _start(self, request: FitRequest) -> dict[str, Tensor]:
        if request.start == "scratch":
            drawn = self.network.draw(request.stream.child("initial"))
            return {name: tensor.to(self.device) for name, tensor in drawn.items()}
        if request.start == "previous":
            return {name: tensor[request.member].clone() for name, tensor in self._weights.items()}
        return {name: tensor.clone() for name, tensor in self._initial.items()}

    def _gradients(self, weights: Weights) -> Gradients:
        beta, network = self._family.beta, self.network

        def gradients(rows: Rows) -> tuple[Tensor, Sequence[Tensor]]:
            x, noise, scale = rows
            leaves = [weight.detach().requires_grad_() for weight in weights.values()]
            with torch.enable_grad():
                each = loss(network, dict(zip(weights, leaves, strict=True)), x, noise, beta)
                losses = (each * scale[..., 0]).sum(-1)
                grads = torch.autograd.grad(losses.sum(), leaves)
            return losses.detach(), grads

        return gradients

    def generate(self, requests: Sequence[GenerateRequest], progress: Progress = silent) -> list[pl.Series]:
        """Write documents, one Series of length ``n`` per request: the decoder's means for latent numbers.

        The latent numbers are N(0, temperature), keyed by the document's number.
        """
        from scipy.special import ndtri

        latent = self.network.latent

        def job(request: GenerateRequest) -> NDArray[np.float64]:
            luck = request.stream.uniform(np.arange(request.n * latent)).reshape(request.n, latent)
            z = (ndtri(luck) * math.sqrt(request.decoding.temperature)).astype(np.float32)
            weights = self._of(request.member)
            return self._blocks(lambda part: self.network.decode(weights, part), z, self.network.length)

        with Crew(*self._crew) as crew:
            total = sum(request.n for request in requests)
            found = crew.run([lambda r=r: job(r) for r in requests], "generate", total, progress)  # type: ignore[misc]
        return [as_documents(x) for x in found]

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """Score documents by minus their evidence lower bound in nats (whatever ``beta`` is); a document is one unit.

        The divergence is exact; the reconstruction is averaged over a few latent draws that are the same for every
        document, so that a score is a function of the document alone. Raises DataError for values outside [0, 1].
        """
        from scipy.special import ndtri

        latent = self.network.latent
        luck = self._streams.at("vae/score").uniform(np.arange(_DRAWS * latent)).reshape(_DRAWS, latent)
        noise = torch.from_numpy(ndtri(luck).astype(np.float32)).to(self.device)

        def job(request: ScoreRequest) -> Score:
            weights, n = self._of(request.member), request.docs.len()
            x = request.docs.to_numpy().reshape(n, self.network.length)
            wrong = outside(x) if n else ""
            if wrong:
                raise DataError(f'model "{self.name}" cannot score these documents: {wrong}')

            def bound(part: Tensor) -> Tensor:
                each = [loss(self.network, weights, part, one.expand(*part.shape[:2], -1), 1.0) for one in noise]
                return torch.stack(each, dim=-1).mean(-1, keepdim=True)

            nll = self._blocks(bound, x.astype(np.float32), 1)[:, 0]
            return Score(nll, np.zeros(n, dtype=np.int64), np.arange(n + 1))

        with Crew(*self._crew) as crew:
            return crew.run([lambda r=r: job(r) for r in requests])  # type: ignore[misc]

    def _blocks(self, function: Callable[[Tensor], Tensor], rows: Floats, width: int) -> NDArray[np.float64]:
        """Apply a function to rows [n, …], block by block, the last one filled up with zeros; [n, width]."""
        found = np.zeros((len(rows), width))
        with torch.inference_mode():
            for i in range(0, len(rows), _ROWS):
                part = rows[i : i + _ROWS]
                block = torch.zeros(1, _ROWS, rows.shape[1])
                block[0, : len(part)] = torch.from_numpy(part)
                found[i : i + _ROWS] = function(block.to(self.device))[0, : len(part)].cpu().numpy()
        return found

    def _of(self, member: int | Literal["initial", "random"]) -> Weights:
        """Return the weights of one member, the initial or random ones, as a stack of one with memory of its own."""
        if member == "initial":
            return {name: tensor[None] for name, tensor in self._initial.items()}
        if member == "random":
            drawn = self.network.draw(self._streams.at(f"model/{self.name}/random"))
            return {name: tensor[None].to(self.device) for name, tensor in drawn.items()}
        return {name: tensor[[member]] for name, tensor in self._weights.items()}

    def describe(self, truth: Truth) -> dict[str, NDArray[np.float64]]:
        """Hold what members write against the truth: 500 documents each, from latent numbers that never change.

        They are described as a normal distribution of the same moments (``mean_error``, ``variance``,
        ``log_variance``, ``w2``; the moments of 500 documents are estimates, so that even the truth itself would not
        have distances of exactly 0). ``latent_log_std`` is the figure of Shumailov et al. (2024): the foundation's
        encoder looks at these documents, and of the means that it finds the standard deviation is taken over documents
        and latent numbers alike; the logarithm of it. Without a foundation it is left out.
        """
        stream = self._streams.at(f"model/{self.name}/describe")
        requests = [GenerateRequest(m, _DESCRIBED, Decoding(), None, stream) for m in range(self.members)]
        x = np.stack([docs.to_numpy() for docs in self.generate(requests)])
        normal = GaussianCohort(self.name, self.members, self.network.length, unbiased=True)
        normal.load(normal.estimate(x, np.ones(x.shape[:2])))
        found = normal.describe(truth)
        kept = {metric: found[metric] for metric in ("mean_error", "variance", "log_variance", "w2")}
        if self.fingerprint:
            latent = self.network.latent
            eyes = self._of("initial")
            look = self.network.encode
            means = [self._blocks(lambda part: look(eyes, part)[0], own.astype(np.float32), latent) for own in x]
            with np.errstate(divide="ignore"):
                logarithm = np.log(np.stack(means).std(axis=(1, 2)))
            kept["latent_log_std"] = np.where(np.isfinite(logarithm), logarithm, np.nan)
        return kept

    def state(self) -> dict[str, NDArray[Any]]:
        """Return every member's parameters, float32 with a leading member axis."""
        return {name: np.array(tensor.cpu().numpy()) for name, tensor in self._weights.items()}

    def load(self, state: Mapping[str, NDArray[Any]]) -> None:
        """Restore what :meth:`state` returned; raise DataError, changing nothing, if it belongs to another shape."""
        copy_state(self.name, self._weights, state)


def pretrained(cohort: VaeCohort, budget: Budget, stream: Stream, around: Surroundings) -> Writer:
    """Train the only member of a cohort on the human documents; return what writes its weights into a folder."""
    request = FitRequest(0, around.human, np.ones(around.human.len()), budget, None, "foundation", stream)
    cohort.fit([request], lambda _, done, total: around.progress("foundation", done, total))
    weights = {name: values[0] for name, values in cohort.state().items()}
    return lambda folder: checkpoint.write_weights(folder, weights)


def read(folder: Path) -> dict[str, Tensor]:
    """Return the weights that :func:`pretrained` has written into a folder of the cache."""
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = load_file(folder / "model.safetensors")
    return weights
