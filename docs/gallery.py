"""Draw the gallery: the page ``docs/gallery.md`` and its pictures in ``docs/gallery``.

``python -m docs.gallery [NAME…]`` runs the worlds, the study and the fit that the pictures need, in minutes (runs that
exist in ``outputs`` are used again), and writes all pictures, or those named. The page shows the code that draws each.
"""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "docs" / "gallery"
PAGE = ROOT / "docs" / "gallery.md"

WORLDS = {
    "finite web": """
        scenario = ecosystem.Scenario.load("scenarios/finite_web.toml").override(
            {"models.small.preset": "trigram", "web.initial.documents": 1500, "steps": 8}
        )
        run = ecosystem.run(scenario, out=out)
    """,
    "normal loop": """
        run = ecosystem.run("scenarios/validation/gaussian_replace.toml", out=out)
    """,
    "writers who choose": """
        run = ecosystem.run("scenarios/assisted_web.toml", out=out)
    """,
    "study": """
        result = ecosystem.study("scenarios/studies/five_policies.toml", out=out)
    """,
    "fit": """
        result = ecosystem.fit("scenarios/fits/mixed_loop.toml", out=out)
    """,
}
"""What is run, by name: Python that leaves ``run`` or ``result``."""


@dataclass(frozen=True)
class Picture:
    """A picture: its name, the world that it shows, the code that draws it, and what to see in it."""

    name: str
    world: str
    code: str
    text: str


PICTURES = [
    Picture(
        "contamination",
        "finite web",
        "run.plot.contamination()",
        "People have stopped writing, and a page stays online for four steps: after the fourth, the web is "
        "machine text only. The population that keeps an archive of real text trains on less of it.",
    ),
    Picture(
        "quality",
        "finite web",
        "run.plot.quality()",
        "How well each population still predicts human text. Thin lines are single laboratories, bands one "
        "standard error.",
    ),
    Picture(
        "vocabulary",
        "finite web",
        "run.plot.vocabulary()",
        "Collapse begins in the tails: which share of the human vocabulary models still write, from frequent "
        "to rare words.",
    ),
    Picture(
        "web",
        "finite web",
        "run.plot.web()",
        "The sites of the web after the last step, by how much of their text models wrote.",
    ),
    Picture(
        "refusals",
        "finite web",
        'run.plot["refusals"]',
        "What each filter refused, of people's documents and of models': the truth is known in a simulation.",
    ),
    Picture(
        "closed_form",
        "normal loop",
        'run.plot.parameter("variance")',
        "Loops of normal distributions, each fitted to samples of the one before, 300 of each sort. The mean "
        "variance of the biased estimate falls as its closed form says (dashed), and that of the unbiased "
        "one stays at 1, while single loops (band: first to last decile) lose theirs.",
    ),
    Picture(
        "adoption",
        "writers who choose",
        "run.plot.contamination()",
        "Writers choose between writing, using AI for half of a document, and silence, by what pays: machine "
        "text settles near half of the web.",
    ),
    Picture(
        "effects",
        "study",
        "result.plot.effects()",
        "Four policies against none, over eight seeds. Dark: 95 % intervals of the difference within pairs "
        "of runs that share their chance; pale: intervals without pairing.",
    ),
    Picture(
        "course",
        "study",
        "result.plot.course()",
        "The same study over time, as means over seeds.",
    ),
    Picture(
        "posterior",
        "fit",
        'result.plot.posterior("human_rate")',
        "What eight measurements say of the rate of human writing, which is 50 in the web that they were taken of.",
    ),
    Picture(
        "targets",
        "fit",
        "result.plot.targets()",
        "Measurements with their errors over what fitted webs show; the last one was held out.",
    ),
]


def page(pictures: Sequence[Picture] = PICTURES) -> str:
    """Return the page as Markdown."""
    parts = [
        "# Gallery",
        "Pictures that `ecosystem` draws, each with the code that draws it. `python -m docs.gallery` runs "
        "everything again and draws them anew; the figures are those of small models, chosen to be quick.",
    ]
    for world, code in WORLDS.items():
        shown = [picture for picture in pictures if picture.world == world]
        parts += [
            f"## {world.capitalize()}",
            _block("import ecosystem\n\n" + _code(code).replace("out=out", 'out="outputs"')),
        ]
        for picture in shown:
            parts += [f"![{picture.text}](gallery/{picture.name}.svg)", picture.text, _block(picture.code)]
    return "\n\n".join(parts) + "\n"


def _code(text: str) -> str:
    return textwrap.dedent(text).strip()


def _block(code: str) -> str:
    return f"```python\n{code}\n```"


def draw(names: Sequence[str] = (), folder: Path = FOLDER, out: str | Path = "outputs") -> list[Path]:
    """Draw the pictures of these names (none: all) into a folder; return their files.

    ``out`` is the folder of the runs. Raises ValueError for a name that no picture has.
    """
    from ecosystem.report import charts

    if unknown := set(names) - {picture.name for picture in PICTURES}:
        listed = ", ".join(picture.name for picture in PICTURES)
        raise ValueError(f"no picture is called {', '.join(sorted(unknown))}; there are {listed}.")
    chosen, files = [picture for picture in PICTURES if not names or picture.name in names], []
    folder.mkdir(parents=True, exist_ok=True)
    for world, code in WORLDS.items():
        shown = [picture for picture in chosen if picture.world == world]
        if not shown:
            continue
        values: dict[str, Any] = {"out": str(out)}
        exec("import ecosystem\n" + _code(code), values)
        for picture in shown:
            svg, _ = charts.pictures(eval(picture.code, values).to_dict())
            files.append(folder / f"{picture.name}.svg")
            files[-1].write_bytes(svg)
    return files


def main() -> None:
    """Draw the pictures named on the command line, or all with the page."""
    for file in draw(sys.argv[1:]):
        print(file.relative_to(ROOT))
    PAGE.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
