"""What benchmarks.house measures of a source tree, on a tree whose figures are known."""

from pathlib import Path

import pytest

from benchmarks.house import House, main

FILES = {
    "ecosystem/__init__.py": '"""A package."""\n',
    "ecosystem/alone.py": "import os\nfrom ecosystem.inner import far\n",
    "ecosystem/inner/__init__.py": "",
    "ecosystem/inner/near.py": (
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from ecosystem.inner.far import deep\n\n\n"
        'def long(a,\n         b):\n    """Say\n    much."""\n    # why\n\n    x = """\n\n    """\n    return x\n'
    ),
    "ecosystem/inner/far.py": (
        "class Thing:\n    def deep(self):\n        from . import near\n        for a in near:\n            if a:\n"
        "                pass\n            elif a is None:\n                with a:\n                    pass\n"
    ),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_circles_count_imports_for_type_checkers_and_inside_functions(tree):
    assert House.measure(tree).circles == [["ecosystem.inner.far", "ecosystem.inner.near"]]


def test_functions_are_measured_without_docstrings_comments_and_blank_lines(tree):
    functions = {f.name: f for f in House.measure(tree).functions}
    assert functions["ecosystem.inner.near.long"].lines == 6  # two of its head, three of a string, one to return
    assert functions["ecosystem.inner.far.Thing.deep"].depth == 3  # for, if (an elif is no deeper), with


def test_the_table_names_places(tree, capsys):
    figures = House.measure(tree).figures()
    assert figures["files at the top of the package"] == "2" and figures["files"] == "5"
    assert figures["longest file"] == f"{FILES['ecosystem/inner/near.py'].count(chr(10))} (`ecosystem.inner.near`)"
    main([str(tree)])
    printed = capsys.readouterr().out
    assert "| import circles | 1 |" in printed
    assert "circle 1, 2 modules: ecosystem.inner.far, ecosystem.inner.near" in printed


def test_a_folder_without_the_package_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such package"):
        House.measure(tmp_path)
