"""Registries of kinds: map a name in a scenario file (``kind = "minhash_dedup"``) to the class that implements it.

Built-in kinds register by decorator when their module is imported. Third-party kinds come through the entry point
group ``ecosystem.plugins``; each entry point names a module that registers on import. These plug-ins are loaded only
to look up a name that no built-in kind has, or to list all kinds. Single files are loaded by :mod:`ecosystem.plugins`.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from ecosystem.errors import ScenarioError, nearest
from ecosystem.plugins import note_kind

T = TypeVar("T", bound=type[Any])


class Registry(Generic[T]):
    """Map names to the classes of one sort: sources, families, policies or metrics."""

    def __init__(self, noun: str, *modules: str) -> None:
        """``noun`` is the word used in messages; ``modules`` register the built-in kinds when imported."""
        self.noun = noun
        self._modules = modules
        self._kinds: dict[str, T] = {}
        self._plugins_loaded = False

    def register(self, kind: str) -> Callable[[T], T]:
        """Decorate a class to register it as ``kind``; the class gets its name as ``cls.kind``.

        A module that is imported again replaces its own classes. Raise ScenarioError if another class has the name.
        """

        def enter(cls: T) -> T:
            registered = self._kinds.get(kind)
            if registered is not None and _full_name(registered) != _full_name(cls):
                raise ScenarioError(
                    f'Two classes claim the {self.noun} kind "{kind}": {_full_name(registered)} and '
                    f"{_full_name(cls)}; rename one of them."
                )
            cls.kind = kind
            self._kinds[kind] = cls
            note_kind(cls.__module__, kind)
            return cls

        return enter

    def get(self, kind: str) -> T:
        """Return the class registered as ``kind``; raise ScenarioError with the nearest name if there is none."""
        self._load_built_ins()
        if kind not in self._kinds:
            self._load_plugins()
        if kind not in self._kinds:
            raise ScenarioError(
                f'unknown {self.noun} kind "{kind}"{nearest(kind, self._kinds)}; '
                f"the kinds are {', '.join(sorted(self._kinds))}"
            )
        return self._kinds[kind]

    def all(self) -> dict[str, T]:
        """Return every kind, built-in and plugged in, sorted by name."""
        self._load_built_ins()
        self._load_plugins()
        return dict(sorted(self._kinds.items()))

    def _load_built_ins(self) -> None:
        for module in self._modules:
            import_module(module)

    def _load_plugins(self) -> None:
        if not self._plugins_loaded:
            for point in entry_points(group="ecosystem.plugins"):
                point.load()
            self._plugins_loaded = True  # set last, so that a plug-in that raises an error does so at every look-up


def _full_name(cls: type[Any]) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
