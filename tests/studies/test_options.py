"""Options of execution."""

from __future__ import annotations

import pytest

from ecosystem.errors import EcosystemError
from ecosystem.studies.executors.options import ExecutionOptions


@pytest.mark.parametrize(
    ("engine", "options", "why"),
    [
        ("processes", {"jobs": 0}, "--jobs: give a whole number of at least 1, not 0"),
        ("serial", {"jobs": 2}, "one run at a time"),
        ("processes", {"gpus": 0.5}, "belong to --engine ray"),
        ("serial", {"address": "auto"}, "belong to --engine ray"),
    ],
)
def test_options_that_contradict_each_other_are_told(engine, options, why):
    with pytest.raises(EcosystemError, match=why):
        ExecutionOptions(engine, **options)
