"""The ``classifier`` family: a plane that separates two labels, and the share of labels on its wrong side.

The model of the phase transition of Feng et al. (2024): a share p of the labels is wrong, a verifier filters them, and
the classifier trained on the rest is right or wrong as a whole (``verified_accuracy`` and ``kept_correct_share`` in
:mod:`ecosystem.theory.learning`).
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray
from pydantic import Field, model_validator

from ecosystem.errors import DataError
from ecosystem.families.base import FAMILIES, BuildContext, Cohort
from ecosystem.families.requests import Decoding
from ecosystem.families.statistical.cohort import FittedFamily, Parameters, StackedCohort, human_documents
from ecosystem.sources.base import Truth
from ecosystem.sources.labelled import label_log_density, side
from ecosystem.types import Floats, Modality


@FAMILIES.register("classifier")
class Classifier(FittedFamily):
    """A plane that separates two labels: its normal is the mean of y x over documents (x, y) with y = 1 or -1.

    It writes x ~ N(0, I) with the label of x's side of the plane, and with the other label as often as its training
    documents disagreed with the plane. The ``temperature`` of a trainer's decoding divides the logits of the two
    labels; near 0, the likelier label is always written.
    """

    modality: ClassVar[Modality] = "vector"
    needs_labels: ClassVar[bool] = True

    label_noise: Annotated[float, Field(ge=0, le=1)] | None = Field(
        None,
        description="probability of the wrong label before the first fit; absent: the share of initial documents with "
        "a label that disagrees with the plane",
    )

    @model_validator(mode="after")
    def _label_noise_needs_foundation(self) -> Classifier:
        if self.label_noise is not None and self.init == "untrained":
            raise ValueError(
                'label_noise applies before the first fit, which needs init = "foundation"; set init, or leave '
                "label_noise out"
            )
        return self

    def cohort(self, name: str, members: int, context: BuildContext) -> Cohort:
        """Build M classifiers; raise DataError if there are no initial documents, or they have fewer than 2 numbers."""
        human = human_documents(name, context, "vector")
        if human.shape[1] < 2:
            raise DataError(
                f'model "{name}" needs documents of at least two numbers, the last one the label, but they have only '
                "one; use a source of kind labelled."
            )
        cohort = ClassifierCohort(name, members, human.shape[1] - 1)
        if self.init == "foundation":
            cohort.begin_from(human)
            if self.label_noise is not None:
                cohort.set_initial_noise(self.label_noise)
        return cohort


class ClassifierCohort(StackedCohort):
    """M classifiers: normals of planes, ``weights`` [M, d], and probabilities of wrong labels, ``noise`` [M]."""

    def __init__(self, name: str, members: int, dimension: int) -> None:
        """``dimension``: number of coordinates before the label."""
        initial = {"weights": np.zeros(dimension), "noise": 0.5}
        super().__init__(name, members, pl.Array(pl.Float64, dimension + 1), initial)

    @property
    def noise_shape(self) -> tuple[int, ...]:
        """One number per coordinate, and one for the label."""
        return (self._initial["weights"].size + 1,)

    def fit_problem(self, x: NDArray[Any]) -> str:
        """Also refuse documents whose last number is not a label."""
        invalid = np.flatnonzero(np.abs(x[:, -1]) != 1)
        if invalid.size:
            return f"the last number of a document is {x[invalid[0], -1]:.4g}, but a label must be 1 or -1"
        return super().fit_problem(x)

    def set_initial_noise(self, noise: float) -> None:
        """Set the probability of a wrong label that every member has before its first fit."""
        self._initial["noise"] = np.asarray(noise, dtype=np.float64)
        self._parameters["noise"][:] = noise

    def estimate(self, x: NDArray[Any], weight: Floats) -> Parameters:
        """Return the weighted mean of y x for documents [M, n, d + 1], and the weighted share of wrong labels."""
        share = weight / weight.sum(axis=1, keepdims=True)
        features, label = x[..., :-1], x[..., -1]
        weights = np.einsum("mn,mnd->md", share * label, features)
        return {"weights": weights, "noise": np.einsum("mn,mn->m", share, side(features, weights) != label)}

    def draw(self, parameters: Parameters, decoding: Decoding, noise: Floats) -> NDArray[Any]:
        """Draw and label x; one uniform number per document decides whether its label is wrong."""
        from scipy.special import expit, logit, ndtri

        x = ndtri(noise[..., :-1])
        wrong = noise[..., -1] < expit(logit(parameters["noise"]) / decoding.temperature)[:, None]
        label = side(x, parameters["weights"]) * np.where(wrong, -1, 1)
        return np.concatenate([x, label[..., None]], axis=-1)

    def log_density(self, parameters: Parameters, x: NDArray[Any]) -> Floats:
        """Return the log density of documents x [n, d + 1]."""
        return label_log_density(x, parameters["weights"], float(parameters["noise"]))

    def describe(self, truth: Truth) -> dict[str, Floats]:
        """Return the label noise and, if the truth has a plane, the accuracy: 1 - angle/π, by symmetry.

        A plane with zero weights labels everything 1, so its accuracy is 1/2.
        """
        noise = self._parameters["noise"]
        if truth.plane is None:
            return {"label_noise": noise.copy()}
        weights = self._parameters["weights"]
        along = weights @ truth.plane
        across = np.sqrt(((weights - along[:, None] * truth.plane) ** 2).sum(axis=1))
        accuracy = 1 - np.arctan2(across, along) / np.pi
        return {"accuracy": np.where((weights == 0).all(axis=1), 0.5, accuracy), "label_noise": noise.copy()}
