"""Audit policies on texts in plain files: which documents each refuses and why, and how well it tells origins apart.

Without labels, only survival and reasons are known. With a column of labels, a refusal counts as a detection of
synthetic text, as in the audit of a run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from pydantic import ValidationError

from ecosystem.beginning.sourcing import ChosenSource, choose_source
from ecosystem.corpus.features import features
from ecosystem.errors import DataError, EcosystemError, ScenarioError, nearest
from ecosystem.input_files import InputFiles
from ecosystem.parsing import parse_json
from ecosystem.policies.base import POLICIES, Adder, Context, Filter, Policy, Weigher, gate
from ecosystem.policies.duplicates import NearDuplicates
from ecosystem.runs.audit import COLUMNS, proportion, score
from ecosystem.sources.files import FileSource, tidy
from ecosystem.spec import explain, set_path
from ecosystem.streams import Streams

LABEL = "synthetic"  # the column of labels that is read if it is there
_LABELS = {
    **dict.fromkeys(("synthetic", "machine", "generated", "ai", "model", "true", "1"), True),
    **dict.fromkeys(("human", "real", "people", "person", "original", "false", "0"), False),
}
_REASONS = 20  # most frequent ones of a policy that are listed


class _Documents:
    """The texts as a web that policies see: by id, all of them live."""

    def __init__(self, texts: pl.Series) -> None:
        self.texts = texts
        self._near: dict[tuple[int, int, float], NearDuplicates] = {}

    def contents(self, docs: pl.Series) -> pl.Series:
        """Return texts by id."""
        return self.texts.gather(docs).alias("content")

    def live(self) -> pl.Series:
        """Return all ids."""
        return pl.Series("doc", np.arange(self.texts.len()))

    def near_duplicates(self, num_perm: int, shingle: int, threshold: float, docs: pl.Series) -> pl.Series:
        """Return the earliest near-duplicate of each document in the order of the files, or null."""
        key = num_perm, shingle, threshold
        if key not in self._near:
            self._near[key] = NearDuplicates(*key)
            self._near[key].add(np.arange(self.texts.len()), self.texts)
        return self._near[key].earliest(docs)

    def held_out_overlaps(self, words: int, docs: pl.Series) -> pl.Series:
        """Raise EcosystemError: there is no held-out text."""
        raise _Missing("held-out documents")

    def label_is_correct(self, docs: pl.Series) -> Any:
        """Raise EcosystemError: texts have no labels that are right or wrong."""
        raise _Missing("labelled vectors")


class _Missing(EcosystemError):
    """What a policy needs and plain files lack."""


class _Absent:
    """A view of what plain files do not have; every question to it raises EcosystemError."""

    def __init__(self, what: str) -> None:
        self._what = what

    def __getattr__(self, name: str) -> Any:
        raise _Missing(self._what)


class PlainDocuments:
    """The documents of plain files: texts, and perhaps whether each is synthetic."""

    def __init__(self, place: Path, column: str | None = None, label: str | None = None) -> None:
        """Read a file or folder; ``column`` names the texts, ``label`` the labels (absent: "synthetic", if there).

        Raises DataError if it cannot be read, or a label is unknown.
        """
        chosen = choose_source(place, Path(), column)
        texts = [tidy(text) if text is not None else "" for text in chosen.texts()]
        labels = _labels(chosen, label, len(texts))
        kept = [number for number, text in enumerate(texts) if text]
        if not kept:
            raise DataError(f"{place}: contains no text; give files that do.")
        self.place, self.notes, self.empty = place, chosen.notes, len(texts) - len(kept)
        self.texts = pl.Series("content", [texts[number] for number in kept])
        self.synthetic = None if labels is None else pl.Series("synthetic", [labels[number] for number in kept])

    @cached_property
    def table(self) -> pl.DataFrame:
        """The documents with the columns that policies read; without labels all count as human."""
        ids = pl.Series("doc", np.arange(self.texts.len()))
        synthetic = self.synthetic if self.synthetic is not None else pl.repeat(False, ids.len(), eager=True)
        table = features(self.texts).with_columns(
            ids,
            t=pl.lit(0, pl.Int32),
            site=pl.lit(0, pl.Int32),
            weight=pl.lit(1.0),
            retired_at=pl.lit(None, pl.Int32),
            author=pl.lit("file"),
            synthetic=synthetic,
            depth=synthetic.cast(pl.Float64),
        )
        first = pl.col("doc").min().over("content_hash")
        return table.with_columns(duplicate_of=pl.when(first < pl.col("doc")).then(first))


def audit_files(documents: PlainDocuments, names: Sequence[str], values: Mapping[str, Any]) -> pl.DataFrame:
    """Apply policies, each by itself; return a table of COLUMNS with the counts of reasons as ``by`` = reason.

    ``names`` are kinds of policies, with their defaults; ``values`` set dotted paths below ``policies``. Raises
    ScenarioError for a policy that is invalid, and EcosystemError for one that needs more than texts.
    """
    policies = _policies(names, values)
    web = _Documents(documents.texts)
    tables = [_audited(name, policy, documents, web) for name, policy in policies.items()]
    return pl.concat(tables)


def _audited(name: str, policy: Policy, documents: PlainDocuments, web: _Documents) -> pl.DataFrame:
    if isinstance(policy, Adder) or (policy.oracle and documents.synthetic is None):
        missing = "a source of real documents" if isinstance(policy, Adder) else "the origins of documents (--label)"
        raise _refused(name, policy, missing)
    try:
        table = gate(documents.table, [(name, policy)], _contexts(web))
    except _Missing as error:
        raise _refused(name, policy, str(error)) from None
    table = table if "injected_from" in table.columns else table.with_columns(injected_from=pl.lit(None, pl.String))
    scored = score(policy, name, 0, table)
    if documents.synthetic is None:
        unknown = ("recall", "false_positive_rate", "precision")
        scored = scored.filter((pl.col("by") == "all") & ~pl.col("measure").is_in(unknown))
    else:
        scored = scored.filter(pl.col("by").is_in(["all", "origin"]))
    return pl.concat([scored, _reasons(table, name, policy)])


def _refused(name: str, policy: Policy, missing: str) -> EcosystemError:
    return EcosystemError(
        f"policies.{name}: a policy of kind {policy.kind} needs {missing}, which plain files do not have; audit a "
        "stored run, or run a scenario with these texts (ecosystem new)."
    )


def _contexts(web: _Documents) -> Callable[[str], Context]:
    streams = Streams(1)

    def context(name: str) -> Context:
        return Context(
            policy=name,
            reader="web",
            t=0,
            stream=streams.at(f"policy/{name}"),
            static_stream=streams.at(f"policy/{name}/static"),
            corpus=web,
            sources=_Absent("a source of real documents"),
            models=_Absent("a model"),
            classifiers=_Absent("a classifier that has learnt during a run"),
            report_shortfall=lambda wanted, given: None,
            refused_by=_refused_by,
            truth=web,
        )

    return context


def _refused_by(policy: str, docs: pl.Series) -> Any:
    raise _Missing("other policies of a scenario")


def _reasons(table: pl.DataFrame, name: str, policy: Policy) -> pl.DataFrame:
    """Return how many documents were refused for each reason, numbers in it left out; the most frequent first."""
    reason = pl.col("reason").str.replace_all(r"\d[\d.,]*", "…")
    counts = table.filter(pl.col("verdict").is_not_null()).select(reason).to_series().value_counts(sort=True)
    rows = [
        {"policy": name, "kind": policy.kind, "step": 0, "by": "reason", "group": why, "measure": measure, **figure}
        for why, count in counts.head(_REASONS).iter_rows()
        for measure, figure in (("documents", {"value": count}), ("share", proportion(count, table.height)))
    ]
    return pl.DataFrame(rows, schema=COLUMNS)


def _policies(names: Sequence[str], values: Mapping[str, Any]) -> dict[str, Policy]:
    """Return policies by name: kinds with their defaults, and those that values define."""
    data: dict[str, Any] = {"policies": {name: {"kind": name} for name in names}}
    for path, value in values.items():
        if not path.startswith("policies."):
            raise ScenarioError(
                f'--set "{path}": an audit runs nothing, so only policies can be set (policies.NAME=…).'
            )
        data = set_path(data, path, value)
    if not data["policies"]:
        raise EcosystemError(
            "no policy is named: use --policy KIND, such as --policy gopher_quality, or --set policies.NAME={kind=…}."
        )
    return {name: _policy(name, fields) for name, fields in data["policies"].items()}


def _policy(name: str, fields: Any) -> Policy:
    where = f"policies.{name}"
    if not isinstance(fields, Mapping) or not isinstance(fields.get("kind"), str):
        raise ScenarioError(f"{where}: must be a table with a kind; available kinds: {', '.join(POLICIES.all())}.")
    cls = POLICIES.all().get(fields["kind"])
    if cls is None:
        known = POLICIES.all()
        raise ScenarioError(
            f'{where}: there is no policy of kind "{fields["kind"]}"{nearest(fields["kind"], known)}; available kinds: '
            f"{', '.join(known)}."
        )
    if not issubclass(cls, Filter | Weigher | Adder):
        raise ScenarioError(f"{where}: a policy of kind {fields['kind']} cannot be audited.")
    try:
        return cls.model_validate({key: value for key, value in fields.items() if key != "kind"})
    except ValidationError as error:
        raise ScenarioError("\n".join(f"{problem}." for problem in explain(error, where, cls))) from None


def _labels(chosen: ChosenSource, label: str | None, count: int) -> list[bool] | None:
    """Return whether each stored text is synthetic, or None if there are no labels."""
    source, name = chosen.source, label or LABEL
    if chosen.fields["kind"] == "text":
        if label is not None:
            raise DataError(f"--label {label}: {source.path} holds plain text, which has no columns; leave it out.")
        return None
    values = _column(source, name, chosen.base)
    if values is None:
        if label is not None:
            raise DataError(f'--label "{label}": {source.path} has no such column.')
        return None
    if len(values) != count:
        raise DataError(f"{source.path}: has {count:,} texts, but {len(values):,} labels; give one for each text.")
    labels = []
    for number, value in enumerate(values, 1):
        known = _LABELS.get(str(value).strip().lower())
        if known is None:
            raise DataError(
                f'{source.path}: the label "{value}" of text {number:,} (column "{name}") says neither synthetic nor '
                f"human; use one of {', '.join(_LABELS)}, or choose another column with --label."
            )
        labels.append(known)
    return labels


def _column(source: FileSource, name: str, base: Path) -> list[Any] | None:
    """Return the values of a column of all files in order; None if no file has it."""
    values: list[Any] = []
    found = False
    for file in source.files("texts", base):
        places = InputFiles("--label", "--label", base)
        with places.open(file) as stream:
            if source.kind == "parquet":
                frame = pl.read_parquet(stream.read())
                found = found or name in frame.columns
                values += frame[name].to_list() if name in frame.columns else [None] * frame.height
                continue
            for line in stream:
                if line.strip():
                    row = parse_json(line)
                    found = found or name in row
                    values.append(row.get(name))
    return values if found else None
