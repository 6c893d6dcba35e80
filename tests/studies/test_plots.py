"""Cards, charts and tables of studies for notebooks."""

from __future__ import annotations

from pathlib import Path

import altair as alt
import pytest

from ecosystem.errors import EcosystemError
from tests.studies.small_study import STUDY, load, run


def test_the_card_of_a_study_lists_its_arms(folder: Path) -> None:
    study = load(folder)
    card = study._repr_html_()
    assert all(arm in card for arm in study.levers()) and "loop.toml" in card
    assert repr(study) == f"<Study small: {len(study.levers())} arms, 1 worlds, 3 seeds>"


@pytest.mark.slow
def test_a_result_has_its_card_charts_and_tables(folder: Path) -> None:
    result = run(folder, STUDY + '[worlds.a]\n[worlds.b]\n"trainers.lab.publish" = 30\n')
    files = {path.stem for path in (result.folder / "charts").glob("*.svg")}
    assert set(result.plot.names()) == files and len(files) > 3
    same = {"effect_variance_a": result.plot.effects(), "effect_variance_b": result.plot.effects("variance", "b")}
    same["course_lab_w2_b"] = result.plot.course("lab/w2@2-4", "b")
    for name, chart in same.items():
        assert isinstance(chart, alt.LayerChart) and chart.to_dict() == result.plot[name].to_dict()
    effects = result.to_pandas()
    assert effects["effect"].tolist() == result.effects["effect"].to_list()
    assert len(result.to_pandas("runs")) == result.results.runs.height
    assert "p_holm" in result._repr_html_() and str(result.report) in result._repr_html_()
    for wrong in (
        lambda: result.plot.effects("variances"),
        lambda: result.plot.course(world="c"),
        lambda: result.plot.tradeoff(),
        lambda: result.to_pandas("efects"),
    ):
        with pytest.raises(EcosystemError, match=r"did you mean|the study has"):
            wrong()
