"""Calendars, durations, rates and dates as fields of frozen values, and curves in time."""

from __future__ import annotations

import math
import pickle
from datetime import date
from typing import Any

import numpy as np
import pytest
from pydantic import Field, ValidationError

from ecosystem.calendar import Calendar, Duration, step_name
from ecosystem.curves import Curve, RateOverTime, ShareCurve
from ecosystem.spec import Spec, explain
from ecosystem.times import (
    Delay,
    Instant,
    Moment,
    PerStep,
    Steps,
    WholePerStep,
    WholeSteps,
    as_written,
    time_context,
)

MONTHLY = Calendar.of(date(2022, 6, 1), "1 month")
WEEKLY = Calendar.of("2022-06-01", "1 week")


class Part(Spec):
    """A value with a field of every type of time."""

    life: Steps = 2.0
    every: WholeSteps = 1
    lag: Delay = 0
    rate: PerStep = 5.0
    publish: WholePerStep = 100
    at: Moment | None = None
    when: Instant | None = None
    share: ShareCurve | None = None
    births: RateOverTime | None = None
    checks: list[Moment] = Field([])


def part(calendar: Calendar | None = MONTHLY, steps: int | None = 51, **values: Any) -> Part:
    return Part.model_validate(values, context={"calendar": calendar, "steps": steps})


def refusal(calendar: Calendar | None = MONTHLY, steps: int | None = 51, **values: Any) -> str:
    with pytest.raises(ValidationError) as error:
        part(calendar, steps, **values)
    return "\n".join(explain(error.value, "part", Part))


def test_steps_of_months_keep_the_day_or_the_end_of_the_month() -> None:
    calendar = Calendar.of("2023-01-31", "1 month")
    assert [calendar.date_of(t).isoformat() for t in (0, 1, 2, 13, -1)] == [
        "2023-01-31",
        "2023-02-28",
        "2023-03-31",
        "2024-02-29",
        "2022-12-31",
    ]
    assert Calendar.of("2022-06-01", "1 quarter").date_of(3) == date(2023, 3, 1)
    assert WEEKLY.date_of(3) == date(2022, 6, 22)
    assert Calendar.of("2020-02-29", "1 year").date_of(1) == date(2021, 2, 28)


@pytest.mark.parametrize("length", ["1 day", "2 weeks", "1 month", "1 quarter", "3 years"])
def test_the_position_of_the_date_of_a_step_is_the_step(length: str) -> None:
    calendar = Calendar.of("2024-01-31", length)
    for t in range(-30, 60):
        assert calendar.position(calendar.date_of(t)) == t
        assert calendar.step_of(calendar.date_of(t)) == t


def test_positions_between_steps_are_by_days() -> None:
    assert MONTHLY.position(date(2022, 6, 16)) == 0.5
    assert MONTHLY.position(date(2022, 5, 1)) == -1
    positions = [MONTHLY.position(date.fromordinal(date(2022, 6, 1).toordinal() + d)) for d in range(800)]
    assert np.all(np.diff(positions) > 0)


def test_durations_and_rates_are_numbers_in_steps() -> None:
    monthly = part(life="14.5 years", every="1 quarter", lag="0 months", rate="40 per month", publish="1200 per year")
    assert (monthly.life, monthly.every, monthly.lag, monthly.rate, monthly.publish) == (174, 3, 0, 40, 100)
    weekly = part(WEEKLY, life="18 months", every="14 days", rate="40 per month", publish="3 per 1 week")
    assert weekly.life == pytest.approx(18 * 30.4375 / 7, rel=1e-12)
    assert (weekly.every, weekly.publish) == (2, 3)
    assert weekly.rate == pytest.approx(40 * 7 / 30.4375, rel=1e-12)
    assert part(Calendar.of("2022-06-01", "2 years"), every="6 years", rate="1 per day").rate == 730.5


def test_moments_are_steps_by_date_or_time_after_the_opening() -> None:
    value = part(at=date(2024, 3, 1), when=date(2022, 11, 16), checks=["2022-07-01", "6 months", 3])
    assert value.at == 21
    assert value.when == 5.5
    assert value.checks == [1, 6, 3]


