"""The modules whose public names the site documents. Update this list when a module moves."""

from __future__ import annotations

import ecosystem

API: dict[str, list[str]] = {
    "surface": [f"{home}.{name}" for name, home in ecosystem._HOME.items() if name != "EcosystemError"],
    "testing": ["ecosystem.testing"],
    "policies": ["ecosystem.policies.base", "ecosystem.policies.learning"],
    "models": ["ecosystem.families.base", "ecosystem.families.requests", "ecosystem.families.single"],
    "sources": ["ecosystem.sources.base"],
    "metrics": [
        "ecosystem.metrics.base",
        "ecosystem.metrics.definitions",
        "ecosystem.theory.laws",
        "ecosystem.theory.domains",
    ],
    "values": [
        "ecosystem.spec",
        "ecosystem.calendar",
        "ecosystem.times",
        "ecosystem.curves",
        "ecosystem.registry",
        "ecosystem.streams",
        "ecosystem.errors",
    ],
    "tables": ["ecosystem.corpus.schema"],
}
"""Page of the site below ``api/`` → dotted names of modules, classes and functions."""

_ABOUT = {
    "surface": "What `import ecosystem` offers. `ecosystem.EcosystemError` is under [Values and chance](values.md)."
}

TITLES = {
    "surface": "The package",
    "testing": "Laws for extensions",
    "policies": "Policies",
    "models": "Models",
    "sources": "Sources",
    "metrics": "Metrics and laws",
    "values": "Values and chance",
    "tables": "Tables",
}


def pages() -> dict[str, str]:
    """Return the pages for mkdocstrings: path below docs → Markdown."""
    return {
        f"api/{page}.md": "\n\n".join([f"# {TITLES[page]}", _ABOUT.get(page, ""), *(f"::: {name}" for name in names)])
        for page, names in API.items()
    }
