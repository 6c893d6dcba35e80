"""The data statement of a report: what each source of documents and each model is, how much was used, and its hash."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePath

import polars as pl

from ecosystem.cache import cache_folder, keep
from ecosystem.corpus.languages import languages
from ecosystem.families.base import Family
from ecosystem.formats import counted, percent
from ecosystem.report.data import RunReportData
from ecosystem.scenario.departures import Setting
from ecosystem.sources.base import EndlessSource, Source

SAMPLE = 200  # documents whose language is sought
LANGUAGES = 3  # named, at most
STEPS = 3  # among whose documents those of a source are sought, at most


@dataclass(frozen=True)
class Statement:
    """What is said of a source or model: its name, and facts by their labels."""

    name: str
    facts: Mapping[str, str]


@dataclass(frozen=True)
class DataStatement:
    """The statements about the data of a run. Files that cannot be read are not counted."""

    data: RunReportData

    def sources(self) -> list[Statement]:
        """Return what is known of each source, in the order of the scenario."""
        return [Statement(name, self._source(name, source)) for name, source in self.data.run.scenario.sources.items()]

    def _source(self, name: str, source: Source) -> dict[str, str]:
        recorded = self.data.run.environment["sources"].get(name, {})
        facts = {
            "What": source.description or "",
            "Kind": f"{source.kind}: {first_line(source)}",
            "From": without_folders(source.origin()),
            "Documents": _available(source, recorded.get("size")),
            "Published on the web": self._published.get(name, "none"),
            "Given to trainers by policies": self._injected.get(name, ""),
            "Language": self._language(name, source, str(recorded.get("digest", ""))),
            "Licence": _licence(source),
            "SHA-256": str(recorded.get("digest", "not recorded")),
        }
        return {label: fact for label, fact in facts.items() if fact}

    @cached_property
    def _published(self) -> dict[str, str]:
        """How many documents of each source are on the web, or were, and how many words they have."""
        human = pl.col("verdict").is_null() & pl.col("source").is_not_null()
        rows = self._counts("corpus", human, pl.col("words").sum())
        return {
            name: counted(documents, "document") + (f", {words:,} words" if words else "")
            for name, documents, words in rows.iter_rows()
        }

    @cached_property
    def _injected(self) -> dict[str, str]:
        """How often documents of each source were added to training sets, and how many different ones."""
        rows = self._counts("ledger", pl.col("source").is_not_null(), pl.col("document").n_unique())
        return {
            name: f"{counted(times, 'time')}, {counted(different, 'different document')}"
            for name, times, different in rows.iter_rows()
        }

    def _counts(self, table: str, which: pl.Expr, measure: pl.Expr) -> pl.DataFrame:
        """Return source, number of rows, and ``measure`` of the rows of a table; only the columns needed are read."""
        store = self.data.run.store
        files = [
            store.owning_store(commit.step).folder / file
            for commit in store.commits()
            for file in commit.table_files(table)
        ]
        try:
            rows = pl.scan_parquet(files, glob=False, missing_columns="insert", extra_columns="ignore")
            sums = rows.filter(which).group_by("source", maintain_order=True).agg(pl.len(), measure.alias("measure"))
            return sums.collect()
        except (OSError, pl.exceptions.PolarsError):
            return pl.DataFrame(schema={"source": pl.String, "len": pl.UInt32, "measure": pl.Int64})

    def _language(self, name: str, source: Source, digest: str) -> str:
        """Return the languages of stored texts, which are looked up once for every content."""
        if source.modality != "text" or isinstance(source, EndlessSource):
            return ""
        if source.language:
            return source.language
        cached = cache_folder() / f"languages-{digest[:32]}.json"
        try:
            shares, how = json.loads(cached.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            texts = self._texts(name)
            if not texts:
                return ""
            shares, how = languages(texts)
            if "py3langid" in how:
                keep(cached, json.dumps([shares, how]))
        named = ", ".join(f"{language} {percent(share)}" for language, share in list(shares.items())[:LANGUAGES])
        return f"{named} ({how})"

    def _texts(self, name: str) -> list[str]:
        for step in range(min(self.data.run.last_step, STEPS - 1) + 1):
            rows = self.data.segment(step).filter((pl.col("source") == name) & ~pl.col("synthetic"))
            if rows.height:
                return rows["content"].head(SAMPLE).to_list()
        return []

    def models(self, chosen: list[Setting]) -> list[Statement]:
        """Return what is known of each model; ``chosen`` are the settings that differ from their defaults."""
        presets = {setting.path: str(setting.value) for setting in chosen}
        return [
            Statement(name, self._model(name, family, presets.get(f"models.{name}.preset", "")))
            for name, family in self.data.run.scenario.models.items()
        ]

    def _model(self, name: str, family: Family, preset: str) -> dict[str, str]:
        sizes = family.footprint()
        trainers = [population for population, model in self.data.models.items() if model == name]
        spent = self.data.run.costs(total=True).filter(pl.col("id").str.split("/").list.get(1).is_in(trainers))
        totals = dict(spent.group_by("metric").agg(pl.col("value").sum()).iter_rows())
        fingerprint = self.data.run.environment["foundations"].get(name)
        facts = {
            "Kind": f"{family.kind}: {first_line(family)}",
            "Preset": preset and f"{preset}, with the settings of models.{name} above" if preset else "",
            "Starts from": _start(family),
            "Parameters": _parameters(sizes.own, sizes.shared),
            "Trained on, by all trainers": _amount(totals, "trained"),
            "Written, by all trainers": _amount(totals, "generated"),
            "Fingerprint of initial weights": fingerprint or "",
        }
        return {label: fact for label, fact in facts.items() if fact}


def first_line(part: object) -> str:
    """Return the first line of the documentation of a kind."""
    return (inspect.getdoc(type(part)) or "").split("\n")[0].removesuffix(".").replace("``", "")


def without_folders(path: str) -> str:
    """Return a path without the folders of a machine: the name of the file, or of the folder before a pattern."""
    parts = PurePath(path).parts
    pattern = next((i for i, part in enumerate(parts) if set(part) & set("*?[")), None)
    first = len(parts) - 1 if pattern is None else max(pattern - 1, 0)
    return "/".join(part for part in parts[first:] if part != PurePath(path).anchor)


def _available(source: Source, size: int | None) -> str:
    held = source.held_out
    kept = f"{held:,.0f} more are" if held >= 1 else f"{percent(held)} of the source, not counted here, are"
    drawn = "made on demand, without end" if size is None else f"{size:,} may be drawn"
    return f"{drawn}; {kept} held out for measurement" if held else drawn


def _licence(source: Source) -> str:
    if source.licence:
        return source.licence
    if source.shipped:
        return source.shipped
    return "not stated by the source" if source.origin() else "none: the documents are computed"


def _start(family: Family) -> str:
    init = str(getattr(family, "init", ""))
    if family.starts_from_checkpoint:
        return f"checkpoint {without_folders(init) if init.startswith(('/', '.', '~')) else init}"
    tokens = getattr(getattr(family, "foundation", None), "tokens", None)
    if family.starts_pretrained and tokens:
        return f"a foundation, pre-trained on {tokens:,} tokens of the web's initial human documents"
    return "random weights" if init else ""


def _parameters(own: int, shared: int) -> str:
    if not own:
        return ""
    return f"{own + shared:,}, {own:,} of them trained" if shared else f"{own:,}"


def _amount(totals: Mapping[str, float], what: str) -> str:
    for unit in ("tokens", "documents"):
        if totals.get(f"{unit}_{what}"):
            return f"{totals[f'{unit}_{what}']:,.0f} {unit}"
    return ""
