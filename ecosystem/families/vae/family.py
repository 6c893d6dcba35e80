"""The ``vae`` family: variational autoencoders (Kingma & Welling 2014) of images or other vectors in [0, 1]."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from ecosystem.errors import DataError, TrainingError
from ecosystem.families import checkpoint, foundation
from ecosystem.families.base import FAMILIES, BuildContext, Cohort, Family
from ecosystem.families.requests import Budget
from ecosystem.families.statistical.cohort import human_documents
from ecosystem.families.training_spec import Rate, Training
from ecosystem.sources.base import digest
from ecosystem.types import Modality, Positive

if TYPE_CHECKING:
    from ecosystem.families.vae.cohort import VaeCohort
    from ecosystem.families.vae.networks import Network, Weights


@FAMILIES.register("vae")
class Vae(Family):
    """A variational autoencoder with a standard normal prior, as in Shumailov et al. (2024, on digits).

    A trainer's ``budget`` in tokens is a number of documents, repetitions included. The decoder's means are published;
    the ``temperature`` of a trainer's decoding multiplies the variance of the latent variables.
    """

    modality: ClassVar[Modality] = "vector"

    init: Literal["foundation", "untrained"] = Field(
        "foundation",
        description="initial weights: foundation: trained on the web's initial human documents, once for all members; "
        "untrained: random, so that nothing is published before the first fit",
    )
    latent: Positive = Field(8, description="number of latent variables of a document")
    architecture: Literal["dense", "convolutional"] = Field(
        "dense",
        description="dense: layers of one width; convolutional: two convolutions of kernel 4 and stride 2, and a dense "
        "layer, for images whose sides are divisible by 4",
    )
    hidden: Positive = Field(128, description="dense: width of each layer of encoder and decoder")
    layers: Annotated[int, Field(ge=1, le=8)] = Field(
        1, description="dense: number of layers in the encoder and in the decoder, without output layers"
    )
    capacity: Positive = Field(
        16, description="convolutional: output channels of the first convolution; the second has twice as many"
    )
    image: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None, description="convolutional: [height, width] of the documents; absent: they are square"
    )
    beta: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the divergence from the prior; 1: the ELBO")
    likelihood: Literal["bernoulli"] = Field(
        "bernoulli", description="likelihood of a value in [0, 1]: binary cross-entropy"
    )
    epochs: Rate = Field(100.0, description="passes of the foundation over the initial human documents")
    batch: Positive = Field(128, description="documents per optimiser step")
    learning_rate: Rate = Field(
        2e-3, description="peak learning rate of the foundation, and of fits whose trainer sets none"
    )
    schedule: Literal["cosine", "constant"] = Field(
        "constant", description="learning rate: down to zero along a half cosine, or constant"
    )

    @property
    def starts_pretrained(self) -> bool:
        """Whether members start from the foundation."""
        return self.init == "foundation"

    def training(self) -> Training:
        """Return the settings of every fit: Adam, without clipping."""
        return Training(
            batch=self.batch,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup=0.0,
            weight_decay=0.0,
            beta2=0.999,
            clip=1e12,
        )

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M members; train their foundation, if they have one, or read it from the cache.

        Raises DataError if there are no initial documents, or if they are not within [0, 1].
        """
        from ecosystem.families.vae.batches import range_problem

        x = human_documents(name, context, "vector")
        problem = range_problem(x)
        if problem:
            raise DataError(f'model "{name}" cannot be trained on the web\'s initial documents: {problem}')
        network = self._network(name, x.shape[1])
        if self.init == "untrained":
            initial = network.draw(context.streams.at(f"model/{name}/initial"))
            return self._cohort(name, members, network, initial, context)
        fingerprint = foundation.fingerprint(
            self.plain(),
            pl.Series([digest(context.human)]),
            seed=context.streams.seed,
            device=context.device,
        )

        def make() -> Callable[[Path], None]:
            # The stream does not contain the model's name, so models with the same preset share a foundation.
            stream = context.streams.at("foundation/vae")
            cohort = self._cohort("foundation", 1, network, network.draw(stream.child("initial")), context)
            try:
                weights = foundation.pretrain(cohort, Budget(epochs=self.epochs), stream, context)
            except TrainingError as error:
                raise TrainingError(f'the foundation of model "{name}": {error}') from error
            return lambda folder: checkpoint.write_weights(folder, weights)

        initial = checkpoint.read_weights(foundation.obtain(context.cache, fingerprint, make))
        return self._cohort(name, members, network, initial, context, fingerprint)

    def _cohort(
        self, name: str, members: int, network: Network, initial: Weights, context: BuildContext, fingerprint: str = ""
    ) -> VaeCohort:
        from ecosystem.families.vae.cohort import VaeCohort

        return VaeCohort(
            name,
            members,
            network,
            initial,
            context,
            training=self.training(),
            beta=self.beta,
            fingerprint=fingerprint,
        )

    def _network(self, name: str, length: int) -> Network:
        from ecosystem.families.vae.networks import Convolutional, Dense

        if self.architecture == "dense":
            return Dense(length, self.latent, self.hidden, self.layers)
        height, width = self.image or [math.isqrt(length)] * 2
        if height * width != length:
            reason = f"image = {self.image} makes {height * width}" if self.image else "that is not a square number"
            raise DataError(
                f'model "{name}" is convolutional, but its documents are vectors of {length} numbers: {reason}; set '
                f"models.{name}.image to their [height, width]."
            )
        if height % 4 or width % 4:
            raise DataError(
                f'model "{name}" is convolutional and needs images whose sides are divisible by 4, but these are '
                f'{height} by {width}; resize them in the source, or set architecture = "dense".'
            )
        return Convolutional(height, width, self.latent, self.capacity)
