"""Small elements used by several components. Their content is always shown as text, never as markup."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import solara


def text_element(tag: str, text: str, *classes: str, **attributes: str) -> Any:
    """Show a text in an HTML element."""
    return solara.v.Html(tag=tag, children=[text], class_=" ".join(classes), attributes=attributes)


def table_row(tag: str, cells: Iterable[str]) -> None:
    """Show one row of a table; ``tag`` is th or td."""
    with solara.v.Html(tag="tr"):
        for cell in cells:
            solara.v.Html(tag=tag, children=[cell])


def framed(panel: str, *classes: str, children: Sequence[Any] = ()) -> Any:
    """Show a frame around a panel, whose name the address of the page gets when the reader clicks in it."""
    styles = " ".join(["eco-panel", *classes])
    return solara.v.Html(tag="div", class_=styles, attributes={"data-panel": panel}, children=list(children))
