"""HTML pages: one Jinja environment, the parts of a page, and the shell that puts all into one file.

Text written by models is untrusted, and two measures protect readers. Every template escapes all values. The content
security policy of a page allows no connection, and no script except the two whose hashes it names, so text that
escaped the escaping could not run.
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

from ecosystem.report import charts

TEMPLATES = Path(__file__).with_name("templates")

# Visible replacements of control characters; new lines and tabs stay.
_CONTROL = {
    **{i: 0x2400 + i for i in range(32) if chr(i) not in "\n\t\r"},
    ord("\r"): None,
    127: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}


def visible(text: object) -> str:
    """Replace control characters by visible symbols; the result is plain text, not HTML."""
    return str(text).translate(_CONTROL)


def bold_parts(text: str) -> list[str]:
    """Split a sentence at pairs of double asterisks into alternating plain and bold parts; the first is plain."""
    return re.split(r"\*\*([^*]+)\*\*", text)


def environment(*folders: Path) -> Environment:
    """Make the environment of the templates in ``folders``, which may use the shared templates.

    Values are escaped, and their control characters made visible. An undefined name is an error.
    """
    made = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=lambda value: value if isinstance(value, Markup) else visible(value),
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters["bold_parts"] = bold_parts
    return made


PAGES = environment()


def render(template: str, pages: Environment = PAGES, /, **context: Any) -> Markup:
    """Render a template; only the output of templates counts as HTML, all other values are escaped."""
    return Markup(pages.get_template(template).render(**context))


@dataclass(frozen=True)
class Column:
    """Head of a column of a table, with small text below it."""

    name: str
    below: str = ""


@dataclass(frozen=True)
class Cell:
    """A formatted cell of a table: after a dot in the colour of a population, bold or soft, with small text last."""

    text: str
    hue: str | None = None
    small: str = ""
    bold: bool = False
    soft: bool = False


Cells = list[Cell | str]  # of a row


@dataclass(frozen=True)
class Table:
    """A table; columns are aligned to the right, except the columns ``left``, which contain text."""

    head: Sequence[Column | str]
    rows: Sequence[Cells | list[str]]
    left: Collection[int] = (0,)


@dataclass(frozen=True)
class Figure:
    """Place of a chart on a page: its name, its title and the line below; ``full``: as wide as the page."""

    name: str
    title: str
    below: str
    full: bool = False

    @classmethod
    def of(cls, name: str, spec: dict[str, Any], *, full: bool = False) -> Figure:
        """Make the place of a chart from its specification."""
        return cls(name, spec["title"]["text"], spec["title"].get("subtitle", ""), full)


def hue(populations: Sequence[str], name: str) -> str:
    """Return the CSS class of the colour of a population; "" for other names."""
    return f"p{populations.index(name) % len(charts.LIGHT.populations)}" if name in populations else ""


def tinted(populations: Sequence[str], name: str, small: str = "") -> Cell:
    """Make a cell with the name of a population after a dot of its colour."""
    return Cell(name, hue(populations, name), small)


def embed(data: Any) -> Markup:
    """Write data as JSON for a script element; it contains no ``<``, so nothing in it can close the element."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return Markup(text)


@cache
def library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def page(
    template: str, context: Mapping[str, Any], specs: dict[str, dict[str, Any]], colours: int, pages: Environment
) -> bytes:
    """Render a whole page from a template that extends ``page.html``.

    ``context``: the variables of the template, ``title`` included; ``specs``: Vega-Lite by the name of its chart;
    ``colours``: the number of populations with a colour.
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
        "configs": embed({"light": charts.configuration(charts.LIGHT), "dark": charts.configuration(charts.DARK)}),
        "specs": embed({name: _responsive(spec) for name, spec in specs.items()}),
        "library": Markup(library()),
        "script": Markup(script),
    }
    return render(template, pages, **context, **shell).encode()


def _hash(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def _hues(populations: int) -> str:
    """Return the style rules that give each population its colour of the charts."""
    light, dark = charts.LIGHT.populations, charts.DARK.populations
    rules = [f".p{i}{{--hue:{light[i]}}}" for i in range(min(populations, len(light)))]
    night = [f".p{i}{{--hue:{dark[i]}}}" for i in range(min(populations, len(dark)))]
    return f"\n{''.join(rules)}\n@media (prefers-color-scheme: dark){{{''.join(night)}}}\n"


def _responsive(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a specification that fills its place and has no title; the page shows the title."""
    fluid = {key: value for key, value in spec.items() if key != "title"}
    return fluid | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}
