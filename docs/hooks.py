"""MkDocs hooks for building the site: generated pages, links into the repository, and a check for foreign resources."""

from __future__ import annotations

import logging
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))  # MkDocs removes it again once this module is loaded
from docs import api, reference  # noqa: E402

log = logging.getLogger("mkdocs.hooks")

ROOT_PAGES = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}
"""Pages at the root of the repository → their paths on the site."""

_LINK = re.compile(r"\[([^\]]+)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
_COLUMNS = re.compile(r"^<!-- columns: (\w+) -->$", re.MULTILINE)
_FOREIGN = re.compile(r"<(?:script|link|img|iframe|source)\b[^>]*\b(?:src|href)=[\"']?(?:https?:)?//[^\s>]*")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages of the reference, of the Python API and of the repository's root."""
    root_pages = {page: (ROOT / name).read_text(encoding="utf-8") for name, page in ROOT_PAGES.items()}
    for page, text in {**reference.pages(), **api.pages(), **root_pages}.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Fill in the columns of tables, and replace links to files outside the site by their paths."""
    if page.file.generated_by and page.file.src_uri not in ROOT_PAGES.values():
        return markdown
    uri = page.file.src_uri
    folder = ROOT if uri in ROOT_PAGES.values() else (ROOT / "docs" / uri).parent
    linked = _LINK.sub(lambda link: _relinked(link, folder, uri), markdown)
    return _COLUMNS.sub(lambda marker: reference.columns(marker[1]), linked)


def _relinked(link: re.Match[str], folder: Path, uri: str) -> str:
    target = (folder / link[2]).resolve()
    name = target.relative_to(ROOT).as_posix() if target.is_relative_to(ROOT) else ""
    page = (
        Path(name).relative_to("docs").as_posix()
        if name.startswith("docs/") and name.endswith(".md")
        else ROOT_PAGES.get(name)
    )
    if page is not None:
        return f"[{link[1]}]({'../' * uri.count('/')}{page}{link[3] or ''})"
    if not name or not target.exists():
        log.warning("%s links to %s, which is not in the repository", uri, link[2])
    return f"`{name}`" if link[1].strip("`") in name else f"{link[1]} (`{name}`)"


def on_post_page(output: str, page: Any, config: Any) -> str:
    """Refuse a page that loads a resource from another host: the site must work offline.

    Raises PluginError with the page and the element.
    """
    foreign = _FOREIGN.search(output)
    if foreign:
        raise PluginError(f"{page.file.src_uri}: {foreign[0]} is fetched from another host")
    return output
