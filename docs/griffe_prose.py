"""Make mkdocstrings render docstrings like the generated pages."""

from __future__ import annotations

from typing import Any

import griffe

from docs.prose import markdown


class Prose(griffe.Extension):
    """Converts the docstrings read by Griffe to Markdown."""

    def on_object(self, *, obj: griffe.Object, **others: Any) -> None:
        """Convert the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = markdown(obj.docstring.value)
