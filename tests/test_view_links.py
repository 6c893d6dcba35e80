"""The page in a browser: links that lead back, columns against columns, a story followed by hand, what is not shown."""

import re
from urllib.parse import parse_qs, urlsplit

import pytest

import ecosystem
from tests.test_view_browser import CHROMIUM, WAIT, Seen, browser, scenario, served  # noqa: F401  fixtures

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here (set CHROMIUM, or install the package)"),
    pytest.mark.slow,
]


def named(seen):
    """Return what the browser's address names."""
    return {name: values[0] for name, values in parse_qs(urlsplit(seen.page.url).query).items()}


def at(browser, address, query, step, **how):  # noqa: F811
    """Open a link, and wait until its step is drawn."""
    drawn, Seen.drawn = Seen.drawn, lambda seen, _: drawn(seen, step)
    try:
        return Seen(browser, f"{address}/{query}", **how)
    finally:
        Seen.drawn = drawn


def test_a_link_leads_back_to_a_step_a_panel_and_its_measures(browser, scenario, tmp_path):  # noqa: F811
    run = ecosystem.run(scenario, out=tmp_path)
    with served(run.path) as (address, _):
        seen = Seen(browser, address)
        assert named(seen) == {"step": "0"}
        slider = seen.page.locator(".v-input__slider", has_text="Step 0 of 6").locator(".v-slider__thumb-container")
        slider.focus()
        for step in range(1, 4):
            seen.page.keyboard.press("ArrowRight")
            seen.drawn(step)
        seen.page.locator("[data-panel=quality]").click()
        seen.page.get_by_role("button", name=re.compile("^Columns")).click()
        seen.page.locator("[data-panel=columns] .eco-chart[data-drawn]").wait_for(timeout=WAIT)
        seen.page.locator("[data-panel=columns] .v-select", has_text="mark").click()
        seen.page.get_by_role("option", name="heat map").click()
        seen.says(re.compile("all [0-9]+ documents; colour: synthetic share"))
        assert named(seen) == {"step": "3", "panel": "columns", "mark": "heat map"}
        seen.page.reload()
        seen.drawn(3)
        seen.says(re.compile("all [0-9]+ documents; colour: synthetic share"))
        seen.page.locator("[data-panel=columns]").wait_for(timeout=WAIT)
        assert named(seen) == {"step": "3", "panel": "columns", "mark": "heat map"}
        assert seen.page.locator("[data-panel=columns] select, [data-panel=columns] script").count() == 0
        assert not seen.failed
        seen.page.close()
        wrong = Seen(browser, f"{address}/?step=99&panel=readin&colour=%3Cb%3E&what=1&quality=cross&seed=2&turn=1:0:2")
        wrong.says('The address names step "99"; give a whole number from 0 to 6.')
        wrong.says('There is no panel "readin" (did you mean "reading"?)')
        wrong.says('The address has "what", which is none of')
        wrong.says('The address names colour "<b>"; choose from nothing, ')
        wrong.says('The address names quality "cross", which is not shown here')
        wrong.says("The address sets seed and turn, which a stored run does not take.")
        wrong.page.close()


def test_a_link_to_a_live_world_computes_it_again(browser, scenario):  # noqa: F811
    with served(scenario, "--threads", "1") as (address, _):
        link = "?step=3&seed=5&turn=2:0:25&turn=1:7:1&panel=reading"
        seen = at(browser, address, link, 3)
        seen.says("From step 2 on: trainers.labs.publish = 25")
        seen.says("At step 3 of 6, seed 5")
        assert seen.page.get_by_label("seed (applied on Reset)").input_value() == "5"
        seen.says("The address turns a knob (1:7:1): write step:number:position")
        seen.says("Its first documents")
        assert named(seen) == {"step": "3", "seed": "5", "turn": "2:0:25", "panel": "reading"}
        seen.page.close()


def test_what_has_nothing_to_show_is_not_there(browser, scenario, tmp_path):  # noqa: F811
    world = ecosystem.Scenario.load(scenario)
    bare = world.override({"trainers.labs.select": [], "curators.editors.reviews": 0, "steps": 1})
    (tmp_path / "texts").symlink_to(scenario.parent / "texts")
    text = bare.to_toml().replace("[curators.editors]", "[curators.others]")
    (tmp_path / "bare.toml").write_text(text, encoding="utf-8")
    run = ecosystem.run(tmp_path / "bare.toml", out=tmp_path)
    with served(run.path) as (address, _):
        seen = Seen(browser, address)
        words = seen.page.locator("body").inner_text()
        for absent in ("Use Threads", "Render Interval", "Model Parameters", "Knobs", "On Reset", "Ledger"):
            assert absent not in words
        panels = {panel.get_attribute("data-panel") for panel in seen.page.locator("[data-panel]").all()}
        assert panels == {"web", "contamination", "quality", "diversity", "columns", "reading", "preview"}
        tops = [box["y"] for box in (s.bounding_box() for s in seen.page.locator(".eco-bar .v-select").all()) if box]
        assert len(tops) == 3 and max(tops) - min(tops) < 2  # selectors are in one row
        seen.page.close()


def test_a_story_is_followed_by_hand(browser, cache, monkeypatch):  # noqa: F811
    monkeypatch.setenv("ECOSYSTEM_CACHE", str(cache))
    with served("--story", "filters", "--threads", "1") as (address, _):
        seen = Seen(browser, address)
        seen.says("A filter that helps, and one that harms · scene 1 of 3")
        assert seen.page.get_by_role("button", name=re.compile("^What came out")).is_disabled()
        for step in (1, 2, 3):
            seen.press("Step")
            seen.drawn(step)
        seen.press("What came out")
        seen.says("More than half, and it grows towards three quarters")
        seen.page.get_by_text("synthetic share of labs at step 3").first.wait_for(timeout=WAIT)
        seen.press("Next scene")
        seen.press("Fork here (step 3)")
        seen.says("Second: filters, seed 1")
        seen.page.locator("nav .v-select", has_text="filter of the laboratories").click()
        seen.page.get_by_role("option", name="detector").click()
        seen.says('From step 4 on: trainers.labs.select = ["detector", "sample"]')
        seen.says(re.compile("^machine text that the detector finds"))  # a knob that has an effect from now on
        for step in (4, 5, 6, 7):
            seen.press("Step")
            seen.drawn(step)
        seen.press("What came out")
        seen.says("Yes. Machine text is less than half of the training sets in the second world")
        outcomes = seen.page.locator(".eco-guide .eco-true")
        outcomes.nth(3).wait_for(timeout=WAIT)
        assert seen.page.locator(".eco-guide .eco-false, .eco-guide .eco-none").count() == 0
        assert named(seen)["scene"] == "2" and not seen.failed
        seen.page.close()
