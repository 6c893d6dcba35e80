"""Agents that publish on all sites of a type (``site_type``) have no home sites of their own (``sites``)."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from pydantic import SerializerFunctionWrapHandler


class Publishes(Protocol):
    """Settings of agents that publish."""

    site_type: str | None

    @property
    def model_fields_set(self) -> set[str]:
        """Names of the fields that were given."""


T = TypeVar("T", bound=Publishes)


def no_sites(settings: T) -> T:
    """Return the settings; raise ValueError if they name home sites beside a type of sites."""
    if settings.site_type is not None and "sites" in settings.model_fields_set:
        raise ValueError("sites: has no meaning with site_type, since every site of the type is a home; remove it")
    return settings


def leave_out_sites(settings: Publishes, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
    """Return the settings as a table, in which the number of home sites is left out beside a type of sites."""
    table: dict[str, Any] = serialize(settings)
    if settings.site_type is not None:
        table.pop("sites", None)
    return table
