"""Laws by name: the closed forms that a scenario can draw beside its simulation and be checked against.

A law is a function of :mod:`ecosystem.metrics.theory` with an argument ``t``, the generation; the others are given in
the scenario. They are imported only when one is asked for, since they need SciPy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ecosystem.errors import DataError, nearest
from ecosystem.sources.base import Truth

Law = Callable[..., Any]
TRUTH = "truth"
_READABLE = {"category": ("p", "s0", "h0"), "vector": ("h0", "variance")}
_EXAMPLE: dict[str, Any] = {"p": [0.5, 0.3, 0.2], "s0": 0.4, "h0": 0.5, "variance": 1.0}


@cache
def laws() -> dict[str, Law]:
    """Return every public function of the theory with an argument ``t``, the generation."""
    from ecosystem.metrics import theory

    found = {}
    for name, function in vars(theory).items():
        own = inspect.isfunction(function) and function.__module__ == theory.__name__ and not name.startswith("_")
        if own and "t" in inspect.signature(function).parameters:
            found[name] = function
    return dict(sorted(found.items()))


def wrong_law(name: str, parameters: Mapping[str, Any], modality: str) -> str:
    """Return what is wrong with a law and its arguments, as the end of a sentence that begins with its path, or ""."""
    known = laws()
    if name not in known:
        return f'law: there is no law "{name}"{nearest(name, known)}; there are {", ".join(known)}'
    others = [p for p in inspect.signature(known[name]).parameters.values() if p.name != "t"]
    unknown = set(parameters) - {p.name for p in others}
    missing = [p.name for p in others if p.default is p.empty and p.name not in parameters]
    if unknown or missing:
        needs = ", ".join(p.name for p in others) or "nothing"
        return f"parameters: the law {name} takes {needs}; given {', '.join(parameters) or 'none'}"
    readable = _READABLE.get(modality, ())
    strange = [key for key, value in parameters.items() if value == TRUTH and key not in readable]
    if strange:
        can = f"what can be is {', '.join(readable)}" if readable else "nothing can be"
        return f'parameters: {strange[0]} = "{TRUTH}" cannot be read off a source of {modality} documents; {can}'
    example = {key: _EXAMPLE[key] if value == TRUTH else value for key, value in parameters.items()}
    try:
        value = np.asarray(known[name](t=np.array([1, 2]), **example), dtype=np.float64)
    except DataError as error:
        return f"parameters: {str(error).rstrip('.')}"
    except (TypeError, ValueError, ArithmeticError, IndexError):
        return f"parameters: the law {name} cannot be computed with {dict(parameters)!r}"
    if value.shape != (2,):
        return f"law: {name} is not one number for each generation, so it cannot be drawn"
    return ""


def predict(
    name: str, t: NDArray[np.int64], parameters: Mapping[str, Any], truth: Truth | None = None
) -> NDArray[np.float64]:
    """Return the law's values at generations t, shape [t]; raise DataError for arguments outside its domain.

    A parameter ``"truth"`` stands for what the source's exact distribution says: p (its probabilities), s0 (their sum
    of squares), h0 (one less that; of a normal, whose variance is measured as a share of the truth, 1) or variance (the
    trace of its covariance).
    """
    given = {key: _of_truth(key, truth) if value == TRUTH else value for key, value in parameters.items()}
    return np.asarray(laws()[name](t=t, **given), dtype=np.float64)


def _of_truth(key: str, truth: Truth | None) -> Any:
    if truth is not None and truth.probabilities is not None:
        simpson = float((truth.probabilities**2).sum())
        known: dict[str, Any] = {"p": truth.probabilities, "s0": simpson, "h0": 1 - simpson}
    elif truth is not None and truth.covariance is not None:
        known = {"h0": 1.0, "variance": float(np.trace(truth.covariance))}
    else:
        known = {}
    if key not in known:
        raise DataError(f'theory: {key} = "{TRUTH}" cannot be read off the initial source; give it as a number.')
    return known[key]
