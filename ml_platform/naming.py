"""Names of code: "package.module:attribute", checked when a pipeline is defined, imported when a stage needs it."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.util
from pathlib import Path
from typing import Any

from ml_platform.errors import DeclarationError


def load_named(name: str) -> Any:
    """Import and return what a "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_named(where: str, name: str) -> None:
    """Check, without importing it, that "module:attribute" exists.

    Raises:
        DeclarationError: it is written wrongly, there is no such module, or nothing of that name at its top level.
    """
    module, colon, attribute = name.partition(":")
    if not (colon and module and attribute.isidentifier()):
        raise DeclarationError(
            "Not of the form module:attribute.", where=where, got=name, fix="write package.module:name"
        )
    path = module_path(module)
    if path is None:
        raise DeclarationError("There is no such module.", where=where, got=module, fix="check the spelling")
    if attribute not in _top_level_names(path):
        raise DeclarationError("The module defines nothing of that name.", where=f"{where}, {path}", got=attribute)


def module_path(module: str) -> Path | None:
    """The source file of a module, found without running it or its siblings; None where there is none."""
    try:
        spec = importlib.util.find_spec(module)
    except (ModuleNotFoundError, ValueError):
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), filename=str(path))


def _top_level_names(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(_parse(path)):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.ImportFrom | ast.Import):
            names.update((alias.asname or alias.name).split(".")[0] for alias in node.names)
    return names


def texts_of(module: str) -> set[str]:
    """Every string and keyword name in a module's source: what its functions can call a column."""
    path = module_path(module)
    assert path is not None, module
    nodes = list(ast.walk(_parse(path)))
    texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return texts | {n.arg for n in nodes if isinstance(n, ast.keyword) and n.arg}
