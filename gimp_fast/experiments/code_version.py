"""A digest of the code that a result depends on, so that kept results are of this code."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]
# The registry imports every model, of which a run needs one; how files are made into a cohort is
# in the cohort's fingerprint.
_NOT_FOLLOWED = ("gimp_fast.models", "gimp_fast.data")
_ENGINE = ("gimp_fast.training.engine", "gimp_fast.data.cohort")


def code_digest(*modules: str) -> str:
    """sha256 over these modules, the engine, and all of the package that they import.

    Comments, docstrings and layout do not count.
    """
    seen: dict[str, str] = {}
    waiting = [*modules, *_ENGINE]
    while waiting:
        name = waiting.pop()
        path = _file_of(name)
        if name in seen or name in _NOT_FOLLOWED or path is None:
            continue
        seen[name], found = _parsed(path)
        waiting += found
    text = "\n".join(f"{name} {seen[name]}" for name in sorted(seen))
    text += f"\ntorch {metadata.version('torch')}"
    return hashlib.sha256(text.encode()).hexdigest()


def _file_of(module: str) -> Path | None:
    """A module's file, without importing it; None if it is not Python."""
    parts = module.split(".")[1:]
    roots = [PACKAGE.joinpath(*parts)]
    if parts[:1] == ["kernels"]:  # beside the package in a checkout, inside it when installed
        roots.append(PACKAGE.parent.joinpath(*parts))
    for root in roots:
        for path in (root / "__init__.py", root.with_suffix(".py")):
            if path.is_file():
                return path
    return None


@functools.cache
def _parsed(path: Path) -> tuple[str, tuple[str, ...]]:
    """Digest of a file's code, and the modules of the package that it imports."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = tuple(_imports(tree))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list) and body and _is_text(body[0]):
            body[:] = body[1:]
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest(), imports


def _is_text(node: ast.stmt) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            # What is imported may be a module or a name in one; the former has a file.
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        yield from (name for name in names if name.startswith("gimp_fast."))