def test_values_are_written_as_they_were_and_mean_the_same_again() -> None:
    values = {
        "life": "18 months", "rate": "40 per month", "publish": "100 per month", "at": date(2024, 3, 1),
        "checks": ["6 months", 3],
        "share": {"law": "saturating", "limit": 0.5, "time": "0.83 years", "from": date(2022, 11, 30)},
        "births": "2 per month",
    }  # fmt: skip
    value = part(**values)
    plain = value.plain()
    assert plain["life"] == "18 months"
    assert plain["at"] == "2024-03-01"
    assert plain["checks"] == ["6 months", 3]
    assert plain["births"] == "2 per month"
    assert plain["share"] == {"law": "saturating", "limit": 0.5, "time": "0.83 years", "from": "2022-11-30"}
    assert part(**plain) == value
    assert part(**plain).plain() == plain
    assert pickle.loads(pickle.dumps(value)).plain() == plain
    assert as_written(value.every) == 1
    assert part(Calendar.of("2022-06-01", "1 quarter"), life=value.life).life == 6  # resolved anew
    assert part(life=3).plain()["life"] == 3.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"life": "6 mnths"}, 'part.life: "6 mnths": unknown unit "mnths" (did you mean "month"?); the units are day, '
         "week, month, quarter, year"),
        ({"every": "6 weeks"}, 'part.every: "6 weeks" is 1.3799 steps (a step is 1 month), but a whole number is '
         'needed; the nearest are 1 ("1 month") and 2 ("2 months")'),
        ({"publish": "100 per week"}, 'part.publish: "100 per week" is 434.821 a step (a step is 1 month), but a whole '
         "number is needed; the nearest are 434 and 435"),
        ({"every": "0 months"}, 'part.every: "0 months" is 0 steps, which must be greater than 0'),
        ({"at": date(2022, 6, 1)}, "part.at: 2022-06-01 is step 0, which must be greater than 0"),
        ({"at": date(2022, 6, 20)}, "part.at: 2022-06-20 is between step 0 (2022-06-01) and step 1 (2022-07-01); give "
         "the date of a step"),
        ({"at": "2022-02-30"}, 'part.at: "2022-02-30" is no date of the calendar'),
        ({"life": date(2022, 6, 1)}, 'part.life: must be a number of steps or a duration, such as "6 '
         'months", not 2022-06-01'),
        ({"life": "3 per month"}, 'part.life: must be a number of steps or a duration, such as "6 '
         'months", not "3 per month"'),
        ({"rate": "3 months"}, 'part.rate: must be a number or a rate, such as "40 per month", not "3 months"'),
        ({"rate": "3 per 0 months"}, 'part.rate: "3 per 0 months": the time after "per" must be greater than 0'),
        ({"every": "often"}, "part.every: must be a whole number, not 'often'"),
        ({"every": True}, "part.every: must be a whole number, not true"),
    ],
)  # fmt: skip
def test_other_values_are_refused_with_a_sentence(values: dict[str, Any], expected: str) -> None:
    assert refusal(**values) == expected


def test_durations_need_a_calendar() -> None:
    assert refusal(None, life="6 months") == (
        'part.life: "6 months" needs a calendar, and the scenario has none; give a number of steps, or set start and '
        'step at the top of the file, such as start = 2022-06-01 and step = "1 month"'
    )
    assert refusal(None, at=date(2022, 7, 1)).startswith("part.at: 2022-07-01 needs a calendar")
    assert part(None, life=3.5).life == 3.5


