"""A section of the page that is created when first opened: most never are, and cost nothing until then."""

from __future__ import annotations

from collections.abc import Callable

import solara


@solara.component
def Collapsible(title: str, content: Callable[[], None], at_first: bool = False) -> None:
    """Show a title that opens and closes the content, open ``at_first`` or not; text typed in it survives closing."""
    opened, turn = solara.use_state(at_first)
    created = solara.use_ref(False)
    created.current = created.current or opened
    icon = "mdi-chevron-down" if opened else "mdi-chevron-right"
    with solara.Div(classes=["eco-fold"]):
        solara.Button(title, icon_name=icon, on_click=lambda: turn(not opened), text=True, small=True)
        if created.current:
            with solara.Div(style={} if opened else {"display": "none"}):
                content()
