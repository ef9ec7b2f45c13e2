"""Which modules a module imports, read from the code without running it."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGES = ("pipeline", "stages")


def modules(package: str) -> list[str]:
    """Every module of a package, by its dotted name."""
    return sorted(_name(path) for path in (ROOT / package).rglob("*.py"))


def file_of(module: str) -> str:
    """A module's path in the repository."""
    path = Path(*module.split("."))
    return str(path / "__init__.py" if (ROOT / path).is_dir() else path.with_suffix(".py"))


@cache
def imports(module: str) -> frozenset[str]:
    """All that a module imports, anywhere in it, but for what only a type checker reads.

    Our own modules by their full names, with the packages that they lie in; others by their first.
    """
    tree = ast.parse((ROOT / file_of(module)).read_text())
    found: set[str] = set()
    for name in _imported(tree.body):
        parts = name.split(".")
        if parts[0] not in PACKAGES:
            found.add(parts[0])
            continue
        for end in range(1, len(parts) + 1):
            prefix = parts[:end]
            if (ROOT / file_of(".".join(prefix))).is_file():
                found.add(".".join(prefix))
    return frozenset(found - {module})


def closure(roots: Iterable[str]) -> set[str]:
    """Everything that running these modules loads, themselves included."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found.add(module)
            if module.split(".")[0] in PACKAGES:
                waiting += imports(module)
    return found


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imported(body: Iterable[ast.AST]) -> Iterator[str]:
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            assert node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from _imported(node.orelse)
        else:
            yield from _imported(ast.iter_child_nodes(node))
