"""Let mkdocstrings show docstrings as the generated pages do."""

from __future__ import annotations

from typing import Any

import griffe

from docs.prose import markdown


class Prose(griffe.Extension):
    """Rewrites the docstrings that Griffe has read as Markdown."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
