"""The gallery: its page is the one that the command writes, and the command draws pictures."""

from __future__ import annotations

import re

import pytest

from docs import gallery


def test_the_page_shows_every_picture_with_its_code():
    page = gallery.PAGE.read_text(encoding="utf-8")
    assert page == gallery.page(), "run python -m docs.gallery"
    shown = re.findall(r"^!\[(.+)\]\(gallery/(\w+)\.svg\)$", page, re.MULTILINE)
    assert [name for _, name in shown] == [picture.name for picture in gallery.PICTURES]
    assert {path.stem for path in gallery.FOLDER.iterdir()} == {name for _, name in shown}
    assert all(picture.code in page for picture in gallery.PICTURES) and all(len(text) > 20 for text, _ in shown)


def test_pictures_on_the_page_are_drawings_without_anything_foreign():
    for path in gallery.FOLDER.iterdir():
        svg = path.read_text(encoding="utf-8")
        assert svg.startswith("<svg") and "<script" not in svg and not re.search(r'href="(?!#)', svg)


def test_an_unknown_name_is_refused_before_anything_runs():
    with pytest.raises(ValueError, match=r"no picture is called qualty; there are contamination, quality"):
        gallery.draw(["qualty"])


@pytest.mark.slow
def test_the_command_draws_a_picture(tmp_path, monkeypatch, unreported):
    monkeypatch.chdir(gallery.ROOT)
    monkeypatch.setitem(
        gallery.WORLDS,
        "normal loop",
        """
        scenario = ecosystem.Scenario.load("scenarios/validation/gaussian_replace.toml").override({"steps": 3})
        run = ecosystem.run(scenario, out=out, threads=1)
        """,
    )
    [file] = gallery.draw(["closed_form"], tmp_path / "pictures", tmp_path / "outputs")
    svg = file.read_text(encoding="utf-8")
    assert file.name == "closed_form.svg" and "unbiased" in svg and "gaussian_variance" in svg
