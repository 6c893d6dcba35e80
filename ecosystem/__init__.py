"""Simulate model collapse: trainers, writers and curators share one web of documents.

The public names are imported on first use, so that ``import ecosystem`` is fast::

    scenario = ecosystem.Scenario.load("scenarios/finite_web.toml").override({"steps": 3})
    run = ecosystem.run(scenario, seed=1, out="outputs")
    run.metrics, run.documents, run.ledger, run.model("naive/0", step=3)
    other = ecosystem.branch(run, 2, {"trainers.naive.publish": 0})
    result = ecosystem.study("scenarios/studies/monoculture.toml")
    result.results.values, result.effects, result.report
    threshold, report = ecosystem.frontier("scenarios/studies/seddik_real.toml")
    fitted = ecosystem.fit("scenarios/fits/mixed_loop.toml")
    fitted.results.parameter_table, fitted.results.samples, fitted.report

Errors that the user can correct are raised as ``ecosystem.EcosystemError``; the message says what to do.
"""

import typing
from importlib import import_module

from ecosystem.version import __version__ as __version__

__all__ = [
    "EcosystemError",
    "Fit",
    "FitResult",
    "Frontier",
    "FrontierResult",
    "Report",
    "Run",
    "Scenario",
    "Study",
    "StudyResult",
    "World",
    "branch",
    "fit",
    "frontier",
    "load_plugin",
    "run",
    "study",
    "view",
]

_HOME = {
    "EcosystemError": "ecosystem.errors",
    "Fit": "ecosystem.fitting.spec.fit",
    "FitResult": "ecosystem.fitting.run_fit",
    "Frontier": "ecosystem.studies.spec.frontier",
    "FrontierResult": "ecosystem.studies.frontier_result",
    "Report": "ecosystem.notebook.stored_report",
    "Run": "ecosystem.notebook.run",
    "Scenario": "ecosystem.scenario.scenario",
    "Study": "ecosystem.studies.spec.study",
    "StudyResult": "ecosystem.studies.study_result",
    "World": "ecosystem.simulation.world",
    "branch": "ecosystem.api",
    "fit": "ecosystem.fitting.run_fit",
    "frontier": "ecosystem.studies.frontier",
    "load_plugin": "ecosystem.plugins",
    "run": "ecosystem.api",
    "study": "ecosystem.studies.run_study",
    "view": "ecosystem.app.notebook",
}

if typing.TYPE_CHECKING:  # the types of what ``__getattr__`` returns
    from ecosystem.api import branch, run
    from ecosystem.app.notebook import view
    from ecosystem.errors import EcosystemError
    from ecosystem.fitting.run_fit import FitResult, fit
    from ecosystem.fitting.spec.fit import Fit
    from ecosystem.notebook.run import Run
    from ecosystem.notebook.stored_report import Report
    from ecosystem.plugins import load_plugin
    from ecosystem.scenario.scenario import Scenario
    from ecosystem.simulation.world import World
    from ecosystem.studies.frontier import frontier
    from ecosystem.studies.frontier_result import FrontierResult
    from ecosystem.studies.run_study import study
    from ecosystem.studies.spec.frontier import Frontier
    from ecosystem.studies.spec.study import Study
    from ecosystem.studies.study_result import StudyResult
else:

    def __getattr__(name: str) -> typing.Any:
        if name not in _HOME:
            raise AttributeError(f"module 'ecosystem' has no attribute {name!r}")
        return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
