"""The lineage of a document: a value that says how it descends from people, and the value in words."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ecosystem.errors import EcosystemError
from ecosystem.formats import number, percent

LISTED_STEPS = 5  # of publication, for the documents of one author in a training set
INITIAL = "initial"  # author of the documents that the web opened with


@dataclass(frozen=True)
class Origin:
    """Part of a training set by weight: ``kind`` is people, injected (``who``: a source), start or model.

    Of models ``who`` is a population, or a trainer where it is one alone, and ``step`` when they published.
    """

    kind: str
    who: str
    step: int | None
    share: float

    @property
    def text(self) -> str:
        """The origin in words, with its share."""
        return f"{share_text(self.share)} {origin_name(self.kind, self.who)}" + (
            "" if self.step is None else f" of step {self.step}"
        )


@dataclass(frozen=True)
class Fit:
    """Models of a lineage that were fitted at one ``step`` (None: never yet), and what on; shares sum to one.

    ``who`` is the trainer, or how many of the ``population``; ``passes`` the mean number of these models that one meets
    on the way back to people; ``documents`` the mean size of their training sets, and ``exact`` whether these are known
    row by row.
    """

    population: str
    who: str
    step: int | None
    passes: float
    documents: float
    origins: tuple[Origin, ...]
    exact: bool

    @property
    def human(self) -> float:
        """The share of the training sets that people wrote, what was injected included."""
        return sum(origin.share for origin in self.origins if origin.kind in ("people", "injected"))

    @property
    def heading(self) -> str:
        """Which models were fitted, when, and on how much."""
        when = "before its first fit" if self.step is None else f"trained at step {self.step}"
        size = f" on {self.documents:,.0f} documents, {share_text(self.human)} by people" if self.documents else ""
        return f"{self.who}, {when}{size}"

    @property
    def frequency(self) -> str:
        """How often these models are met on the way back."""
        return f"met {number(self.passes)} times on the way back"


@dataclass(frozen=True)
class Lineage:
    """How a document descends from people.

    Going back from it one draws, from the training set that its author's model had last been fitted to, one document
    by its weight; of that one the same, and so on until people wrote it. ``hops``, the mean number of models on
    the way, is the document's depth; ``ends``, which sum to one, say where the ways end; ``fits`` come latest first.
    """

    doc: int
    author: str
    t: int
    depth: float
    fits: tuple[Fit, ...]
    ends: tuple[Origin, ...]
    caveats: tuple[str, ...]

    @property
    def hops(self) -> float:
        """The mean number of models on the way back."""
        return sum(fit.passes for fit in self.fits)

    def fits_at(self, step: int | None = None) -> tuple[Fit, ...]:
        """Select the fits of one step; all of them without a ``step``.

        Raises EcosystemError where no model of this lineage was fitted at the step.
        """
        fits = tuple(fit for fit in self.fits if step in (None, fit.step))
        if step is not None and not fits:
            steps = sorted({fit.step for fit in self.fits if fit.step is not None})
            where = f"it has fits at {', '.join(map(str, steps))}" if steps else "it has no fits"
            raise EcosystemError(
                f"step {step}: no model in the lineage of document {self.doc} was fitted then; {where}."
            )
        return fits

    def plain(self, step: int | None = None) -> dict[str, Any]:
        """Return the lineage as plain data for JSON, ``hops`` included; with a ``step`` only its fits."""
        return {**asdict(self), "fits": [asdict(fit) for fit in self.fits_at(step)], "hops": self.hops}

    def text(self, step: int | None = None) -> str:
        """Describe the lineage in lines of text, latest fit first; with a ``step`` only its fits."""
        lines = [f"{summary_of(self)} {in_words(self.ends)}." if self.fits else summary_of(self)]
        for fit in self.fits_at(step):
            approximate = "" if fit.exact else ", approximate"
            lines += ["", f"{fit.heading} ({fit.frequency}{approximate})", f"  {in_words(fit.origins)}"]
        return "\n".join([*lines, *(f"\n{caveat}" for caveat in self.caveats)])

    def __str__(self) -> str:
        """Describe the lineage in lines of text."""
        return self.text()


def share_text(value: float) -> str:
    """Return a share of a lineage as a percentage."""
    return percent(round(value, 9))  # sums of many shares are not quite 1


def origin_name(kind: str, who: str) -> str:
    """Return an origin in words."""
    if kind == "people":
        return "the initial web" if who == INITIAL else f"{who} (writers)"
    return {"injected": f"injected from {who}", "start": f"the weights that {who} starts from"}.get(kind, who)


def in_words(origins: Sequence[Origin]) -> str:
    """Return origins with their shares in a line; of those of models all steps together, then some of them."""
    groups: dict[tuple[str, str], list[Origin]] = {}
    for origin in origins:
        groups.setdefault((origin.kind, origin.who), []).append(origin)
    words = []
    for (kind, who), parts in groups.items():
        steps = [f"{share_text(part.share)} of step {part.step}" for part in parts if part.step is not None]
        more = ["…"] if len(steps) > LISTED_STEPS else []
        among = (
            f" ({', '.join(steps[:LISTED_STEPS] + more)})"
            if len(steps) > 1
            else f" of step {parts[0].step}"
            if steps
            else ""
        )
        words.append(f"{share_text(sum(part.share for part in parts))} {origin_name(kind, who)}{among}")
    return ", ".join(words)


def summary_of(lineage: Lineage) -> str:
    """Return in a sentence or two what a lineage says."""
    if not lineage.fits:
        return f"Document {lineage.doc} was written by people: there is no model between it and them (depth 0)."
    where = (
        f"Document {lineage.doc} by {lineage.author}, published at step {lineage.t}, has depth {number(lineage.depth)}"
    )
    way = "the mean number of models met on the way back to people, drawing from each training set a document by weight"
    return f"{where}: {way}. The ways end at:"
