"""What the site's hooks do to pages while MkDocs builds it."""

import logging
import types

import pytest

pytest.importorskip("mkdocs", reason="the extra docs is not installed")

from mkdocs.exceptions import PluginError

from docs import hooks


def shown(markdown: str, uri: str = "howto/filter.md") -> str:
    file = types.SimpleNamespace(src_uri=uri, generated_by=None)
    return hooks.on_page_markdown(markdown, types.SimpleNamespace(file=file), None, None)


@pytest.mark.parametrize(
    ("link", "result"),
    [
        ("[`base.py`](../../ecosystem/policies/base.py)", "`ecosystem/policies/base.py`"),
        ("[`Filter`](../../ecosystem/policies/base.py)", "`Filter` (`ecosystem/policies/base.py`)"),
        ("[columns](../run-folder.md#corpus)", "[columns](../run-folder.md#corpus)"),
        ("[how](../../CONTRIBUTING.md)", "[how](../contributing.md)"),
        ("[elsewhere](https://example.org/a.py)", "[elsewhere](https://example.org/a.py)"),
    ],
)
def test_links_to_files_that_are_not_on_the_site_become_their_paths(link, result):
    assert shown(link) == result


def test_links_of_pages_at_the_root_lead_to_the_site():
    assert shown("[why](docs/architecture.md)", "contributing.md") == "[why](architecture.md)"


def test_a_link_to_a_file_that_does_not_exist_is_a_warning_which_fails_the_build(caplog):
    with caplog.at_level(logging.WARNING, logger="mkdocs.hooks"):
        shown("[gone](../../ecosystem/gone.py)")
    assert "howto/filter.md links to ../../ecosystem/gone.py" in caplog.text


def test_columns_are_filled_in():
    assert "| `reader` | `String` |" in shown("before\n\n<!-- columns: ledger -->\n\nafter")


@pytest.mark.parametrize("foreign", ['<script src="https://a.example/x.js">', '<link rel=icon href="//a.example/i">'])
def test_a_page_that_fetches_from_another_host_is_refused(foreign):
    page = types.SimpleNamespace(file=types.SimpleNamespace(src_uri="index.md"))
    own = '<script src="assets/x.js"></script><a href="https://a.example">a link is read, not fetched</a>'
    assert hooks.on_post_page(own, page, None) == own
    with pytest.raises(PluginError, match=r"index\.md"):
        hooks.on_post_page(own + foreign, page, None)
