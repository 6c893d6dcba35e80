"""Settings of the life of a web: how long sites and pages last, which sites are born, and which refuse crawlers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import (
    Field,
    GetJsonSchemaHandler,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)
from pydantic_core import CoreSchema

from ecosystem.curves import RateCurve, ShareCurve, within
from ecosystem.spec import PLAIN, Spec, plain_or_table
from ecosystem.times import InTime, Steps
from ecosystem.types import Floats, Ints, Share

Births = Annotated[RateCurve, within(0, 10_000)]
"""New sites or links a step; the limit keeps a step within about ten seconds."""


class LifeSpec(Spec):
    """How long a page or a site lasts: an exponential or a Weibull distribution (Weibull 1951, J. Appl. Mech. 18).

    The share that is left at age ``a`` is ``S(a) = exp(-a ln 2 / half_life)``, or ``exp(-(a / scale)^shape)``.
    """

    law: Literal["exponential", "weibull"] = Field(
        description="exponential: the same risk at every age; weibull: a risk that falls with age if shape < 1"
    )
    half_life: Steps | None = Field(None, description="for exponential: age at which half are left")
    scale: Steps | None = Field(None, description="for weibull: age at which 1/e (37 %) are left")
    shape: Annotated[float, Field(gt=0, le=100)] | None = Field(
        None, description="for weibull: exponent; below 1, the young die more often than the old"
    )

    @model_validator(mode="after")
    def _complete(self) -> LifeSpec:
        needed = ("half_life",) if self.law == "exponential" else ("scale", "shape")
        for field in ("half_life", "scale", "shape"):
            given = getattr(self, field) is not None
            if field in needed and not given:
                raise ValueError(f'{field}: is required for law = "{self.law}"')
            if given and field not in needed:
                raise ValueError(
                    f'{field}: has no meaning for law = "{self.law}", which has {" and ".join(needed)}; remove it'
                )
        return self

    def remaining(self, uniform: Floats, age: Floats | float = 0.0) -> Floats:
        """Return how long things of some ages still last, in steps, given one uniform number each, [things].

        They are conditioned on having reached their age: ``S(age + remaining) = uniform S(age)``.
        """
        more = -np.log(uniform)  # how much the cumulative hazard still grows
        if self.half_life is not None:
            return np.asarray(more * (self.half_life / math.log(2)), dtype=np.float64)
        assert self.scale is not None and self.shape is not None
        with np.errstate(over="ignore"):  # longer than any run
            hazard = (np.asarray(age, dtype=np.float64) / self.scale) ** self.shape
            remaining = self.scale * (hazard + more) ** (1 / self.shape) - age
        return np.asarray(np.where(np.isinf(hazard), 0.0, remaining), dtype=np.float64)


class AgeSpec(Spec):
    """Ages of the initial documents when the web opens: one for all, or exponentially distributed ones."""

    law: Literal["constant", "exponential"] = Field(
        description="exponential: most are young, few are old; constant is what a plain duration means"
    )
    value: Annotated[float, Field(ge=0), InTime("duration")] | None = plain_or_table("for constant: the age")
    mean: Steps | None = Field(None, description="for exponential: mean age")

    @model_validator(mode="before")
    @classmethod
    def _duration(cls, value: Any) -> Any:
        """Take a plain duration for the age of all documents."""
        if isinstance(value, int | float | str) and not isinstance(value, bool):
            return {"law": "constant", PLAIN: value}
        if not isinstance(value, dict | AgeSpec):
            raise ValueError(f'must be a duration, such as 6 or "6 months", or a table with a law, not {value!r}')
        return value

    @model_validator(mode="after")
    def _complete(self) -> AgeSpec:
        if (self.value is None) == (self.law == "constant") or (self.mean is None) == (self.law == "exponential"):
            raise ValueError('give a duration, or { law = "exponential", mean = … }')
        return self

    @model_serializer(mode="wrap")
    def _plain(self, serialize: SerializerFunctionWrapHandler) -> Any:
        """Return the duration of a constant; other ages are tables."""
        table = serialize(self)
        return table["value"] if self.law == "constant" else table

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        """Return the schema of a duration or a table."""
        table = handler.resolve_ref_schema(handler(schema))
        return {"anyOf": [{"type": "number"}, {"type": "string", "format": "duration"}, {**table, "type": "object"}]}

    def ages(self, uniform: Floats) -> Floats:
        """Return ages in steps, given one uniform number each, [documents]."""
        if self.mean is None:
            return np.full(uniform.shape, self.value, dtype=np.float64)
        return np.asarray(-self.mean * np.log(uniform), dtype=np.float64)


class SiteType(Spec):
    """A type of sites, such as press, forums, encyclopedias or content farms."""

    share: Share = Field(0.0, description="share of the sites at the opening; the shares of all types add up to 1")
    births: Births | None = Field(
        None,
        description="new sites of this type a step, on average (a Poisson number): a number, a rate or a curve; "
        "absent: none",
    )
    page_life: LifeSpec | None = Field(
        None, description="how long a page lasts from its publication; absent: until its site dies"
    )
    site_life: LifeSpec | None = Field(
        None, description="how long a site lasts, with all its pages; those of the opening are new; absent: for ever"
    )
    refuses: ShareCurve | None = Field(
        None,
        description="share of these sites that refuse crawlers (robots.txt): a number or a curve; a site that refuses "
        "at one share refuses at every larger one; absent: none",
    )


class LinkSpec(Spec):
    """Links that form between living sites while the web runs."""

    births: Births = Field(
        description="new links a step, on average (a Poisson number), from any site to popular ones: a number, a rate "
        "or a curve"
    )


def opening_types(types: Mapping[str, SiteType], noise: Floats) -> Ints:
    """Return the type of each site at the opening, as its place in the sorted names, [sites].

    The types have their shares of the sites as nearly as whole numbers allow; ``noise`` decides which sites have which.
    """
    bounds = np.cumsum([types[name].share for name in sorted(types)])
    rank = np.argsort(np.argsort(noise, kind="stable"), kind="stable")
    place = np.searchsorted(bounds, (rank + 0.5) / noise.size, side="right")
    last = np.flatnonzero(np.diff(bounds, prepend=0.0) > 0).max()  # the sum of the shares may be rounded
    return np.asarray(np.minimum(place, last), dtype=np.int64)


def opening_problem(types: Mapping[str, SiteType], sites: int | None) -> str:
    """Return what is wrong with the shares of types on a web of this size (None: unknown); empty if nothing is."""
    total = sum(entry.share for entry in types.values())
    if abs(total - 1) > 1e-9:
        return f"types: the shares of all types must add up to 1, but these add up to {total:.6g}"
    for name, entry in types.items():
        if not entry.share and entry.births is None:
            return f"types.{name}: never has a site; set its share, for sites at the opening, or births"
    if sites is None:
        return ""
    counts = np.bincount(opening_types(types, np.arange(sites, dtype=np.float64)), minlength=len(types))
    for name, count in zip(sorted(types), counts.tolist(), strict=True):
        if types[name].share > 0 and not count:
            return f"types.{name}.share: {types[name].share:g} of {sites} sites is none; make the share or sites larger"
    return ""
