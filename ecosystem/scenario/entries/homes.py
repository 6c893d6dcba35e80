"""Define where agents publish: on home sites of their own (``sites``), or on all sites of a type (``site_type``)."""

from __future__ import annotations

from typing import Any

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from ecosystem.spec import Spec


class PublisherSpec(Spec):
    """Settings of agents that publish; classes below it add ``sites``, the number of their home sites."""

    site_type: str | None = Field(
        None,
        description="in the place of home sites: a type of sites (web.types); each document appears on one of those "
        "that are alive at the step, all equally likely; absent: on the home sites",
    )

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
