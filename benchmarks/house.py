"""Measure how a source tree is built: files, folders, import circles, the longest file and function, and nesting.

``python -m benchmarks.house [PATH]`` reads the package ``ecosystem`` below PATH (default: the current folder) without
importing it, so that any checkout can be measured. A circle is a set of modules that import each other, counting every
import statement, inside functions and for type checkers too. Lines of code are those that hold code, without
blank lines, comments and docstrings.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import networkx as nx

LONG = 50  # lines of code of a function
_BLOCKS = (ast.If, ast.For, ast.While, ast.With, ast.Try, ast.Match, ast.AsyncFor, ast.AsyncWith)
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
_BARE = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)


@dataclass(frozen=True)
class Function:
    """A function or method: its place, its lines of code, and how deep its blocks are nested."""

    name: str
    lines: int
    depth: int


@dataclass(frozen=True)
class House:
    """The figures of a source tree."""

    modules: dict[str, Path]
    lines: dict[str, int]  # of every module, all of them
    functions: list[Function]
    circles: list[list[str]]

    @classmethod
    def measure(cls, root: Path, package: str = "ecosystem") -> House:
        """Read every module of a package; raise FileNotFoundError if there is none."""
        folder = root / package
        if not folder.is_dir():
            raise FileNotFoundError(f"{folder}: no such package")
        modules = {_dotted(file, root): file for file in sorted(folder.rglob("*.py"))}
        texts = {name: file.read_text(encoding="utf-8") for name, file in modules.items()}
        trees = {name: ast.parse(text) for name, text in texts.items()}
        functions = [f for name, tree in trees.items() for f in _functions(tree, name, _code_lines(texts[name]))]
        lines = {name: len(text.splitlines()) for name, text in texts.items()}
        return cls(modules, lines, functions, _circles(trees, modules))

    def figures(self) -> dict[str, str]:
        """Return the figures by name, in the order of the table."""
        top = min(self.modules, key=len)
        file = max(self.lines, key=lambda name: self.lines[name])
        longest = max(self.functions, key=lambda f: f.lines)
        deepest = max(self.functions, key=lambda f: f.depth)
        parents = {path.parent for path in self.modules.values()}
        at_top = sum(path.parent == self.modules[top].parent for path in self.modules.values())
        most = max(parents, key=lambda folder: sum(path.parent == folder for path in self.modules.values()))
        fullest = sum(path.parent == most for path in self.modules.values())
        return {
            "files at the top of the package": str(at_top),
            "files": str(len(self.modules)),
            "folders, the package itself among them": str(len(parents)),
            "most files in a folder": f"{fullest} (`{most.name}`)",
            "import circles": str(len(self.circles)),
            "modules in circles": str(sum(map(len, self.circles))),
            "lines": f"{sum(self.lines.values()):,}",
            "longest file": f"{self.lines[file]} (`{file}`)",
            "files of more than 300 lines": str(sum(n > 300 for n in self.lines.values())),
            "functions": f"{len(self.functions):,}",
            "longest function, lines of code": f"{longest.lines} (`{longest.name}`)",
            f"functions of more than {LONG} lines of code": str(sum(f.lines > LONG for f in self.functions)),
            "deepest nesting of blocks": f"{deepest.depth} (`{deepest.name}`)",
            "functions nested more than 4 deep": str(sum(f.depth > 4 for f in self.functions)),
        }


def _dotted(file: Path, root: Path) -> str:
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _code_lines(text: str) -> set[int]:
    """Return the numbers of the lines that hold code; docstrings are still among them."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return {row for t in tokens if t.type not in _BARE for row in range(t.start[0], t.end[0] + 1)}


def _functions(tree: ast.AST, place: str, code: set[int]) -> Iterator[Function]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, (*_FUNCTIONS, ast.ClassDef)):
            name = f"{place}.{node.name}"
            if isinstance(node, _FUNCTIONS):
                yield Function(name, len(_body_lines(node) & code), _depth(node))
            yield from _functions(node, name, code)
        else:
            yield from _functions(node, place, code)


def _body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> set[int]:
    """Return the lines of a function from its ``def`` on, without its docstring."""
    first, rest = node.body[0], set(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    if ast.get_docstring(node) is not None:
        rest -= set(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return rest


def _depth(node: ast.AST) -> int:
    """Return how deep blocks are nested; an ``elif`` is as deep as its ``if``, a function inside counts for itself."""
    deepest = 0
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, (*_FUNCTIONS, ast.ClassDef, ast.Lambda)):
            chained = isinstance(node, ast.If) and isinstance(child, ast.If) and [child] == node.orelse
            deepest = max(deepest, (isinstance(child, _BLOCKS) and not chained) + _depth(child))
    return deepest


def _circles(trees: dict[str, ast.Module], modules: dict[str, Path]) -> list[list[str]]:
    """Return the sets of modules that import each other, the largest first."""
    graph = nx.DiGraph((name, other) for name, tree in trees.items() for other in _imports(name, tree, modules))
    circles = [sorted(part) for part in nx.strongly_connected_components(graph) if len(part) > 1]
    return sorted(circles, key=lambda part: (-len(part), part))


def _imports(name: str, tree: ast.Module, modules: dict[str, Path]) -> Iterator[str]:
    """Yield the modules of the package that a module names in an import statement."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules and alias.name != name)
        elif isinstance(node, ast.ImportFrom):
            base = _base(name, node, modules)
            for alias in node.names:
                inner = f"{base}.{alias.name}"
                target = inner if inner in modules else base
                if target in modules and target != name:
                    yield target


def _base(name: str, node: ast.ImportFrom, modules: dict[str, Path]) -> str:
    if not node.level:
        return node.module or ""
    parts = name.split(".")
    up = node.level - (modules[name].name == "__init__.py")
    return ".".join([*parts[: len(parts) - up], *([node.module] if node.module else [])])


def main(arguments: list[str]) -> None:
    """Print the figures of a tree as a table, and its circles."""
    house = House.measure(Path(arguments[0] if arguments else "."))
    print("| | |\n|---|---|")
    for what, value in house.figures().items():
        print(f"| {what} | {value} |")
    for number, circle in enumerate(house.circles, 1):
        print(f"\ncircle {number}, {len(circle)} modules: {', '.join(circle)}")


if __name__ == "__main__":
    main(sys.argv[1:])
