"""Registries of laws: closed forms that a scenario is checked against, and scaling laws that a study fits to its runs.

A law is a function with the argument ``t``, the generation, and the decorator :func:`law`; a scenario sets its other
arguments. The modules that define laws need SciPy, so they are imported on first use. A scaling law is a function of
quantities of a trained model (:data:`QUANTITIES`) with the decorator :func:`scaling_law`, which names the parameters
to be fitted.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache, cached_property
from importlib import import_module
from typing import Any, Literal, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import DataError, nearest
from ecosystem.plugins import note_kind

TRUTH = "truth"
_MODULES = (
    "adoption",
    "curation",
    "diversity",
    "extinction",
    "gaussian",
    "learning",
    "networks",
    "regression",
    "weighting",
)
_READABLE = {"category": ("p", "s0", "h0"), "vector": ("h0", "variance")}
ARGUMENTS: dict[str, str] = {
    "ai_at_first": "share of people who use AI at generation 0",
    "ai_benefit": "benefit of a document by AI while nobody uses it; absent: `benefit`",
    "ai_cost": "cost of using AI, as a multiple of `cost`",
    "at": "generation whose model is recovered",
    "bandwidth": "standard deviation of the kernel in every direction, in the unit of the data",
    "batch": "documents that each laboratory publishes, of which readers draw: one number or a list; absent: so many "
    "that no two readers draw the same",
    "benefit": "benefit of a human document",
    "bias": "what each model adds to a probability by mistake, on top of its training set",
    "clean": "documents per batch that are drawn from all of `p`",
    "collapse": "how much the benefit of AI falls when everybody uses it",
    "cost": "cost of a human document, in the unit of `benefit`",
    "covariance": "what models fit besides the mean: unit (nothing), unbiased or maximum_likelihood",
    "curated_per_real": "chosen documents for each real one in a training set; absent: no real ones",
    "cut": "number of the most frequent types that models write; absent: all",
    "dimension": "numbers in a document, the label left out",
    "documents": "documents that each laboratory reads of each, a list of one list per reader",
    "drafts": "drafts of which one is chosen; absent: infinitely many",
    "expected_count": "samples of a type at the first generation, on average",
    "gamma": "largest probability of a type that is still learnt",
    "h0": "diversity of the truth: its Gini-Simpson index, or its variance per coordinate in squared units",
    "k": "number of the most frequent types",
    "keep_correct": "chance that the verifier keeps a document with a correct label",
    "keep_wrong": "chance that the verifier keeps a document with a wrong label",
    "kept": "share of a large set of documents that is chosen, instead of `drafts`",
    "lab": "row of the laboratory in `documents`, counted from 0",
    "merged": "last generation before the models merge",
    "n": "samples that each generation is fitted to",
    "n_real": "real samples in a training set (of a growing corpus: real text at the beginning)",
    "n_synthetic": "synthetic samples in a training set (of a growing corpus: text added by each generation)",
    "noise_variance": "variance of the noise on labels, in squared units",
    "offsets": "distance of the mean of the real documents that each laboratory has from the true mean, a list",
    "overlap": "inner product of the truth with the difference of the model of generation 0 from it",
    "p": "probabilities of the true distribution, a list that adds up to 1",
    "parties": "number of models that merge",
    "published": "documents that each generation adds to the pool; absent: `n`",
    "ratio": "multiple of the true standard deviation",
    "real": "real documents that each laboratory reads besides, a list",
    "real_batch": "real documents of which readers draw; absent: so many that no two readers draw the same",
    "real_weight": "share of the real samples in the weight of a training set",
    "recovery": "multiple of the change of weights that is taken back, beyond all of it",
    "rewards": "reward of each type, or a list of them for each sort of curators",
    "rows": "rows that each regression is fitted to",
    "s0": "sum of the squared probabilities of the truth",
    "sampling_bias": "factor of the variance that each generation is sampled with; below 1 favours the likely",
    "shared": "share of the benefit of a document that goes to others",
    "shares": "share of each sort of curators in the choices, a list that adds up to 1",
    "shift": "squared distance of the vector that labels synthetic rows from the true one",
    "silent_at_first": "share of people who publish nothing at generation 0",
    "slope": "change of the reward per unit along its direction",
    "speed": "probability of taking over a strategy for each unit by which it pays more",
    "start": "squared distance of the model of generation 0 from the truth",
    "strategy": "whose share is predicted: write, ai or silent",
    "support": "number of types that occur",
    "t": "generation, counted from 0, the truth; given by the steps of the simulation",
    "temperature": "temperature of sampling; 1 leaves the distribution as it is",
    "threshold": "least probability of a type that is edited",
    "top_p": "mass of the most frequent types that sampling keeps",
    "unbiased": "whether variances are divided by n - 1 instead of n",
    "variance": "variance of the truth, in squared units of the data",
    "wrong": "share of wrong labels before the verifier",
}
"""Description of each argument; an argument has the same meaning in all laws."""
QUANTITIES: dict[str, str] = {
    "parameters": "number of parameters of the model",
    "human_tokens": "human tokens that the last fit read, repetitions included",
    "synthetic_ratio": "machine tokens that it read for every human token",
}
"""What a scaling law may depend on; every name is an argument of the function."""
_EXAMPLE: dict[str, Any] = {"p": [0.5, 0.3, 0.2], "s0": 0.4, "h0": 0.5, "variance": 1.0}
_LAWS: dict[str, Law] = {}
_SCALING_LAWS: dict[str, ScalingLaw] = {}

Function = TypeVar("Function", bound=Callable[..., NDArray[np.float64]])
Source = Literal["paper", "derived", "digest"]
"""Origin of a formula: as stated in its paper; derived for this project, in whole or in part; or taken from a summary
of its paper or from memory, not from its text."""


class ExactDistribution(Protocol):
    """Exactly known properties of the distribution of documents; None: unknown."""

    @property
    def probabilities(self) -> NDArray[np.float64] | None:
        """Probabilities of the symbols, [types]."""

    @property
    def covariance(self) -> NDArray[np.float64] | None:
        """Covariance of vectors, [dimensions, dimensions]."""


@dataclass(frozen=True)
class Law:
    """A closed form that a scenario can name."""

    name: str
    function: Callable[..., NDArray[np.float64]]
    source: Source

    @cached_property
    def parameters(self) -> list[inspect.Parameter]:
        """The arguments except the generation ``t``."""
        return [p for p in inspect.signature(self.function).parameters.values() if p.name != "t"]


class Unknown(NamedTuple):
    """A parameter of a scaling law that a study fits, within a range; on a logarithmic scale if that is positive."""

    low: float
    high: float
    text: str  # what it is

    @property
    def is_scale(self) -> bool:
        """Whether only positive values are allowed."""
        return self.low > 0


@dataclass(frozen=True)
class ScalingLaw:
    """A formula for the loss of a trained model, whose parameters a study fits to its runs."""

    name: str
    function: Callable[..., NDArray[np.float64]]
    source: Source
    unknowns: Mapping[str, Unknown]

    @cached_property
    def inputs(self) -> list[str]:
        """The arguments that are not fitted: names of :data:`QUANTITIES`."""
        return [name for name in inspect.signature(self.function).parameters if name not in self.unknowns]


def scaling_law(source: Source, **unknowns: Unknown) -> Callable[[Function], Function]:
    """Return a decorator that registers a function as a scaling law, with its source and its parameters to be fitted.

    All other arguments of the function are names of :data:`QUANTITIES`, and are given as arrays of one shape.
    """

    def enter(function: Function) -> Function:
        _SCALING_LAWS[function.__name__] = ScalingLaw(function.__name__, function, source, unknowns)
        return function

    return enter


@cache
def scaling_laws() -> dict[str, ScalingLaw]:
    """Return every scaling law, sorted by name."""
    import_module("ecosystem.theory.wild")
    return dict(sorted(_SCALING_LAWS.items()))


def law(source: Source) -> Callable[[Function], Function]:
    """Return a decorator that registers a function of the generation ``t`` as a law, with the origin of its formula."""

    def enter(function: Function) -> Function:
        _LAWS[function.__name__] = Law(function.__name__, function, source)
        note_kind(function.__module__, function.__name__)
        laws.cache_clear()  # a plug-in may be loaded after the laws were listed
        return function

    return enter


@cache
def laws() -> dict[str, Law]:
    """Return every law, sorted by name."""
    for module in _MODULES:
        import_module(f"ecosystem.theory.{module}")
    return dict(sorted(_LAWS.items()))


def wrong_law(name: str, parameters: Mapping[str, Any], modality: str) -> str:
    """Return what is wrong with a law and its arguments, to be appended to the path of its entry; "" if nothing."""
    registered = laws()
    if name not in registered:
        return f'law: there is no law "{name}"{nearest(name, registered)}; choose {", ".join(registered)}'
    allowed = registered[name].parameters
    unknown = set(parameters) - {p.name for p in allowed}
    missing = [p.name for p in allowed if p.default is p.empty and p.name not in parameters]
    if unknown or missing:
        needs = ", ".join(p.name for p in allowed) or "nothing"
        return f"parameters: the law {name} takes {needs}; given {', '.join(parameters) or 'none'}"
    readable = _READABLE.get(modality, ())
    unreadable = [key for key, value in parameters.items() if value == TRUTH and key not in readable]
    if unreadable:
        hint = f"allowed for {', '.join(readable)}" if readable else "give it as a number"
        return f'parameters: {unreadable[0]} = "{TRUTH}" cannot be read off a source of {modality} documents; {hint}'
    example = {key: _EXAMPLE[key] if value == TRUTH else value for key, value in parameters.items()}
    try:
        value = np.asarray(registered[name].function(t=np.array([1, 2]), **example), dtype=np.float64)
    except DataError as error:
        return f"parameters: {str(error).rstrip('.')}"
    except (TypeError, ValueError, ArithmeticError, IndexError):
        return f"parameters: the law {name} cannot be computed with {dict(parameters)!r}"
    if value.shape != (2,):
        return f"law: {name} is not one number for each generation, so it cannot be drawn"
    return ""


def predict(
    name: str, t: NDArray[np.int64], parameters: Mapping[str, Any], truth: ExactDistribution | None = None
) -> NDArray[np.float64]:
    """Return the law's values at generations t, shape [t]; raise DataError for arguments outside its domain.

    A parameter ``"truth"`` is read off the exact distribution of the source: p (its probabilities), s0 (their sum of
    squares), h0 (1 - s0; 1 for a normal distribution, since variances are measured as shares of the true one) or
    variance (the trace of its covariance).
    """
    arguments = {key: _of_truth(key, truth) if value == TRUTH else value for key, value in parameters.items()}
    return np.asarray(laws()[name].function(t=t, **arguments), dtype=np.float64)


def predict_variance(
    name: str, t: NDArray[np.int64], parameters: Mapping[str, Any], truth: ExactDistribution | None = None
) -> NDArray[np.float64] | None:
    """Return the variance between runs around the law, shape [t]: the law ``NAME_variance``; None if there is none.

    Arguments and errors as in :func:`predict`.
    """
    known = laws().get(f"{name}_variance")
    if known is None:
        return None
    taken = {parameter.name for parameter in known.parameters}
    return predict(known.name, t, {key: value for key, value in parameters.items() if key in taken}, truth)


def _of_truth(key: str, truth: ExactDistribution | None) -> Any:
    if truth is not None and truth.probabilities is not None:
        simpson = float((truth.probabilities**2).sum())
        values: dict[str, Any] = {"p": truth.probabilities, "s0": simpson, "h0": 1 - simpson}
    elif truth is not None and truth.covariance is not None:
        values = {"h0": 1.0, "variance": float(np.trace(truth.covariance))}
    else:
        values = {}
    if key not in values:
        raise DataError(f'theory: {key} = "{TRUTH}" cannot be read off the initial source; give it as a number.')
    return values[key]
