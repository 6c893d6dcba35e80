"""Scenarios with a calendar: settings in real time mean steps, stay as they were written, and give the same numbers."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from ecosystem.errors import ScenarioError
from ecosystem.runs.execute import begin
from ecosystem.runs.run import Run, folder_of
from ecosystem.scenario.consistency import unused_settings
from ecosystem.scenario.scenario import Scenario
from tests.conftest import MACHINE, tiny

MODEL = {"kind": "ngram", "order": 2, "vocabulary": 300, "context": 64, "init": "foundation"}
IN_STEPS: dict[str, Any] = {
    "models.tiny": MODEL,
    "steps": 6,
    "trainers.naive.publish": 12,
    "trainers.naive.scrape.docs": 30,
    "trainers.naive.scrape.strategy": "recent",
    "trainers.naive.scrape.half_life": 1.5,
    "trainers.careful.every": 3,
    "trainers.careful.offset": 1,
    "trainers.careful.lag": 1,
    "writers.people.rate": 3.0,
    "curators.editors.reviews": 20,
    "policies.window": {"kind": "window", "steps": 4},
    "web.retain": ["window"],
    "policies.fluent.high": 1e6,
    "measure.texts": ["distinct"],
    "changes": [{"at": 3, "set": {"trainers.naive.publish": 9}}],
}
IN_TIME: dict[str, Any] = {
    "start": date(2022, 6, 1),
    "step": "1 month",
    "steps": "6 months",
    "trainers.naive.publish": "144 per year",
    "trainers.naive.scrape.docs": "30 per month",
    "trainers.naive.scrape.half_life": "0.125 years",
    "trainers.careful.every": "1 quarter",
    "trainers.careful.offset": "1 month",
    "trainers.careful.lag": "1 month",
    "writers.people.rate": "9 per quarter",
    "curators.editors.reviews": "60 per 3 months",
    "policies.window": {"kind": "window", "steps": "4 months"},
    "changes": [{"at": date(2022, 9, 1), "set": {"trainers.naive.publish": "27 per quarter"}}],
}


def scenario(*layers: dict[str, Any], **more: Any) -> Scenario:
    values: dict[str, Any] = {}
    for layer in (IN_STEPS, *layers):
        values |= layer
    return tiny(**{path.replace(".", "__"): value for path, value in values.items()}, **more)


def test_settings_in_time_are_settings_in_steps() -> None:
    steps = scenario({"start": date(2022, 6, 1), "step": "1 month"})
    time = scenario(IN_TIME)
    for t in (1, 3):  # values compare as numbers in steps
        assert time.at(t).model_copy(update={"changes": []}) == steps.at(t).model_copy(update={"changes": []})
    assert time.at(3).trainers["naive"].publish == 9
    assert time.changes[0].at == steps.changes[0].at
    again = Scenario.parse(time.plain())
    assert again.plain() == time.plain()
    assert again.fingerprint() == time.fingerprint()
    assert time.plain()["trainers"]["naive"]["publish"] == "144 per year"
    assert time.plain()["changes"] == [{"at": "2022-09-01", "set": {"trainers.naive.publish": "27 per quarter"}}]


def test_a_rate_that_is_no_whole_number_is_refused_where_documents_are_counted() -> None:
    with pytest.raises(ScenarioError) as error:
        scenario(IN_TIME, {"curators.editors.reviews": "20 per week"})
    assert str(error.value) == (
        'curators.editors.reviews: "20 per week" is 86.9643 a step (a step is 1 month), but a whole number is needed; '
        "the nearest are 86 and 87."
    )


@pytest.mark.slow
def test_a_run_in_time_has_the_numbers_of_the_run_in_steps(tmp_path, cache) -> None:
    time = scenario(IN_TIME)
    tables = []
    for one in (scenario(), time):
        for _ in begin(one, out=tmp_path, machine=MACHINE, cache=cache):
            pass
        tables.append(Run.open(folder_of(one, tmp_path)).store)
    for name in ("metrics", "corpus"):
        first, second = (list(store.frames(name, range(7))) for store in tables)
        assert len(first) == len(second) > 0
        assert all(a.equals(b) for a, b in zip(first, second, strict=True))


def test_another_length_of_a_step_is_the_same_scenario_in_time() -> None:
    values = IN_TIME | {"writers.people.rate": "1 per day"}
    weekly = scenario(values | {
        "step": "1 quarter", "steps": "6 years", "trainers.careful.offset": 1, "trainers.careful.lag": "0 days",
        "policies.window.steps": "1 year", "policies.window": {"kind": "window", "steps": "1 year"},
    })  # fmt: skip
    trainer = weekly.trainers["naive"]
    assert (weekly.steps, trainer.publish, trainer.scrape.docs, trainer.scrape.half_life) == (24, 36, 90, 0.5)
    assert weekly.writers["people"].rate == pytest.approx(365.25 / 4)
    assert weekly.changes[0].at == 1
    assert weekly.at(1).trainers["naive"].publish == 27


def test_what_does_not_fit_another_step_is_refused_with_its_path() -> None:
    time = scenario(IN_TIME)
    with pytest.raises(ScenarioError) as error:
        time.override({"step": "2 weeks"})
    lines = str(error.value).splitlines()
    assert any(
        line.startswith('trainers.careful.every: "1 quarter" is 6.5223 steps (a step is 2 weeks)') for line in lines
    )
    assert any(line.startswith("changes.0.at: 2022-09-01 is between step 6 (2022-08-24) and step 7") for line in lines)
    assert any(line.startswith('policies.window.steps: "4 months" is 8.6964 steps') for line in lines)
    assert any(line.startswith('steps: "6 months" is 13.0446 steps') for line in lines)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"start": "soon", "step": "1 month"}, "start: must be a date, such as 2022-06-01, not 'soon'."),
        ({"start": date(2022, 6, 1)}, "step: is missing, but start is set"),
        ({"start": date(2022, 6, 1), "step": 1}, 'step: must be a duration in quotes, such as "1 month", not 1.'),
        ({"writers.people.rate": "3 per month"}, 'writers.people.rate: "3 per month" needs a calendar'),
        ({"changes": [{"at": date(2022, 7, 1), "set": {}}]}, "changes.0.at: 2022-07-01 needs a calendar"),
        (
            {"start": date(2022, 6, 1), "step": "1 year", "steps": 8000},
            "steps: step 8000 is outside the years 1000 to 9000.",
        ),
    ],
)
def test_calendars_that_say_nothing_are_refused(values: dict[str, Any], expected: str) -> None:
    with pytest.raises(ScenarioError) as error:
        scenario(values)
    assert str(error.value).startswith(expected)


def test_start_and_step_hold_for_the_whole_run() -> None:
    dated = {"start": date(2022, 6, 1), "step": "1 month"}
    with pytest.raises(ScenarioError, match=r'"step" cannot change inside a run'):
        Scenario.parse(scenario(dated).plain() | {"changes": [{"at": 2, "set": {"step": "1 week"}}]})
    with pytest.raises(ScenarioError, match=r'"start" cannot change inside a run'):
        scenario(dated).forked(2, {"start": "2023-06-01"})


def test_a_fork_keeps_dates_as_they_were_written() -> None:
    time = scenario(IN_TIME)
    fork = time.forked(1, {"writers.people.rate": "6 per month"})
    assert fork.plain()["changes"] == [
        {"at": "2022-09-01", "set": {"trainers.naive.publish": "27 per quarter"}},
        {"at": 2, "set": {"writers.people.rate": "6 per month"}},
    ]
    assert fork.at(2).writers["people"].rate == 6
    late = time.override({"changes": [{"at": "2 years", "set": {"trainers.naive.publish": 1}}]})
    assert unused_settings(late)[0] == ("the change at step 24 (June 2024) has no effect: the run has 6 steps")


def test_numbers_of_paths_are_in_steps() -> None:
    time = scenario(IN_TIME)
    assert time.number("trainers.naive.publish") == 12
    assert type(time.number("trainers.naive.publish")) is int
    assert time.number("changes.0.at") == 3
    assert time.number("trainers.naive.from") == time.value("trainers.naive.from")
    assert time.number("trainers.naive.nothing") is None
    assert time.rounded_like("trainers.naive.publish", 9.6) == 10
    assert time.rounded_like("writers.people.rate", 9.6) == 9.6
