"""The guide *From Mesa to ecosystem* does what it says: its cells run in order, as in a notebook."""

import re
from pathlib import Path

import pytest

GUIDE = Path(__file__).parent.parent / "docs" / "mesa.md"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Failed to validate hooks")  # of Mesa's own components
def test_cells_run(monkeypatch: pytest.MonkeyPatch) -> None:
    solara = pytest.importorskip("solara", reason="the extra view is not installed")
    import ipyvuetify

    pytest.importorskip("matplotlib", reason="Mesa's plots are drawn by matplotlib")
    monkeypatch.chdir(GUIDE.parent.parent)
    cells = re.findall(r"^```python\n(.*?)^```", GUIDE.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(cells) == 5
    notebook: dict = {}
    for cell in cells:
        exec(compile(cell, str(GUIDE), "exec"), notebook)
    _, rendered = solara.render(solara.AppLayout(children=[notebook["page"]]), handle_error=False)
    try:
        assert {button.children[0] for button in rendered.find(ipyvuetify.Btn).widgets} >= {"Reset", "Step"}
    finally:
        rendered.close()