def test_the_context_of_a_file() -> None:
    context = time_context({"start": date(2022, 6, 1), "step": "1 month", "steps": "4 years"})
    assert context == {"calendar": MONTHLY, "steps": 48}
    assert time_context({"steps": 5}) == {"calendar": None, "steps": 5}
    for values, expected in (
        ({"start": date(2022, 6, 1)}, "step: is missing, but start is set"),
        ({"step": "1 month"}, "start: is missing"),
        ({"start": 3, "step": "1 month"}, "start: must be a date"),
        ({"start": date(2022, 6, 1), "step": "1.5 months"}, "step: must be a whole number of units"),
        ({"start": date(2022, 6, 1), "step": "month"}, 'step: "month" is no duration'),
        ({"start": date(2022, 6, 1), "step": "1 year", "steps": 10**6}, "steps: step 1000000 is outside the years"),
    ):
        with pytest.raises(ValueError, match=expected.replace('"', ".")):
            time_context(values)


def test_steps_in_sentences() -> None:
    assert step_name(12, MONTHLY) == "step 12 (June 2023)"
    assert step_name(2, WEEKLY) == "step 2 (2022-06-15)"
    assert step_name(3, None) == "step 3"
    assert step_name(10**6, MONTHLY) == "step 1000000"  # in a year that calendars do not have
    assert str(Duration.parse("1.0 months")) == "1 month"


def curve(calendar: Calendar | None = MONTHLY, **values: Any) -> Curve:
    return Curve.model_validate(values, context={"calendar": calendar, "steps": 51})


def test_curves_follow_their_laws() -> None:
    saturating = curve(law="saturating", limit=0.52, time="10 months", base=0.02, **{"from": date(2022, 12, 1)})
    for t in (-3.0, 0.0, 6.0, 7.5, 16.0, 600.0):
        expected = 0.02 + 0.5 * (1 - math.exp(-(t - 6) / 10)) if t > 6 else 0.02
        assert saturating.at(t) == pytest.approx(expected, abs=1e-14)
    logistic = curve(None, law="logistic", limit=1.0, midpoint=20, time=5)
    for t in (-1e6, 0.0, 20.0, 23.0, 1e6):
        assert logistic.at(t) == pytest.approx(1 / (1 + math.exp(min(-(t - 20) / 5, 700))), abs=1e-14)
    points = curve(law="points", points=[[date(2022, 6, 16), 0.0], [date(2022, 8, 1), 0.3]])
    assert [points.at(t) for t in (0, 0.5, 1.25, 2, 9)] == pytest.approx([0, 0, 0.15, 0.3, 0.3])
    number = Curve.model_validate(0.3)
    assert (number.at(0), number.at(99), number.model_dump()) == (0.3, 0.3, 0.3)
    assert part(births={"law": "logistic", "limit": "24 per year", "midpoint": 3, "time": 1}).births.limit == 2  # type: ignore[union-attr]


def test_curves_stay_within_limits_at_all_steps_of_the_run() -> None:
    growing = {"law": "saturating", "limit": 1.5, "time": 100, "from": 0}
    assert part(steps=51, share=growing).share is not None
    assert refusal(steps=200, share=growing) == (
        "part.share: must be at most 1 at all times, but reaches 1.297 within the 200 steps of the run"
    )
    assert refusal(share=1.2) == "part.share: must be at most 1, not 1.2"
    assert refusal(share={"law": "points", "points": [[1, 0.5], [5, 1.2], [7, 0]]}).endswith(
        "reaches 1.2 within the 51 steps of the run"
    )
    assert refusal(births=-1).startswith("part.births: must be at least 0")


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        ({"law": "saturating", "limit": 1}, 'part.share.time: is required for law = "saturating"'),
        ({"law": "points", "points": [[1, 0.5]], "limit": 1}, 'part.share.limit: has no meaning for law = "points"'),
        ({"law": "points", "points": [[3, 0.5], [1, 0.2]]}, "part.share.points: give one or more"),
        ({"law": "points", "points": [[3]]}, "part.share.points.0.1: this key is required"),
        ("half", "part.share: must be a number, or a table with a law, not 'half'"),
        ({"law": "linear"}, "part.share.law: must be"),
        ({"limits": 1}, 'part.share.limits: unknown key (did you mean "limit"?)'),
    ],
)
def test_incomplete_curves_are_refused(share: Any, expected: str) -> None:
    assert expected in refusal(share=share)
