"""The catalogue of all metrics, including those of plug-ins, for scenarios, studies, lists and reports."""

from __future__ import annotations

from ecosystem.metrics.base import DOCUMENT_METRICS, TEXT_METRICS, Definition
from ecosystem.metrics.definitions import DEFINED, is_plugged_in
from ecosystem.metrics.observed import OBSERVED as OBSERVED  # importing it defines them
from ecosystem.metrics.tasks import TASKS


def definitions() -> dict[str, Definition]:
    """Return the definition of every metric, including those of plug-ins; imports no heavy library."""
    for registry in (TEXT_METRICS, DOCUMENT_METRICS, TASKS):
        registry.all()  # a metric is defined when its module is imported
    return dict(DEFINED)


def plugged_in() -> list[str]:
    """Return the names of the metrics that plug-ins define, except those of tasks."""
    of_tasks = {name for kind, task in TASKS.all().items() for name in task.defined(kind)}
    return [name for name in definitions() if is_plugged_in(name) and name not in of_tasks]


def name_of(metric: str) -> str:
    """Return the name used in tables for a metric name or alias; any other text is returned unchanged."""
    return next((name for name, entry in definitions().items() if entry.alias == metric), metric)
