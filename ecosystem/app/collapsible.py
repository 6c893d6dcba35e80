"""A part of the page that is made when it is first opened: most never are, and until then it takes no time."""

from __future__ import annotations

from collections.abc import Callable

import solara


@solara.component
def Collapsible(title: str, inside: Callable[[], None]) -> None:
    """Show a title that opens and closes what ``inside`` makes; what was typed there outlives its being closed."""
    opened, turn = solara.use_state(False)
    made = solara.use_ref(False)
    made.current = made.current or opened
    icon = "mdi-chevron-down" if opened else "mdi-chevron-right"
    with solara.Div(classes=["eco-fold"]):
        solara.Button(title, icon_name=icon, on_click=lambda: turn(not opened), text=True, small=True)
        if made.current:
            with solara.Div(style={} if opened else {"display": "none"}):
                inside()
