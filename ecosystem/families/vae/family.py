"""The ``vae`` family: variational autoencoders (Kingma & Welling 2014) of images or other vectors in [0, 1]."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from ecosystem.errors import DataError, TrainingError
from ecosystem.families import foundation
from ecosystem.families.base import FAMILIES, Budget, Cohort, Family, Surroundings, Workload
from ecosystem.families.statistical.cohort import human_documents
from ecosystem.families.training_spec import Positive, Rate, Training
from ecosystem.sources.base import digest

if TYPE_CHECKING:
    from ecosystem.families.vae.networks import Network


@FAMILIES.register("vae")
class Vae(Family):
    """A variational autoencoder with a standard normal prior, as in Shumailov et al. (2024, on digits).

    A trainer's ``budget`` in tokens is a number of documents seen, with repetition. What it publishes is the decoder's
    mean; ``temperature`` of its decoding multiplies the variance of the latent numbers.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "vector"

    init: Literal["foundation", "untrained"] = Field(
        "foundation",
        description="foundation: trained on the web's initial human documents, once for all members; untrained: "
        "publishes nothing before its first fit",
    )
    latent: Positive = Field(8, description="latent numbers of a document")
    architecture: Literal["dense", "convolutional"] = Field(
        "dense",
        description="dense: layers of one width; convolutional: two convolutions of kernel 4 and stride 2 and a dense "
        "layer, for images whose sides are divisible by 4",
    )
    hidden: Positive = Field(128, description="dense: width of each layer of encoder and decoder")
    layers: Annotated[int, Field(ge=1, le=8)] = Field(1, description="dense: layers in each, before the output")
    capacity: Positive = Field(
        16, description="convolutional: channels after the first convolution; the second has twice as many"
    )
    image: Annotated[list[Positive], Field(min_length=2, max_length=2)] | None = Field(
        None, description="convolutional: [height, width] of the documents; absent: they are squares"
    )
    beta: Annotated[float, Field(ge=0)] = Field(1.0, description="weight of the divergence from the prior; 1: the ELBO")
    likelihood: Literal["bernoulli"] = Field("bernoulli", description="of a value in [0, 1]: binary cross-entropy")
    epochs: Rate = Field(100.0, description="times that the foundation sees the initial human documents")
    batch: Positive = Field(128, description="documents per optimiser step")
    learning_rate: Rate = Field(2e-3, description="at its peak, of the foundation and of every fit that says no other")
    schedule: Literal["cosine", "constant"] = Field("constant", description="of the rate: down to zero, or level")

    def training(self) -> Training:
        """Return how every fit trains: Adam, gradients left as they are."""
        return Training(
            batch=self.batch,
            learning_rate=self.learning_rate,
            schedule=self.schedule,
            warmup=0.0,
            weight_decay=0.0,
            beta2=0.999,
            clip=1e12,
        )

    def workload(self) -> Workload:
        """Return zeros: how long a document is shows only when its source is opened."""
        return Workload(0, 0, 0)

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M members; trains the foundation, or takes it from the cache, if that is where they start.

        Raises DataError if there are no initial documents, or if they are not within [0, 1].
        """
        from ecosystem.families.vae import cohort

        x = human_documents(name, around, "vector")
        wrong = cohort.outside(x)
        if wrong:
            raise DataError(f'model "{name}" cannot be trained on the web\'s initial documents: {wrong}')
        network = self._network(name, x.shape[1])
        if self.init == "untrained":
            initial, mark = network.draw(around.streams.at(f"model/{name}/initial")), ""
        else:
            mark = foundation.fingerprint(
                self.plain(),
                pl.Series([digest(around.human)]),
                seed=around.streams.seed,
                device=around.device,
            )
            # Not named after the model: two models with the same preset share one foundation.
            stream = around.streams.at("foundation/vae")
            budget = Budget(epochs=self.epochs)

            def make() -> cohort.Writer:
                first = network.draw(stream.child("initial"))
                alone = cohort.VaeCohort("foundation", 1, network, first, self, around)
                try:
                    return cohort.pretrained(alone, budget, stream, around)
                except TrainingError as error:
                    raise TrainingError(f'the foundation of model "{name}": {error}') from error

            initial = cohort.read(foundation.obtain(around.cache, mark, make))
        return cohort.VaeCohort(name, members, network, initial, self, around, mark)

    def _network(self, name: str, length: int) -> Network:
        from ecosystem.families.vae.networks import Convolutional, Dense

        if self.architecture == "dense":
            return Dense(length, self.latent, self.hidden, self.layers)
        height, width = self.image or [math.isqrt(length)] * 2
        if height * width != length:
            of = f"image = {self.image} makes {height * width}" if self.image else "that is no square"
            raise DataError(
                f'model "{name}" is convolutional, but its documents are vectors of {length} numbers: {of}; set '
                f"models.{name}.image to their [height, width]."
            )
        if height % 4 or width % 4:
            raise DataError(
                f'model "{name}" is convolutional, which needs images whose sides are divisible by 4, but these are '
                f'{height} by {width}; bring them to another size in the source, or set architecture = "dense".'
            )
        return Convolutional(height, width, self.latent, self.capacity)
