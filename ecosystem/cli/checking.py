"""The command that validates files and verifies stored runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ecosystem.cli.options import (
    EVERY_STEP,
    SET,
    VARIANT,
    ScenarioPlace,
    read_scenario,
    read_values,
    run_folder,
    shown_as,
)

if TYPE_CHECKING:
    from ecosystem.scenario.presets import FileKind
    from ecosystem.scenario.scenario import Scenario


@click.command()
@click.argument("files", nargs=-1, required=True, type=ScenarioPlace(runs=True))
@VARIANT
@SET
def check(files: tuple[Path | str, ...], variant: str | None, settings: tuple[str, ...]) -> None:
    """Validate files, or verify stored runs.

    FILES are scenario, study, frontier, fit and story files, which are validated but not run, and run folders, or their
    URLs in an object store, in which every file is compared with its recorded hash; the Merkle root, by which a run is
    cited (`ecosystem cite`), is printed. Files that a scenario names (documents, graphs, checkpoints) must exist and be
    readable. Small files of documents are read and counted. --set applies to scenarios, studies, frontiers and fits,
    --variant to scenarios.
    """
    from ecosystem.errors import EcosystemError

    values, problems = read_values(settings), []
    for file in files:
        try:
            for line in _lines(file, variant, settings, values):
                click.echo(f"{file}: {line}")
        except EcosystemError as error:
            problems.append(str(error))
    if problems:
        raise EcosystemError("\n".join(problems))


def _lines(file: Path | str, variant: str | None, settings: tuple[str, ...], values: Mapping[str, Any]) -> list[str]:
    from ecosystem.input_files import is_folder

    folder = run_folder(file, EVERY_STEP)
    with shown_as(file):
        return _run(folder, variant, values) if is_folder(folder) else _file(folder, variant, settings)


def _run(folder: Path, variant: str | None, values: Mapping[str, Any]) -> list[str]:
    """Return a summary of an intact run folder, and notes; raise EcosystemError otherwise."""
    from ecosystem.errors import ScenarioError
    from ecosystem.runs.citation import root
    from ecosystem.runs.run import Run

    if variant or values:
        raise ScenarioError(f"{folder}: is a run folder; --set and --variant apply to files.")
    run = Run.open(folder)
    count = run.verify()
    intact = f"intact (steps 0 to {run.last_step}, {count} files match their hashes)"
    return [intact, f"Merkle root {root(run)}", *(f"note: {note}" for note in run.notes())]


def _file(file: Path, variant: str | None, settings: tuple[str, ...]) -> list[str]:
    """Return a summary of a valid file, and notes; raise EcosystemError otherwise."""
    from ecosystem.errors import DataError, EcosystemError
    from ecosystem.placement.spec import IGNORED_BY_STUDIES
    from ecosystem.scenario.consistency import unused_settings
    from ecosystem.scenario.extending import read_file
    from ecosystem.scenario.inputs import (
        OpenedSources,
        downloads,
        initial_documents,
        quick_to_count,
        require_inputs,
        shortage,
    )
    from ecosystem.scenario.presets import file_kind

    data = read_file(file)
    kind = file_kind(data)
    if kind == "scenario":
        scenario, base = read_scenario(file, variant, settings, None, None, data), file.parent
        summary, scenarios = _summary(scenario), [scenario]
        placed = scenario.placement
        if placed is not None and (problem := placed.problem(scenario.models, placed)):
            raise EcosystemError(f"{file}: {problem}")
    else:
        summary, scenarios, base = _question(file, kind, variant, read_values(settings))
    require_inputs(scenarios, base, str(file))
    notes = dict.fromkeys(note for s in scenarios for note in [*unused_settings(s), *downloads(s, base)])
    notes |= dict.fromkeys(note for s in scenarios for note in _too_large(s, base))
    if kind != "scenario" and any(s.placement is not None for s in scenarios):
        notes[IGNORED_BY_STUDIES] = None
    try:
        counted = [s for s in _distinct(scenarios) if quick_to_count(s, base)]
        documents = [initial_documents(s, OpenedSources(s, base)) for s in counted]
        notes |= dict.fromkeys(note for s, n in zip(counted, documents, strict=True) for note in shortage(s, n))
    except DataError as error:
        raise DataError(f"{file}: {error}") from None
    return [f"valid ({summary})", *(f"note: {note}" for note in notes)]


def _too_large(scenario: Scenario, base: Path) -> list[str]:
    """Return a sentence if a scenario fits neither memory nor disk of this machine, even in small parts."""
    from ecosystem.interpreter import cores
    from ecosystem.runs.planning.memory import resources

    if scenario.placement is not None and scenario.placement.engine == "ray":
        return []  # the memory is that of other machines
    problem = resources(scenario, Path(), threads=cores(), base=base).problem()
    return [f"on a CPU of this machine, {problem.removesuffix('.')}"] if problem else []


def _distinct(scenarios: list[Scenario]) -> list[Scenario]:
    """Return one of all scenarios that begin with the same documents."""
    return list({repr((s.sources, s.web.initial)): s for s in scenarios}.values())


def _summary(scenario: Scenario) -> str:
    from ecosystem.formats import counted

    trainers = sum(trainer.count for trainer in scenario.trainers.values())
    placed = "" if scenario.placement is None else f"; {scenario.placement.described()}"
    calendar = scenario.calendar
    dates = "" if calendar is None else f" of {calendar.step} ({calendar.span(0, scenario.steps)})"
    return f"{counted(scenario.steps, 'step')}{dates}, {counted(trainers, 'trainer')}{placed}"


def _question(
    file: Path, kind: FileKind, variant: str | None, values: Mapping[str, Any]
) -> tuple[str, list[Scenario], Path]:
    """Return the summary, the scenarios and the folder of a study, frontier, fit or story file."""
    from ecosystem.errors import ScenarioError
    from ecosystem.fitting.spec.fit import Fit
    from ecosystem.formats import counted
    from ecosystem.studies.spec.frontier import Frontier
    from ecosystem.studies.spec.study import Study

    if variant:
        raise ScenarioError(f'{file}: is a {kind}; name the variant in the file (variant = "{variant}").')
    if kind == "fit":
        return Fit.load(file).with_settings(values).check(file.parent)
    if kind == "story":
        if values:
            raise ScenarioError(f"{file}: is a story; --set applies to scenarios, studies, frontiers and fits.")
        from ecosystem.app.teaching.story import load

        staged = load(file)
        return counted(len(staged.story.scenes), "scene"), [staged.scenario], staged.base
    question = (Study if kind == "study" else Frontier).load(file).with_settings(values)
    return question.check(file.parent)
