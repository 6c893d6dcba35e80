"""Define the closed forms that are drawn and checked beside a simulation."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field

from ecosystem.metrics.catalogue import name_of
from ecosystem.spec import Spec
from ecosystem.times import Moment


class TheorySpec(Spec):
    """A closed form beside the simulation: a curve in the report, and checks for ``ecosystem validate``."""

    metric: Annotated[str, AfterValidator(name_of)] = Field(
        description="metric predicted, averaged over the trainers or communities of the population"
    )
    population: str = Field(description="name of an entry in [trainers], or of writers with a choice")
    law: str = Field(description="name of a function of the generation (ecosystem list laws)")
    parameters: dict[str, Any] = Field(default_factory=dict, description="its other arguments")
    first: int = Field(0, description="generation at step 0; the curve begins at generation 1")
    check: list[Moment] = Field([], description="steps at which `ecosystem validate` compares")
    source: str = Field("", description="reference for the law")
