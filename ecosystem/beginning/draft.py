"""Draft a scenario for a collection of texts: sizes that suit it, as a commented file, and what it can show."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import tomli_w

from ecosystem.beginning.sourcing import ChosenSource
from ecosystem.beginning.survey import Survey
from ecosystem.errors import DataError, ScenarioError, nearest
from ecosystem.families.base import FAMILIES, Family
from ecosystem.formats import percent
from ecosystem.runs.planning.estimate import TOKENS_PER_WORD
from ecosystem.scenario.presets import presets, with_preset
from ecosystem.scenario.tables import NAME

FEWEST = 40  # distinct documents
QUICK = "trigram"
NEURAL = ("gpt2-nano", "gpt2-micro", "gpt2-mini")  # presets that may be chosen, by size
_TOKENS_PER_PARAMETER = 20  # Hoffmann et al. 2022 ("Chinchilla")
_PASSES = 4  # over the same text, up to which it is worth nearly as much as new text (Muennighoff et al. 2023)
_LARGEST = "gpt2-micro"  # the largest that a laptop pre-trains in minutes
_STEPS, _WINDOW = 10, 6
_MOST_INITIAL, _MOST_SCRAPED, _MOST_PUBLISHED = 20_000, 1_000, 200
_MOST_REFUSED = 0.3  # share of documents; a filter that refuses more is replaced by a weaker one
_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.PackageLoader("ecosystem.beginning"), trim_blocks=True, lstrip_blocks=True, autoescape=False
)  # a scenario is not HTML


@dataclass(frozen=True)
class Draft:
    """A scenario file for texts; ``why`` says how the model was chosen, ``limits`` what runs can and cannot show."""

    name: str
    text: str
    preset: str
    why: str
    limits: list[str]
    notes: list[str]


def draft(name: str, chosen: ChosenSource, survey: Survey, preset: str | None = None) -> Draft:
    """Draft a scenario; ``preset`` replaces the model that suits the amount of text.

    Raises ScenarioError for an invalid name or an unknown preset, DataError for too few documents.
    """
    if not NAME.fullmatch(name):
        raise ScenarioError(f'NAME "{name}": use letters, digits, "_" and "-" only, such as my-web.')
    known = presets()
    if preset is not None and preset not in known:
        raise ScenarioError(
            f'--model "{preset}": there is no such preset{nearest(preset, known)}; '
            f"available: {', '.join(sorted(known))}."
        )
    if survey.documents < FEWEST:
        raise DataError(
            f"{chosen.source.path}: has {survey.documents:,} distinct documents, too few to publish some and to hold "
            f"out others for measurement; give at least {FEWEST}, for instance shorter parts in one file, with blank "
            "lines between them."
        )
    sizes = _sizes(survey)
    words = round(survey.words * sizes["initial"] / survey.documents)
    suited, why = _model(words)
    model = preset or suited
    if model != suited:
        why = f"as asked for; {suited} would suit the amount of text, since {why}"
    family = _family(model)
    quality, about_quality = _quality(survey)
    text = _ENVIRONMENT.get_template("scenario.toml").render(
        name=name,
        source=_toml(chosen.fields),
        sizes=sizes,
        steps=_STEPS,
        window=_WINDOW,
        preset=model,
        why=f"{why[0].upper()}{why[1:]}.",
        budget=family.uses_budget,
        quality=_toml(quality),
        about_quality=about_quality,
        documents=f"{survey.documents:,}",
        words=f"{survey.words:,}",
        learning_rate=(with_preset({"preset": model}, None).get("foundation") or {}).get("learning_rate"),
    )
    return Draft(name, text, model, why, _limits(survey, sizes, model, family), chosen.notes)


def _sizes(survey: Survey) -> dict[str, Any]:
    """Return the numbers of documents: held out, at first, written, scraped and published at each step."""
    share = 0.1 if survey.documents >= 500 else 0.2
    free = survey.documents - max(1, round(share * survey.documents))
    initial = min(_MOST_INITIAL, max(20, free // 2))
    human = min((free - initial) // _STEPS, initial // 10, 3 * _MOST_PUBLISHED)  # of all writers, a step
    return {
        "held_out": share,
        "held_out_documents": survey.documents - free,
        "initial": initial,
        "writers": min(5, human),
        "rate": human / min(5, human) if human else 0,
        "publish": min(_MOST_PUBLISHED, max(3, initial // 30)),
        "scrape": min(_MOST_SCRAPED, max(20, initial // 3)),
        "sites": min(60, max(4, initial // 25)),
        "samples": min(1000, max(30, round(survey.words_median * initial // 30 / 4))),
    }


def _model(words: int) -> tuple[str, str]:
    """Return the preset for so many words of initial text, and a sentence that says why.

    It is the largest GPT-2 of those that pre-train in minutes whose 20 tokens for each parameter (Hoffmann et al. 2022)
    the text provides within four passes (Muennighoff et al. 2023), or else a trigram model.
    """
    tokens, suited = words * TOKENS_PER_WORD, QUICK
    for preset in NEURAL[: NEURAL.index(_LARGEST) + 1]:
        if tokens * _PASSES >= _TOKENS_PER_PARAMETER * _family(preset).footprint().own:
            suited = preset
    given = f"the initial documents have about {tokens:,.0f} tokens"
    if suited == QUICK:
        wanted = _TOKENS_PER_PARAMETER * _family(NEURAL[0]).footprint().own / _PASSES
        return (
            QUICK,
            f"{given}; the smallest GPT-2, {NEURAL[0]}, needs about {wanted:,.0f}, so words are counted instead",
        )
    parameters = _family(suited).footprint().own
    return suited, (
        f"{given}, enough in {_PASSES} passes for {_TOKENS_PER_PARAMETER} tokens for each of {parameters:,} parameters"
    )


def _family(preset: str) -> Family:
    fields = with_preset({"preset": preset}, None)
    return FAMILIES.get(fields.pop("kind")).model_validate(fields)


def _quality(survey: Survey) -> tuple[dict[str, Any], str]:
    """Return a filter by quality that keeps most of these documents, and a comment."""
    if survey.english and not survey.unspaced:
        for variant in ("standard", "short_text"):
            if survey.refused[variant] <= _MOST_REFUSED:
                about = f"Gopher's rules refuse {percent(survey.refused[variant])} of these documents"
                return {"kind": "gopher_quality", "variant": variant}, about
        return {"kind": "repetition"}, "Gopher's rules of quality would refuse most of these documents"
    return {"kind": "repetition"}, "Gopher's rules of quality are for English; those of repetition suit any language"


def _limits(survey: Survey, sizes: dict[str, Any], preset: str, family: Family) -> list[str]:
    """Return sentences on what a run of the draft can and cannot show."""
    shown = [
        "It can show how contamination, filters, archives and curators compare, in the same direction for many seeds; "
        "it cannot say at which step a large model would collapse."
    ]
    if family.kind == "ngram":
        shown.append(
            f"{preset} counts which token follows the few before it: it can lose rare words and phrases and copy "
            "itself, but has no grammar, meaning or facts to lose, and its documents do not read like yours."
        )
    elif family.footprint().own:
        shown.append(
            f"{preset} has {family.footprint().own:,} parameters: it learns words and short-range grammar, not facts, "
            "arguments or long documents."
        )
    held = sizes["held_out_documents"]
    shown.append(
        f"Loss is measured on up to {min(held, 200):,} of {held:,} held-out documents"
        + ("; so few give wide intervals: compare several seeds." if held < 100 else ".")
    )
    if not survey.english:
        shown.append("Gopher's rules and some text metrics are for English, and are not used or say less here.")
    if not sizes["writers"]:
        shown.append("There is too little text for writers: people have stopped writing in this web.")
    if survey.near_duplicates > 0.1:
        shown.append(
            f"{percent(survey.near_duplicates)} of the documents nearly equal another one, so held-out text is partly "
            "known to models; deduplicate the texts for absolute figures."
        )
    return shown


def write(drafted: Draft, folder: Path) -> Path:
    """Write a draft as ``<name>.toml`` into a folder; raise ScenarioError if there is such a file."""
    from ecosystem.runs.files import io_errors

    file = folder / f"{drafted.name}.toml"
    with io_errors(file):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with file.open("x", encoding="utf-8") as stream:
                stream.write(drafted.text)
        except FileExistsError:
            raise ScenarioError(f"{file}: exists already; choose another NAME, or delete the file.") from None
    return file


def _toml(values: dict[str, Any]) -> str:
    return tomli_w.dumps(values).strip()
