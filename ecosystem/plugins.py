"""Plug-ins that are one Python file: a filter, source, model, metric, task or law that registers itself on import.

A plug-in is loaded by its path (``--plugin my_filter.py``, ``plugins=["my_filter.py"]``, :func:`load_plugin`), before
the scenario that uses it is read. Its text is sent to the processes and machines that compute for this one, so they
need no copy of the file. Nothing is ever loaded because a scenario or a run folder asks for it: loading runs code.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import traceback
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from ecosystem.errors import EcosystemError, each_line, path_argument

_PREFIX = "plugin_"


@dataclass(frozen=True)
class Plugin:
    """A plug-in: the absolute path of its file, and its text."""

    path: str
    text: str

    @property
    def name(self) -> str:
        """The name of its file."""
        return Path(self.path).name

    @property
    def module(self) -> str:
        """The name of its module: files of one name in two folders are two modules."""
        stem = re.sub(r"\W", "_", Path(self.path).stem)
        return f"{_PREFIX}{stem}_{hashlib.sha256(self.path.encode()).hexdigest()[:8]}"

    @property
    def digest(self) -> str:
        """The SHA-256 of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


_LOADED: dict[str, Plugin] = {}  # by module
_KINDS: dict[str, set[str]] = {}  # names that each of these modules has registered


def load_plugin(path: str | Path) -> ModuleType:
    """Run a Python file that registers kinds, and return its module; a file that has not changed is run once.

    The kinds are known to this process from then on, and to the processes that compute runs and studies for it. Raises
    EcosystemError if the file cannot be read or run.
    """
    file = Path(path_argument(path, "plugin"))
    if file.suffix != ".py":
        raise EcosystemError(
            f"{file}: a plug-in is one Python file, such as my_filter.py. A package is found without an "
            "option once it is installed, by its entry points of the group ecosystem.plugins."
        )
    try:
        plugin = Plugin(str(file.resolve()), file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise EcosystemError(f"{file}: the plug-in cannot be read ({reason}).") from None
    return _load(plugin)


def load_plugins(paths: Iterable[str | Path]) -> None:
    """Load several files with :func:`load_plugin`, in their order."""
    if isinstance(paths, str | os.PathLike):
        raise EcosystemError(f'plugins: give a list of paths, such as ["{paths}"], not one path.')
    for path in paths:
        load_plugin(path)


def load_all(plugins: Iterable[Plugin]) -> None:
    """Load the plug-ins of another process in this one."""
    for plugin in plugins:
        _load(plugin)


def loaded() -> tuple[Plugin, ...]:
    """Return the plug-ins that this process has loaded from files, in their order."""
    return tuple(_LOADED.values())


def note_kind(module: str, kind: str) -> None:
    """Note that a module has registered a kind, a metric or a law."""
    if module.startswith(_PREFIX):
        _KINDS.setdefault(module, set()).add(kind)


def used(text: str) -> list[Plugin]:
    """Return the loaded plug-ins of which a scenario, as JSON, names something."""
    return [plugin for name, plugin in _LOADED.items() if any(f'"{kind}"' in text for kind in _KINDS.get(name, ()))]


def _load(plugin: Plugin) -> ModuleType:
    if _LOADED.get(plugin.module) == plugin:
        return sys.modules[plugin.module]
    module, before = ModuleType(plugin.module), sys.modules.get(plugin.module)
    module.__file__ = plugin.path
    sys.modules[plugin.module] = module  # before it is run: pydantic looks types up in it
    try:
        exec(compile(plugin.text, plugin.path, "exec"), module.__dict__)
    except BaseException as error:
        if before is None:
            del sys.modules[plugin.module]
        else:
            sys.modules[plugin.module] = before
        if not isinstance(error, Exception):
            raise
        raise EcosystemError(_problem(plugin, error)) from error
    _LOADED[plugin.module] = plugin
    return module


def _problem(plugin: Plugin, error: Exception) -> str:
    """Return a sentence about an error in a plug-in, with its line."""
    if isinstance(error, SyntaxError):
        return f"{plugin.path}, line {error.lineno}: the plug-in is not valid Python ({error.msg})."
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == plugin.path]
    where = f"{plugin.path}, line {lines[-1]}" if lines else plugin.path
    if isinstance(error, EcosystemError):
        return each_line(where, error)
    return f"{where}: the plug-in failed with {type(error).__name__}: {error}. Correct the file."
