"""Sample documents of a report: texts, vectors, categories or images of each population at a few steps."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
import polars as pl

from ecosystem.formats import number
from ecosystem.report.data import RunReportData
from ecosystem.report.html import hue
from ecosystem.scenario.scenario import Scenario

CLIP, LONGEST = 420, 6000  # maximum number of characters shown folded and unfolded
EACH = 2  # texts per population and step
IMAGES, IN_A_ROW = 10, 5  # images per population and step, and per row
PIXEL = 6  # size of an image pixel in CSS pixels
NUMBERS = 8  # maximum number of numbers shown of a vector that is not an image


@dataclass(frozen=True)
class Image:
    """An image: a data URL and a description."""

    address: str
    description: str


@dataclass(frozen=True)
class Document:
    """A document as text, or several images in one frame; ``about`` is a line with authors and other facts."""

    about: str
    text: str = ""
    images: Sequence[Image] = ()
    width: int = 0  # of one image, in CSS pixels
    across: int = IN_A_ROW
    gap: int = PIXEL

    @property
    def empty(self) -> bool:
        """Whether the text is empty or white space."""
        return not self.text.strip()

    @property
    def long(self) -> bool:
        """Whether the text is folded, so that only its beginning is visible at first."""
        return len(self.text) > CLIP or self.text.count("\n") >= 10

    @property
    def beginning(self) -> str:
        """The text shown while folded."""
        return self.text[:CLIP]

    @property
    def shown(self) -> str:
        """The text shown when unfolded, with the number of characters left out."""
        more = len(self.text) - LONGEST
        return self.text[:LONGEST] + (f"\n… and {more:,} more characters" if more > 0 else "")

    @property
    def length(self) -> str:
        """The number of characters, formatted."""
        return f"{len(self.text):,}"


@dataclass(frozen=True)
class Sample:
    """Documents published by a population at a step."""

    step: int
    documents: list[Document]


@dataclass(frozen=True)
class PopulationSamples:
    """Documents published by a population at a few steps, and the CSS class for its colour."""

    name: str
    hue: str
    samples: list[Sample]


@dataclass(frozen=True)
class Samples:
    """Initial human documents, and documents of each population at a few steps; ``images``: whether they are images."""

    images: bool
    opening: list[list[Document]]
    steps: list[int]
    populations: list[PopulationSamples]


def chosen_steps(last: int) -> list[int]:
    """Return the first, middle and last step after the opening, without repetition."""
    return sorted({1, (1 + last) // 2, last} - {0}) if last >= 1 else []


def samples(data: RunReportData) -> Samples:
    """Return human documents of step 0, and documents of each population at the first, middle and last step."""
    opening, steps, trainers = data.segment(0), chosen_steps(data.run.last_step), data.run.trainers()
    shape = image_shape(data.run.scenario, opening["content"].dtype)
    human = opening.filter(~pl.col("synthetic")).head(3 if shape is None else IMAGES)
    frames = [human[i : i + 1] for i in range(human.height)] if shape is None else [human]
    initial = [documents(rows, shape) for rows in frames] if human.height else []
    published = []
    for population in data.populations if steps else ():
        authors = [name for name in trainers if name.rsplit("/", 1)[0] == population]
        cells = [Sample(step, documents(_first(data.segment(step), authors, shape), shape)) for step in steps]
        published.append(PopulationSamples(population, hue(data.populations, population), cells))
    return Samples(shape is not None, initial, steps, published)


def _first(segment: pl.DataFrame, authors: Sequence[str], shape: tuple[int, int] | None) -> pl.DataFrame:
    """Return the first documents of a step by these authors, taking turns, without selecting any."""
    written = segment.filter(pl.col("author").is_in(list(authors)))
    turn = pl.int_range(pl.len()).over("author")
    return written.with_columns(turn=turn).sort("turn", maintain_order=True).head(EACH if shape is None else IMAGES)


def image_shape(scenario: Scenario, content: pl.DataType) -> tuple[int, int] | None:
    """Return (height, width) in pixels if the documents are images, else None."""
    initial = scenario.web.initial
    if initial is None or not isinstance(content, pl.Array):
        return None
    return scenario.sources[initial.source].image_shape(content.size)


def documents(rows: pl.DataFrame, shape: tuple[int, int] | None) -> list[Document]:
    """Return the documents of a table: images in one frame, others one by one."""
    records = list(rows.iter_rows(named=True))
    if shape is None or not records:
        return [_text(row) for row in records]
    authors = list(dict.fromkeys(str(row["author"]) for row in records))
    about = [", ".join(authors) if len(authors) < 4 else f"{len(authors)} trainers", f"{len(records)} images"]
    if records[0]["synthetic"]:
        about.append(f"depth {number(float(str(rows['depth'].mean())), 1)}")
    if refused := sum(bool(row["verdict"]) for row in records):
        about.append(f"{refused} of them refused")
    return [Document(" · ".join(about), images=[_image(row, shape) for row in records], width=PIXEL * shape[1])]


def _image(row: dict[str, Any], shape: tuple[int, int]) -> Image:
    description = f"document {row['doc']} by {row['author']}, an image of {shape[0]} by {shape[1]} grey values"
    description += f", refused by {row['verdict']}" if row["verdict"] else ""
    return Image(picture(row["content"], shape), description)


def picture(content: object, shape: tuple[int, int]) -> str:
    """Return a vector of grey values (0: black, 1: white; others are clipped) as a PNG in a data URL."""
    from PIL import Image as Picture

    grey = np.round(np.clip(np.nan_to_num(np.asarray(content, np.float64)), 0, 1) * 255).astype(np.uint8)
    file = BytesIO()
    Picture.fromarray(grey.reshape(shape)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def readable(content: object) -> str:
    """Return a document as text; a vector as its first numbers, rounded."""
    if isinstance(content, list):
        more = f", … ({len(content)} numbers)" if len(content) > NUMBERS else ""
        return ", ".join(f"{value:.3g}" for value in content[:NUMBERS]) + more
    return "" if content is None else str(content)


def _text(row: dict[str, Any]) -> Document:
    about = [str(row["author"]), f"document {row['doc']}"]
    if isinstance(row["content"], str | None):
        about.append(f"{row['words']} words")
    if row["synthetic"]:
        about.append(f"depth {number(float(str(row['depth'])), 1)}")
    if row["verdict"]:
        about.append(f"refused by {row['verdict']}")
    return Document(" · ".join(about), readable(row["content"]))
