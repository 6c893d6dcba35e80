"""HTML pages: the Jinja environment, the parts of a page, and the shell that combines them in one file.

Text written by models is untrusted. Two measures protect readers: every template escapes all values, and the content
security policy of a page allows no connections and no scripts except the two whose hashes it lists. Text that slipped
through the escaping could therefore not run.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ecosystem.cache import cache_folder, keep
from ecosystem.formats import visible
from ecosystem.report import charts

TEMPLATES = Path(__file__).with_name("templates")


def bold_parts(text: str) -> list[str]:
    """Split ``plain **bold** plain …`` into alternating parts; the first is plain."""
    return re.split(r"\*\*([^*]+)\*\*", text)


def breakable(text: str) -> str:
    """Let ``value ± error`` break before its sign, so that narrow columns need not break numbers."""
    return text.replace("\u00a0±\u00a0", " ± ").replace(" ± ", " ±\u00a0")


def environment(*folders: Path) -> Environment:
    """Create a Jinja environment for the templates in ``folders`` and the shared templates.

    Values are escaped, and characters that are invisible or control text are replaced. An undefined name is an error.
    """
    pages = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    pages.filters["bold_parts"] = bold_parts
    pages.filters["breakable"] = breakable
    return pages


PAGES = environment()


def render(template: str, pages: Environment = PAGES, /, **context: Any) -> Markup:
    """Render a template. Only the output of templates is treated as HTML; all other values are escaped."""
    return Markup(pages.get_template(template).render(**context))


@dataclass(frozen=True)
class Column:
    """The heading of a table column, with small text below it."""

    name: str
    below: str = ""


@dataclass(frozen=True)
class Cell:
    """A table cell: ``hue`` adds a dot in the colour of a population; ``small`` is appended in small text."""

    text: str
    hue: str | None = None
    small: str = ""
    bold: bool = False
    soft: bool = False


Cells = list[Cell | str]  # one row


@dataclass(frozen=True)
class Table:
    """A table. Columns are right-aligned, except the text columns ``left`` (by index)."""

    head: Sequence[Column | str]
    rows: Sequence[Cells | list[str]]
    left: Collection[int] = (0,)


@dataclass(frozen=True)
class Figure:
    """The place of a chart on a page; ``full``: as wide as the page.

    ``text`` describes the chart, and ``code`` is Python that draws it again, to be run in the folder that
    contains the folder ``where``. ``other`` is the same chart in another form, shown in its place if the reader ticks a
    box with the label ``choice``.
    """

    name: str
    title: str
    subtitle: str
    full: bool = False
    text: str = ""
    code: str = ""
    where: str = ""
    other: Figure | None = None
    choice: str = ""

    @classmethod
    def of(cls, name: str, spec: dict[str, Any], source: Source, *, full: bool = False) -> Figure:
        """Create the figure of a chart from its specification; ``source``: what the page is a report of."""
        title = spec["title"]
        return cls(
            name, title["text"], title.get("subtitle", ""), full, charts.describe(spec), source.code(name), source.top
        )


@dataclass(frozen=True)
class Source:
    """What a page is a report of: the name of its folder, below that in which the code of charts is run."""

    folder: str
    is_run: bool = False

    @property
    def top(self) -> str:
        """The name of the folder beside which the code of charts is run."""
        return self.folder.partition("/")[0]

    def code(self, name: str) -> str:
        """Return Python that draws the chart ``name`` again."""
        folder, chart = (json.dumps(text, ensure_ascii=False) for text in (self.folder, name))
        if self.is_run:
            return f"import ecosystem\n\nrun = ecosystem.Run({folder})\nrun.plot[{chart}]"
        return f"import ecosystem\n\nreport = ecosystem.Report({folder})\nreport[{chart}]"


def hue(populations: Sequence[str], name: str) -> str:
    """Return the CSS class for the colour of a population; "" for other names."""
    return f"p{populations.index(name) % len(charts.LIGHT.populations)}" if name in populations else ""


def tinted(populations: Sequence[str], name: str, small: str = "") -> Cell:
    """Create a cell with the name of a population after a dot in its colour."""
    return Cell(name, hue(populations, name), small)


def embed(data: Any) -> Markup:
    """Encode data as JSON for a script element, without ``<``, so that nothing in it can close the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return Markup(text)


@cache
def library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script, which takes two seconds to make and is therefore cached."""
    vl_convert = charts.renderer()
    cached = cache_folder() / f"vega-{vl_convert.__version__}.js"
    try:
        bundle = cached.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        bundle = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
        keep(cached, bundle)
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def page(
    template: str, context: Mapping[str, Any], specs: dict[str, dict[str, Any]], colours: int, pages: Environment
) -> bytes:
    """Render a page, as UTF-8, from a template that extends ``page.html``.

    ``context``: template variables, including ``title``. ``specs``: Vega-Lite specifications by chart name.
    ``colours``: number of populations with a colour.
    """
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8") + _hues(colours)
    policy = (
        f"default-src 'none'; script-src {_hash(library())} {_hash(script)}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    shell = {
        "policy": policy,
        "style": Markup(style),
        "configs": embed({"light": _configuration(charts.LIGHT), "dark": _configuration(charts.DARK)}),
        "specs": embed(specs),
        "library": Markup(library()),
        "script": Markup(script),
    }
    return render(template, pages, **context, **shell).encode()


def _configuration(scheme: charts.Scheme) -> dict[str, Any]:
    """Return the configuration of charts on pages, which describe a chart as a whole instead of every mark."""
    return charts.configuration(scheme) | {"aria": False}


def _hash(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def _hues(populations: int) -> str:
    """Return the CSS rules that give each population its chart colour, in light and dark mode."""
    light, dark = charts.LIGHT.populations, charts.DARK.populations
    rules = [f".p{i}{{--hue:{light[i]}}}" for i in range(min(populations, len(light)))]
    night = [f".p{i}{{--hue:{dark[i]}}}" for i in range(min(populations, len(dark)))]
    return f"\n{''.join(rules)}\n@media screen and (prefers-color-scheme: dark){{{''.join(night)}}}\n"
