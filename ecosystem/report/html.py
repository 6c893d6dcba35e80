"""The shell of the page: everything in one file, nothing fetched, and no text able to become code.

Two fences stand against text that models wrote. All of it is escaped on its way into the page; and the page's
content security policy allows no connection at all and no script but the two whose hashes it names, so that even
a slip in escaping could not run.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from string import Template
from typing import Any

from ecosystem import charts

# What is shown for characters that have no shape of their own (new lines and tabs keep theirs).
_CONTROL = {
    **{i: 0x2400 + i for i in range(32) if chr(i) not in "\n\t\r"},
    ord("\r"): None,
    127: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}

_SHELL = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="$policy">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
<title>$title</title>
<style>$style</style>
</head>
<body>
$body
<noscript><p class="note">The charts are drawn by a script in this page; without scripts, see the pictures in its
<a href="charts/">charts</a> folder.</p></noscript>
<script type="application/json" id="configs">$configs</script>
<script type="application/json" id="specs">$specs</script>
<script>$library</script>
<script>$script</script>
</body>
</html>
""")


def visible(text: object) -> str:
    """Return text with control characters shown by their pictures; it is not HTML yet."""
    return str(text).translate(_CONTROL)


def escape(text: object) -> str:
    """Return text as HTML: markup is inert, and control characters are shown by their pictures."""
    return html.escape(visible(text), quote=True)


def prose(text: str) -> str:
    """Return a sentence as HTML, with the names between double asterisks in bold."""
    return re.sub(r"\*\*([^*]+)\*\*", r"<b>\1</b>", escape(text))


def embed(data: Any) -> str:
    """Return JSON that may stand inside a script element: it holds no ``<``, so nothing in it can close one."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for c in "<>&\u2028\u2029":
        text = text.replace(c, f"\\u{ord(c):04x}")
    return text


@cache
def library() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script."""
    import vl_convert

    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return bundle.replace("</script", "<\\/script").replace("<!--", "<\\!--")


def _hash(script: str) -> str:
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() + "'"


def page(title: str, body: str, specs: dict[str, dict[str, Any]], populations: int) -> bytes:
    """Return the whole page; ``title`` is text, ``body`` HTML, ``specs`` Vega-Lite by the name of its chart."""
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8") + _hues(populations)
    policy = (
        f"default-src 'none'; script-src {_hash(library())} {_hash(script)}; style-src 'unsafe-inline'; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    return _SHELL.substitute(
        policy=policy,
        title=escape(title),
        style=style,
        body=body,
        configs=embed({"light": charts.configuration(charts.LIGHT), "dark": charts.configuration(charts.DARK)}),
        specs=embed({name: _responsive(spec) for name, spec in specs.items()}),
        library=library(),
        script=script,
    ).encode()


def _hues(populations: int) -> str:
    """Return the style rules that give each population the colour it has in the charts."""
    light, dark = charts.LIGHT.populations, charts.DARK.populations
    rules = [f".p{i}{{--hue:{light[i]}}}" for i in range(min(populations, len(light)))]
    night = [f".p{i}{{--hue:{dark[i]}}}" for i in range(min(populations, len(dark)))]
    return f"\n{''.join(rules)}\n@media (prefers-color-scheme: dark){{{''.join(night)}}}\n"


def hue(populations: list[str], name: str) -> str:
    """Return the class that colours something of a population."""
    return f"p{populations.index(name) % len(charts.LIGHT.populations)}" if name in populations else ""


def tinted(populations: list[str], name: str) -> str:
    """Return the name of a population behind a dot of its colour."""
    return f'<span class="{hue(populations, name)}"><span class="dot"></span>{escape(name)}</span>'


def _responsive(spec: dict[str, Any]) -> dict[str, Any]:
    """Return a specification that fills its place; its title is left to the page."""
    fluid = {key: value for key, value in spec.items() if key != "title"}
    return fluid | {"width": "container", "autosize": {"type": "fit-x", "contains": "padding"}}


def figure(name: str, spec: dict[str, Any], *, full: bool = False) -> str:
    """Return the place of a chart, with its title and links to its pictures."""
    title, below = spec["title"]["text"], spec["title"].get("subtitle", "")
    return (
        f"<figure{' class=full' if full else ''}>"
        f"<figcaption><h3>{escape(title)}</h3><p>{escape(below)}</p></figcaption>"
        f'<div class="chart" data-chart="{escape(name)}" role="img" aria-label="{escape(title)}"></div>'
        f'<p class="files"><a href="charts/{escape(name)}.svg">SVG</a><a href="charts/{escape(name)}.png">PNG</a></p>'
        "</figure>"
    )


def tabs(panels: list[tuple[str, str]], group: str) -> str:
    """Return several views of one thing, the first of them shown; ``panels``: label and HTML."""
    if len(panels) == 1:
        return panels[0][1]
    buttons = "".join(
        f'<button role="tab" aria-controls="{group}-{i}" aria-selected="{str(i == 0).lower()}">{escape(label)}</button>'
        for i, (label, _) in enumerate(panels)
    )
    bodies = "".join(
        f'<div role="tabpanel" id="{group}-{i}"{"" if i == 0 else " hidden"}>{body}</div>'
        for i, (_, body) in enumerate(panels)
    )
    return f'<div role="tablist">{buttons}</div>{bodies}'


def table(head: list[str], rows: list[list[str]], left: Collection[int] = (0,)) -> str:
    """Return a table that scrolls sideways in a box of its own where it must; cells are HTML.

    Numbers stand at the right of their columns; ``left`` are the columns that hold words.
    """
    kind = [' class="left"' if column in left else "" for column in range(len(head))]
    top = "".join(f"<th{own}>{cell}</th>" for own, cell in zip(kind, head, strict=True))
    body = "".join(
        "<tr>" + "".join(f"<td{own}>{cell}</td>" for own, cell in zip(kind, row, strict=True)) + "</tr>" for row in rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="region" aria-label="table"><table><thead><tr>{top}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )
