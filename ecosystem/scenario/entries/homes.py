"""Define where agents publish, on home sites of their own or on all sites of a type, and how active they are."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ecosystem.curves import FactorCurve
from ecosystem.spec import Spec


class PublisherSpec(Spec):
    """Settings of agents that publish; classes below it add ``sites``, the number of their home sites."""

    site_type: str | None = Field(
        None,
        description="in the place of home sites: a type of sites (web.types); each document appears on one of those "
        "that are alive at the step, all equally likely; absent: on the home sites",
    )
    activity: FactorCurve | None = Field(
        None,
        description="factor, varying in time, of what they publish: of `rate` of writers, or of `publish` of trainers "
        "(rounded by chance); a number or a curve; absent: 1",
    )

    def mean_activity(self, steps: int) -> float:
        """Return the mean of the factor over the steps of a run, from some hundred of them."""
        if self.activity is None:
            return 1.0
        times = np.linspace(1, steps, min(steps, 200))
        return float(np.mean([self.activity.at(t) for t in times]))

    @model_validator(mode="after")
    def _no_sites(self) -> PublisherSpec:
        if self.site_type is not None and "sites" in self.model_fields_set:
            raise ValueError("sites: has no meaning with site_type, since every site of the type is a home; remove it")
        return self

    @model_serializer(mode="wrap")
    def _without_sites(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        table: dict[str, Any] = serialize(self)
        if self.site_type is not None:
            table.pop("sites", None)  # the default number
        return table
