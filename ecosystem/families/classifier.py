"""The ``classifier`` family: a plane between two labels, and how often the labels are on the wrong side of it.

The model of the transition that Feng et al. (2024) describe: labels of which the share p is wrong pass a verifier, and
what is learnt from those that it keeps is right or wrong as a whole (``verified_accuracy`` and ``kept_correct_share``
in :mod:`ecosystem.theory.learning`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.corpus.labelled import label_log_density, side
from ecosystem.corpus.sources import Truth
from ecosystem.errors import DataError
from ecosystem.families.base import FAMILIES, Cohort, Decoding, Surroundings
from ecosystem.families.stacked import FittedFamily, Floats, Parameters, StackedCohort, human_documents


@FAMILIES.register("classifier")
class Classifier(FittedFamily):
    """Two labels told apart by a plane whose normal is the mean of y x over its documents (x, y), y being 1 or -1.

    It writes x ~ N(0, I) with the label of the side on which x lies, and the other one as often as the documents that
    it learnt from disagreed with it. ``temperature`` of a trainer's decoding divides the logits of the two labels: near
    0, it writes the likelier one always.
    """

    modality: ClassVar[Literal["text", "vector", "category"]] = "vector"
    needs_labels: ClassVar[bool] = True

    label_noise: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="chance of the wrong label in what it writes before its first fit; absent: as often as labels of "
        "the initial documents disagree with it",
    )

    @model_validator(mode="after")
    def _noise_has_a_beginning(self) -> Classifier:
        if self.label_noise is not None and self.init == "untrained":
            raise ValueError(
                'label_noise is of what it writes before its first fit, which needs init = "foundation"; set it, or '
                "leave label_noise out"
            )
        return self

    def cohort(self, name: str, members: int, around: Surroundings) -> Cohort:
        """Build M classifiers; raise DataError if there are no initial documents, or they have no x."""
        human = human_documents(name, around, "vector")
        if human.shape[1] < 2:
            raise DataError(
                f'model "{name}" tells labels apart by the numbers before them, but the documents here have only one '
                "number; give a source of kind labelled."
            )
        cohort = ClassifierCohort(name, members, human.shape[1] - 1)
        if self.init == "foundation":
            cohort.begin_from(human)
            if self.label_noise is not None:
                cohort.begin_with(self.label_noise)
        return cohort


class ClassifierCohort(StackedCohort):
    """M classifiers: ``weights`` [M, d], the normal of the plane, and ``noise`` [M], the chance of the other label."""

    def __init__(self, name: str, members: int, dimension: int) -> None:
        """``dimension``: numbers before the label."""
        nothing = {"weights": np.zeros(dimension), "noise": 0.5}
        super().__init__(name, members, pl.Array(pl.Float64, dimension + 1), nothing)

    @property
    def luck_shape(self) -> tuple[int, ...]:
        """One number per coordinate, and one for the label."""
        return (self._initial["weights"].size + 1,)

    def unfit(self, x: NDArray[Any]) -> str:
        """Refuse documents whose last number is no label as well."""
        strange = np.flatnonzero(np.abs(x[:, -1]) != 1)
        if strange.size:
            return f"the last number of a document is {x[strange[0], -1]:.4g}, but a label is 1 or -1"
        return super().unfit(x)

    def begin_with(self, noise: float) -> None:
        """Let every member err so often until it is fitted."""
        self._initial["noise"] = np.asarray(noise, dtype=np.float64)
        self._parameters["noise"][:] = noise

    def estimate(self, x: NDArray[Any], weight: Floats) -> Parameters:
        """Weighted mean of y x for documents [M, n, d + 1], and the weighted share of labels on its wrong side."""
        share = weight / weight.sum(axis=1, keepdims=True)
        numbers, label = x[..., :-1], x[..., -1]
        weights = np.einsum("mn,mnd->md", share * label, numbers)
        return {"weights": weights, "noise": np.einsum("mn,mn->m", share, side(numbers, weights) != label)}

    def draw(self, parameters: Parameters, decoding: Decoding, luck: Floats) -> NDArray[Any]:
        """Draw x and label it; one uniform number of each document decides whether its label is the wrong one."""
        from scipy.special import expit, logit, ndtri

        x = ndtri(luck[..., :-1])
        noise = expit(logit(parameters["noise"]) / decoding.temperature)
        label = side(x, parameters["weights"]) * np.where(luck[..., -1] < noise[:, None], -1, 1)
        return np.concatenate([x, label[..., None]], axis=-1)

    def log_density(self, parameters: Parameters, x: NDArray[Any]) -> Floats:
        """Log density of documents x [n, d + 1]."""
        return label_log_density(x, parameters["weights"], float(parameters["noise"]))

    def describe(self, truth: Truth) -> dict[str, Floats]:
        """Return how often its side is the right one (1 - angle/π, by symmetry), if any is, and its noise.

        Without any direction it says 1 of everything, and is right half of the time.
        """
        noise = self._parameters["noise"]
        if truth.plane is None:
            return {"label_noise": noise.copy()}
        weights = self._parameters["weights"]
        along = weights @ truth.plane
        across = np.sqrt(((weights - along[:, None] * truth.plane) ** 2).sum(axis=1))
        accuracy = 1 - np.arctan2(across, along) / np.pi
        return {"accuracy": np.where((weights == 0).all(axis=1), 0.5, accuracy), "label_noise": noise.copy()}
