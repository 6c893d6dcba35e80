"""The how-tos do what they say: the blocks of each page run in order, as a reader would run them."""

import multiprocessing
import os
import re
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest

DOCS = Path(__file__).parent.parent / "docs"
PAGES = sorted([*(DOCS / "howto").glob("*.md"), DOCS / "run-folder.md"])


def run_blocks(page: Path) -> int:
    """Run the Python blocks of a page in this process; return how many there are."""
    os.chdir(DOCS.parent)
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    names: dict = {"__name__": "howto"}
    for block in blocks:
        exec(compile(block, str(page), "exec"), names)
    return len(blocks)


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_blocks_run(page):
    # In a process of its own, since what a page registers is there for good.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(run_blocks, page).result() >= 3


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name == "howto"], ids=lambda page: page.stem)
def test_the_concepts_are_counted_right(page):
    text = page.read_text(encoding="utf-8")
    table = text.split("\nYou need ")[1].split("\n## ")[0]
    most = max(int(count) for count in re.findall(r"\*\*(\d+)(?: concepts)?\*\*", table))
    assert len(re.findall(r"^\| (?!\||---)", table, re.MULTILINE)) == most
