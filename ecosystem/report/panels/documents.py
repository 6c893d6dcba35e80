"""Sample documents of a report: texts, numbers or images of every population at a few steps."""

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

CLIP, LONGEST = 420, 6000  # most characters shown folded, and unfolded
EACH = 2  # texts in a cell
IMAGES, IN_A_ROW = 10, 5  # images in a cell, and side by side
PIXEL = 6  # CSS pixels of the side of one pixel of an image
NUMBERS = 8  # most numbers shown of a vector that is not an image


@dataclass(frozen=True)
class Image:
    """An image: a data URL and a description."""

    address: str
    description: str


@dataclass(frozen=True)
class Document:
    """A document as text, or a few images in one frame; ``about`` names the authors in one line."""

    about: str
    text: str = ""
    images: Sequence[Image] = ()
    width: int = 0  # of an image on the page, in CSS pixels
    across: int = IN_A_ROW
    gap: int = PIXEL

    @property
    def empty(self) -> bool:
        """Whether there is nothing to read."""
        return not self.text.strip()

    @property
    def long(self) -> bool:
        """Whether it is folded: only the beginning is shown at first."""
        return len(self.text) > CLIP or self.text.count("\n") >= 10

    @property
    def beginning(self) -> str:
        """The text shown while folded."""
        return self.text[:CLIP]

    @property
    def shown(self) -> str:
        """The text shown when unfolded, and the number of further characters."""
        more = len(self.text) - LONGEST
        return self.text[:LONGEST] + (f"\n… and {more:,} characters more" if more > 0 else "")

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
    """Documents published by a population at a few steps, with the CSS class of its colour."""

    name: str
    hue: str
    samples: list[Sample]


@dataclass(frozen=True)
class Samples:
    """Initial human documents, and those of every population at a few steps; ``images``: True if they are images."""

    images: bool
    opening: list[list[Document]]
    steps: list[int]
    populations: list[PopulationSamples]


def chosen_steps(last: int) -> list[int]:
    """Return the first, middle and last step after the opening, without repetition."""
    return sorted({1, (1 + last) // 2, last} - {0}) if last >= 1 else []


def samples(data: RunReportData) -> Samples:
    """Return human documents of step 0, and documents of every population at the first, middle and last step."""
    opening, steps, trainers = data.segment(0), chosen_steps(data.run.last_step), data.run.trainers()
    shape = image_shape(data.run.scenario, opening["content"].dtype)
    human = opening.filter(~pl.col("synthetic")).head(3 if shape is None else IMAGES)
    frames = [human[i : i + 1] for i in range(human.height)] if shape is None else [human]
    opened = [documents(rows, shape) for rows in frames] if human.height else []
    published = []
    for population in data.populations if steps else ():
        authors = [name for name in trainers if name.rsplit("/", 1)[0] == population]
        cells = [Sample(step, documents(_first(data.segment(step), authors, shape), shape)) for step in steps]
        published.append(PopulationSamples(population, hue(data.populations, population), cells))
    return Samples(shape is not None, opened, steps, published)


def _first(segment: pl.DataFrame, authors: Sequence[str], shape: tuple[int, int] | None) -> pl.DataFrame:
    """Return the first document of each of the first members of a population at a step: no selection."""
    own = segment.filter(pl.col("author").is_in(list(authors)))
    turn = pl.int_range(pl.len()).over("author")
    return own.with_columns(turn=turn).sort("turn", maintain_order=True).head(EACH if shape is None else IMAGES)


def image_shape(scenario: Scenario, content: pl.DataType) -> tuple[int, int] | None:
    """Return (height, width) of the documents if they are images, else None."""
    initial = scenario.web.initial
    if initial is None or not isinstance(content, pl.Array):
        return None
    return scenario.sources[initial.source].image_shape(content.size)


def documents(rows: pl.DataFrame, shape: tuple[int, int] | None) -> list[Document]:
    """Return the documents of a table: images in one frame, all others one by one."""
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
    """Draw a vector of grey values (0: black, 1: white) as a data URL; values outside are clipped."""
    from PIL import Image as Picture

    grey = np.round(np.clip(np.nan_to_num(np.asarray(content, np.float64)), 0, 1) * 255).astype(np.uint8)
    file = BytesIO()
    Picture.fromarray(grey.reshape(shape)).save(file, "PNG")
    return f"data:image/png;base64,{b64encode(file.getvalue()).decode()}"


def readable(content: object) -> str:
    """Write a document as text; of a vector, the first numbers, rounded."""
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
