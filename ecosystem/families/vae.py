"""The ``vae`` family: variational autoencoders (Kingma & Welling 2014) of images or other vectors in [0, 1]."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

import polars as pl
from pydantic import Field

from ecosystem.corpus.sources import digest
from ecosystem.errors import DataError, TrainingError
from ecosystem.families import foundation
from ecosystem.families.base import FAMILIES, Budget, Cohort, Family, Surroundings, Workload
from ecosystem.families.recipe import Positive, Rate, Training
from ecosystem.families.stacked import human_documents


@FAMILIES.register("vae")
class Vae(Family):
    """A dense variational autoencoder with a standard normal prior, as in Shumailov et al. (2024, on digits).

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
    hidden: Positive = Field(128, description="width of each dense layer of encoder and decoder")
    layers: Annotated[int, Field(ge=1, le=8)] = Field(1, description="dense layers in each of them, before the output")
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
        from ecosystem.families import autoencoder

        x = human_documents(name, around, "vector")
        wrong = autoencoder.outside(x)
        if wrong:
            raise DataError(f'model "{name}" cannot be trained on the web\'s initial documents: {wrong}')
        sizes = autoencoder.Sizes(x.shape[1], self.latent, self.hidden, self.layers)
        if self.init == "untrained":
            initial, mark = autoencoder.draw(sizes, around.streams.at(f"model/{name}/initial")), ""
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

            def make() -> autoencoder.Writer:
                first = autoencoder.draw(sizes, stream.child("initial"))
                alone = autoencoder.VaeCohort("foundation", 1, sizes, first, self, around)
                try:
                    return autoencoder.pretrained(alone, budget, stream, around)
                except TrainingError as error:
                    raise TrainingError(f'the foundation of model "{name}": {error}') from error

            initial = autoencoder.read(foundation.obtain(around.cache, mark, make))
        return autoencoder.VaeCohort(name, members, sizes, initial, self, around, mark)
