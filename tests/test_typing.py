"""Those who read types see those of the public surface, though it is imported on first use."""

import ast
from importlib.resources import files

import ecosystem


def test_type_checkers_import_each_name_from_where_it_is_at_run_time():
    tree = ast.parse((files("ecosystem") / "__init__.py").read_text(encoding="utf-8"))
    [block] = [node for node in tree.body if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)]
    imported = {name.name: node.module for node in block.body for name in node.names}
    assert imported == ecosystem._HOME and sorted(imported) == sorted(ecosystem.__all__)


def test_the_package_says_that_it_is_typed():
    assert (files("ecosystem") / "py.typed").is_file()
