"""Generate the reference pages of the site from the registries, the specs and the commands."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Iterator
from typing import Any, NamedTuple

import click
from pydantic import BaseModel

from docs.prose import code, line, markdown, table
from ecosystem import Frontier, Scenario, Study, input_files
from ecosystem.cli.listing import fields_of
from ecosystem.cli.main import cli
from ecosystem.corpus.schema import COLUMNS
from ecosystem.families.base import FAMILIES, Family
from ecosystem.fitting.spec.fit import Fit
from ecosystem.fitting.spec.priors import Beta, LogNormal, LogUniform, Normal, Uniform
from ecosystem.metrics import formulas
from ecosystem.metrics.base import TEXT_METRICS
from ecosystem.metrics.catalogue import definitions
from ecosystem.metrics.tasks import TASKS
from ecosystem.policies.base import POLICIES, Adder, Filter, Policy, Weigher
from ecosystem.scenario.presets import presets, with_preset
from ecosystem.sources.base import SOURCES, Source
from ecosystem.theory.laws import ARGUMENTS, QUANTITIES, Law, ScalingLaw, laws, scaling_laws

PAGE_OF_KINDS: dict[type, str] = {Source: "sources.md", Family: "models.md", Policy: "policies.md"}


def pages() -> dict[str, str]:
    """Return every page of the reference: path below docs → Markdown."""
    written = {
        "scenario": scenario(),
        "sources": sources(),
        "models": models(),
        "policies": policies(),
        "studies": studies(),
        "fits": fits(),
        "metrics": metrics(),
        "laws": closed_forms(),
        "commands": commands(),
    }
    return {f"reference/{name}.md": text for name, text in written.items()}


# Files


def scenario() -> str:
    """Describe every table and key of a scenario file."""
    about = (
        "A scenario is a TOML file. Replace names in capitals by names of your choice. An unknown key is an error. Any "
        "key can be set on the command line (`--set PATH=VALUE`)."
    )
    return _section(1, "Scenario files", about, *_tables(Scenario, "Top level"))


def studies() -> str:
    """Describe every table and key of study and frontier files."""
    about = (
        "A study compares arms of one scenario over the same seeds. A frontier looks for the value of one lever at "
        "which a measure crosses a limit. Both are TOML files."
    )
    files = [*_tables(Study, "A study file"), *_tables(Frontier, "A frontier file")]
    return _section(1, "Study and frontier files", about, *files)


def fits() -> str:
    """Describe every table and key of fit files, and the priors."""
    about = (
        "A fit names a scenario, its uncertain parameters and what was measured. [Fits](../fit.md) says how it works."
    )
    laws = {"uniform": Uniform, "log_uniform": LogUniform, "normal": Normal, "lognormal": LogNormal, "beta": Beta}
    priors = [part for name, law in laws.items() for part in _tables(law, f'A prior, law = "{name}"')]
    return _section(1, "Fit files", about, *_tables(Fit, "A fit file"), *priors)


def _tables(cls: type[BaseModel], heading: str, path: str = "", given: BaseModel | None = None) -> Iterator[str]:
    """Write the section of a table of a file, and after it those of the tables inside it."""
    inner = list(tables_in(cls, path))
    keys = {table.key for table in inner}
    rows = [row for row in fields_of(cls, given=given) if "." not in row[0] and row[0] not in keys]
    links = [
        [f"[{code(t.heading)}]({PAGE_OF_KINDS[t.spec]})" if t.spec in PAGE_OF_KINDS else code(t.heading), line(t.about)]
        for t in inner
    ]
    shown = [_fields(rows)] if rows else []
    shown += [table(["table", "what it is"], links)] if links else []
    yield _section(2, heading if heading[0] != "[" else code(heading), markdown(cls.__doc__ or ""), *shown)
    for one in inner:
        if one.spec not in PAGE_OF_KINDS:
            yield from _tables(one.spec, one.heading, one.path, one.default)


class Table(NamedTuple):
    """A table inside a table of a file: its key, dotted path, heading, spec and description, and its default."""

    key: str
    path: str
    heading: str
    spec: type[BaseModel]
    about: str
    default: BaseModel | None


def tables_in(cls: type[BaseModel], path: str = "") -> Iterator[Table]:
    """Find the tables inside the table at ``path`` of a file."""
    for name, field in cls.model_fields.items():
        found = _spec_in(field.annotation, "[{}]")
        if found is not None:
            key = field.alias or name
            below = ".".join(filter(None, [path, key])) + (".NAME" if found[0] == "[{}.NAME]" else "")
            heading = found[0].format(below.removesuffix(".NAME"))
            default = field.default if isinstance(field.default, BaseModel) else None
            yield Table(key, below, heading, found[1], field.description or inspect.getdoc(found[1]) or "", default)


def _spec_in(annotation: Any, shape: str) -> tuple[str, type[BaseModel]] | None:
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return shape, annotation
    shape = {dict: "[{}.NAME]", list: "[[{}]]"}.get(typing.get_origin(annotation) or object, shape)
    found = (_spec_in(argument, shape) for argument in typing.get_args(annotation))
    return next((one for one in found if one is not None), None)


# Kinds


def sources() -> str:
    """Describe every kind of source."""
    return _section(
        1,
        "Sources",
        "Where documents come from: tables `[sources.NAME]` with one of these kinds.",
        "## Files",
        inspect.getdoc(input_files).split("\n\n", 1)[1],
        *(_kind(name, cls, f"Documents: {cls.modality}.") for name, cls in SOURCES.all().items()),
    )


def models() -> str:
    """Describe every family of models and every preset."""
    return _section(
        1,
        "Models",
        "Models learn and generate documents: tables `[models.NAME]` with one of these kinds, or with a preset.",
        "## Presets",
        '`preset = "NAME"` stands for the kind and the fields of a file in `models/`; fields beside it replace the '
        "file's.",
        table(["preset", "kind", "parameters", "what it is"], [_preset(name) for name in presets()]),
        *(_kind(name, cls, f"Documents: {cls.modality}.") for name, cls in FAMILIES.all().items()),
    )


def _preset(name: str) -> list[str]:
    data = with_preset({"preset": name}, None)
    family = FAMILIES.get(data.pop("kind")).model_validate(data)
    about = [row.removeprefix("#").strip() for row in presets()[name].read_text().splitlines() if row.startswith("# ")]
    parameters = family.workload().parameters
    return [
        code(name),
        code(family.kind),
        f"{parameters:,}" if parameters else "those of its data",
        line(" ".join(about)),
    ]


def policies() -> str:
    """Describe every kind of policy."""
    parts = {
        Filter: "Filter: refuses documents.",
        Weigher: "Weigher: weighs documents.",
        Adder: "Adder: adds documents.",
    }
    return _section(
        1,
        "Policies",
        "Rules for documents at a gate: tables `[policies.NAME]` with one of these kinds, listed in order in "
        "`web.publish`, `web.retain`, and `select` and `retain` of trainers.",
        *(
            _kind(name, cls, next(said for base, said in parts.items() if issubclass(cls, base)) + _remarks(cls))
            for name, cls in POLICIES.all().items()
        ),
    )


def _remarks(cls: type[Policy]) -> str:
    remarks = [
        (cls.oracle, "Sees the truth (an oracle)."),
        (cls.reads_text, "For text only."),
        (cls.needs_labels, "For documents with labels only."),
        (not cls.row_wise, "A verdict may depend on the other documents at the gate."),
        (not cls.needs_content, "Can thin an archive."),
    ]
    return "".join(f" {said}" for holds, said in remarks if holds)


def _kind(name: str, cls: type[BaseModel], about: str) -> str:
    return _section(2, name, about, markdown(cls.__doc__ or ""), _fields(fields_of(cls)))


def _fields(rows: list[tuple[str, str, str, str]]) -> str:
    if not rows:
        return "No fields."
    return table(
        ["key", "type", "default", "what it is"],
        [[code(name), code(sort), code(default), line(about)] for name, sort, default, about in rows],
    )


# Numbers


def metrics() -> str:
    """Describe every metric: unit, direction under collapse, formula and source."""
    rows = [
        [
            code(name) + (f"<br>alias {code(d.alias)}" if d.alias else ""),
            line(d.text),
            f"{line(d.formula)}<br>*{line(d.source or 'this project')}*",
            line(d.unit) + (f"; {d.better} is better" if d.better else ""),
        ]
        for name, d in definitions().items()
    ]
    kinds = [_section(3, name, _documented(cls)) for name, cls in TEXT_METRICS.all().items()]
    return _section(
        1,
        "Metrics",
        "Every metric that a run may record. A unit of 1 marks a pure number. An alias is a more exact name, accepted "
        "wherever a metric is named; tables keep the short one.",
        markdown(inspect.getdoc(formulas).split("\n\n", 1)[1]),
        table(["metric", "what it is", "formula and *source*", "unit"], rows),
        "## How texts are measured",
        *kinds,
        "## Downstream tasks",
        table(["task", "what is asked"], [[code(name), line(cls.__doc__ or "")] for name, cls in TASKS.all().items()]),
    )


def _documented(cls: type[BaseModel]) -> str:
    return f"{markdown(cls.__doc__ or '')}\n\n{_fields(fields_of(cls))}"


def closed_forms() -> str:
    """Describe every law that a `[[theory]]` entry can name."""
    return _section(
        1,
        "Laws",
        "Closed forms that a `[[theory]]` entry can name. `t` is the generation; the other arguments are its "
        '`parameters`. "Unread" after a source marks a formula that was not taken from its text.',
        *(_law(name, law) for name, law in laws().items()),
        *(_scaling_law(name, law) for name, law in scaling_laws().items()),
    )


_ORIGIN = {
    "paper": "As its paper states it.",
    "derived": "Derived for this project, as a whole or in part.",
    "digest": "Taken from a summary of its paper or from memory, not from its text.",
}


def _law(name: str, law: Law) -> str:
    rows = [
        [
            code(p.name),
            code(str(p.annotation).replace("ArrayLike", "list")),
            code("required" if p.default is p.empty else p.default),
            line(ARGUMENTS[p.name]),
        ]
        for p in law.parameters
    ]
    arguments = table(["argument", "type", "default", "what it is"], rows)
    return _section(2, name, markdown(law.function.__doc__ or ""), _ORIGIN[law.source], arguments)


def _scaling_law(name: str, law: ScalingLaw) -> str:
    inputs = [[code(key), line(QUANTITIES[key])] for key in law.inputs]
    fitted = [[code(key), line(f"{u.low:g} to {u.high:g}"), line(u.text)] for key, u in law.unknowns.items()]
    return _section(
        2,
        name,
        "A scaling law, which the table `[fit]` of a study fits to its runs.",
        markdown(law.function.__doc__ or ""),
        _ORIGIN[law.source],
        table(["quantity", "what it is"], inputs),
        table(["fitted parameter", "range", "what it is"], fitted),
    )


def columns(name: str) -> str:
    """Describe the columns of a table of a run folder."""
    rows = [
        [code(column), code(about.dtype), line(about.unit), line(about.text)] for column, about in COLUMNS[name].items()
    ]
    return table(["column", "type", "unit", "what it holds"], rows)


# Commands


def commands() -> str:
    """Describe every command with its arguments and options."""
    return _section(
        1, "Commands", markdown(cli.help or ""), *(_command(name, cli.commands[name]) for name in cli.commands)
    )


def _command(name: str, command: click.Command) -> str:
    context = click.Context(command, info_name=f"ecosystem {name}")
    usage = " ".join([context.command_path, *command.collect_usage_pieces(context)])
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    rows = [[code(", ".join(o.opts)), code(_value(o, context)), _default(o), line(o.help or "")] for o in options]
    shown = table(["option", "value", "default", "what it does"], rows) if rows else ""
    return _section(2, f"ecosystem {name}", markdown(command.help or ""), f"```\n{usage}\n```", shown)


def _value(option: click.Option, context: click.Context) -> str:
    if option.is_flag:
        return "flag"
    if not isinstance(option.type, click.IntRange | click.FloatRange):
        return option.make_metavar(context)
    low, high = option.type.min, option.type.max
    limits = [f"{sign} {limit:g}" for sign, limit in ((">=", low), ("<=", high)) if limit is not None]
    return " ".join(["integer" if isinstance(option.type, click.IntRange) else "number", *limits])


def _default(option: click.Option) -> str:
    given = option.to_info_dict()["default"]
    return "" if given is None or given is False or given == () else code(given)


def _section(level: int, title: str, *parts: str) -> str:
    return "\n\n".join([f"{'#' * level} {title}", *filter(None, parts)])
