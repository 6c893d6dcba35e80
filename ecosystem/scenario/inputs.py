"""Look for the files that a scenario names, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ecosystem.corpus.graph_files import find_graph
from ecosystem.errors import DataError
from ecosystem.scenario.tables import ScenarioTables


def missing_inputs(scenarios: Iterable[ScenarioTables], base: Path) -> list[str]:
    """Return a sentence for every file or folder that scenarios name and that is missing or cannot be opened.

    ``base`` is the folder for relative paths that are not found in the current one. Equal parts are sought once.
    """
    problems: dict[str, None] = {}
    for s in _distinct(scenarios):
        for name, source in s.sources.items():
            try:
                source.check_files(name, base)
            except DataError as error:
                problems[str(error)] = None
        for name, model in s.models.items():
            try:
                model.beside(base).check_files()
            except DataError as error:
                problems[f"models.{name}: {error}"] = None
        if s.web.path is not None:
            try:
                find_graph(s.web.path, base)
            except DataError as error:
                problems[str(error)] = None
    return list(problems)


def require_inputs(scenario: ScenarioTables, base: Path) -> None:
    """Raise DataError with all sentences of :func:`missing_inputs`, if there are any."""
    if problems := missing_inputs([scenario], base):
        raise DataError("\n".join(problems))


def downloads(s: ScenarioTables, base: Path) -> list[str]:
    """Return a sentence for every dataset and checkpoint that is looked up on the Hugging Face Hub.

    ``base`` is the folder for relative paths that are not found in the current one.
    """
    ids = {
        f"sources.{name}.{key}": where
        for name, part in s.sources.items()
        for key, where in part.downloads(base).items()
    }
    for name, family in s.models.items():
        ids |= {f"models.{name}.{key}": where for key, where in family.beside(base).downloads().items()}
    return [
        f'{path} = "{where}" is not a folder, here or beside the scenario; the run looks it up on the Hugging Face Hub'
        for path, where in ids.items()
    ]


def _distinct(scenarios: Iterable[ScenarioTables]) -> list[ScenarioTables]:
    """Return one of all scenarios that name the same files."""
    return list({repr((s.sources, s.models, s.web.path)): s for s in scenarios}.values())
