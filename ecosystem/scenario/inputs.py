"""Look for the files that a scenario names, before anything is read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ecosystem.corpus.graph_files import find_graph
from ecosystem.errors import DataError
from ecosystem.families.checkpoint import packaged_hint
from ecosystem.scenario.tables import ScenarioTables
from ecosystem.sources.base import EndlessSource, FiniteReservoir, Reservoir
from ecosystem.streams import Streams


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


def require_inputs(scenarios: Iterable[ScenarioTables], base: Path, where: str = "") -> None:
    """Raise DataError with all sentences of :func:`missing_inputs`, each after ``where``, if there are any."""
    if problems := missing_inputs(scenarios, base):
        raise DataError("\n".join(f"{where}: {problem}" if where else problem for problem in problems))


class OpenedSources(dict[str, Reservoir | None]):
    """The sources of a scenario, each opened on first use; None: it has to be downloaded.

    Raises DataError if a source cannot be opened.
    """

    def __init__(self, s: ScenarioTables, base: Path) -> None:
        super().__init__()
        self._tables, self._base = s, base

    def __missing__(self, name: str) -> Reservoir | None:
        source = self._tables.sources[name]
        downloaded = bool(source.downloads(self._base))
        self[name] = None if downloaded else source.open(name, Streams(self._tables.seed), self._base)
        return self[name]


def initial_documents(s: ScenarioTables, sources: OpenedSources) -> int:
    """Return with how many documents the web begins: as many as asked for, or all if the source has fewer.

    The source is opened, unless it is endless or has to be downloaded.
    """
    initial = s.web.initial
    if initial is None:
        return 0
    if isinstance(s.sources[initial.source], EndlessSource):
        return initial.documents
    reservoir = sources[initial.source]
    size = None if reservoir is None else reservoir.size
    return initial.documents if size is None else min(size, initial.documents)


def quick_to_count(s: ScenarioTables, base: Path) -> bool:
    """Return whether :func:`initial_documents` opens the source in a fraction of a second."""
    initial = s.web.initial
    return initial is None or s.sources[initial.source].quick_to_count(initial.source, base, initial.documents)


def shortage(s: ScenarioTables, available: int) -> list[str]:
    """Return a sentence if the web begins with fewer documents (:func:`initial_documents`) than asked for."""
    initial = s.web.initial
    if initial is None:
        return []
    return [
        f"web.initial.documents = {initial.documents:,}, but sources.{initial.source} has only {available:,} documents "
        f"to publish; the web begins with these, and the source has none left"
    ][: available < initial.documents]


def omissions(s: ScenarioTables, sources: OpenedSources) -> list[str]:
    """Return a sentence for every source that leaves out some of its documents, unless it has to be downloaded."""
    finite = [name for name, source in s.sources.items() if not isinstance(source, EndlessSource)]
    reservoirs = [sources[name] for name in finite]
    return [each.omissions for each in reservoirs if isinstance(each, FiniteReservoir) and each.omissions]


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
        f'{path} = "{where}"{packaged_hint(where) if path.startswith("models.") else ""} is not a folder, here or '
        "beside the scenario; the run looks it up on the Hugging Face Hub"
        for path, where in ids.items()
    ]


def _distinct(scenarios: Iterable[ScenarioTables]) -> list[ScenarioTables]:
    """Return one of all scenarios that name the same files."""
    return list({repr((s.sources, s.models, s.web.path)): s for s in scenarios}.values())
