"""The scaling law that a study fits to its runs."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field, model_validator

from ecosystem.errors import nearest
from ecosystem.metrics.catalogue import definitions, name_of
from ecosystem.spec import Spec
from ecosystem.theory.laws import ScalingLaw, scaling_laws


class LawFit(Spec):
    """A scaling law, fitted to the models that were trained from scratch in the last step of every run.

    Each population of trainers is a point of each run. The law says which quantities of a point it depends on, such as
    the number of parameters, the human tokens that it was trained on, and the number of machine tokens for every human
    one.
    """

    law: str = Field(description="name of a scaling law (`ecosystem list scaling_laws`)")
    metric: Annotated[str, AfterValidator(name_of)] = Field(
        "cross_entropy", description="metric of trainers that the law describes, at the last step"
    )
    fixed: dict[str, float] = Field(
        {}, description="parameters that are not fitted, since the grid is too small for them, with their values"
    )

    @model_validator(mode="after")
    def _check(self) -> LawFit:
        if self.law not in scaling_laws():
            close = nearest(self.law, scaling_laws())
            raise ValueError(f'law: there is no scaling law "{self.law}"{close}; choose {", ".join(scaling_laws())}')
        if self.metric not in definitions():
            close = nearest(self.metric, definitions())
            raise ValueError(f'metric: there is no metric "{self.metric}"{close}; see `ecosystem list metrics`')
        for name, value in self.fixed.items():
            if name not in self.form.unknowns:
                close = nearest(name, self.form.unknowns)
                raise ValueError(
                    f'fixed: {self.law} has no parameter "{name}"{close}; it has {", ".join(self.form.unknowns)}'
                )
            if self.form.unknowns[name].is_scale and value < 0:
                raise ValueError(f"fixed.{name}: {value:g} is negative; give 0 or more")
        if not self.free:
            raise ValueError("fixed: all parameters of the law are fixed; leave out at least one")
        return self

    @property
    def form(self) -> ScalingLaw:
        """The law itself."""
        return scaling_laws()[self.law]

    @property
    def free(self) -> list[str]:
        """The parameters to be fitted."""
        return [name for name in self.form.unknowns if name not in self.fixed]
