"""Names of code: "package.module:attribute", checked when a pipeline is defined, imported when a stage needs it."""

from __future__ import annotations

import ast
import functools
import importlib
import importlib.machinery
import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ml_platform.errors import DeclarationError

Kind = Literal["function", "schema"]
_KINDS: Mapping[Kind, tuple[type[ast.stmt], ...]] = {
    "function": (ast.FunctionDef, ast.ImportFrom),
    "schema": (ast.ClassDef, ast.Assign, ast.AnnAssign, ast.ImportFrom),
}
_WANTED: Mapping[Kind, str] = {"function": "a `def`", "schema": "a class, or a schema that is assigned,"}


def load_named(name: str) -> Any:
    """Import and return what a "module:attribute" names."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def check_named(where: str, name: object, kind: Kind) -> None:
    """Check, without importing it, that "module:attribute" exists and can be a function, or a schema.

    A function is a `def`; a schema is a class or something assigned. Either may be imported from elsewhere.

    Raises:
        DeclarationError: it is written wrongly, there is no such module, nothing of that name at its top level, or
            something of another kind.
    """
    module, colon, attribute = name.partition(":") if isinstance(name, str) else ("", "", "")
    if not (colon and module and attribute.isidentifier()):
        raise DeclarationError(
            "Not of the form module:attribute.", where=where, got=repr(name), fix="write package.module:name"
        )
    path = module_path(module)
    if path is None:
        raise DeclarationError("There is no such module.", where=where, got=module, fix="check the spelling")
    found = _top_level(path).get(attribute)
    if found is None:
        raise DeclarationError("The module defines nothing of that name.", where=f"{where}, {path}", got=attribute)
    if not isinstance(found, _KINDS[kind]):
        raise DeclarationError(
            f"It does not name a {kind}.",
            where=f"{where}, {path}:{found.lineno}",
            got=attribute,
            fix=f"name {_WANTED[kind]} at the top level of the module",
        )


def module_path(module: str) -> Path | None:
    """The source file of a module, found without running it or the packages that it is in; None where there is none."""
    top, *rest = module.split(".")
    if not all(part.isidentifier() for part in (top, *rest)):
        return None
    try:
        spec = importlib.util.find_spec(top)
    except (ModuleNotFoundError, ValueError):
        return None
    name = top
    for part in rest:
        if spec is None or spec.submodule_search_locations is None:
            return None
        name = f"{name}.{part}"
        spec = importlib.machinery.PathFinder.find_spec(name, list(spec.submodule_search_locations))
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def texts_of(module: str) -> set[str]:
    """Every string and keyword name in a module's source: what its functions can call a column."""
    path = module_path(module)
    assert path is not None, module
    nodes = list(ast.walk(_parse(path)))
    texts = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    return texts | {n.arg for n in nodes if isinstance(n, ast.keyword) and n.arg}


def keywords_of(function: str) -> set[str] | None:
    """What a function "module:name" of `(first, **keywords)` takes after its first argument.

    None where that cannot be told from the source: it takes any keyword, is decorated, or is not found.
    """
    _, node = _definition(function)
    if not isinstance(node, ast.FunctionDef) or node.decorator_list or node.args.kwarg:
        return None
    given = node.args
    plain = [argument.arg for argument in given.args]
    return {*(plain if given.posonlyargs else plain[1:]), *(argument.arg for argument in given.kwonlyargs)}


def columns_of(schema: str) -> set[str] | None:
    """Every name that can be a column of a schema class "module:name": annotated attributes, strings, keywords.

    None where that cannot be told from the source: it is no class, or inherits from another team's code.
    """
    module, node = _definition(schema)
    path = module_path(module)
    if not isinstance(node, ast.ClassDef) or path is None:
        return None
    modules = {module}
    for statement in _top_level(path).values():
        if isinstance(statement, ast.ImportFrom):
            source = _source_of(statement, module, path)
            if _of_one_package(source, module):
                modules.add(source)
            elif source.partition(".")[0] != "pandera" and _names(node.bases) & _bound(statement):
                return None
    columns: set[str] = set()
    for found in modules:
        at = module_path(found)
        if at is not None:
            nodes = ast.walk(_parse(at))
            columns |= {n.target.id for n in nodes if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)}
            columns |= texts_of(found)
    return columns


def optimizers() -> set[str]:
    """The classes of `torch.optim`, read from its source; none where torch is not installed."""
    path = module_path("torch.optim")
    if path is None:
        return set()
    imported = [node for node in ast.walk(_parse(path)) if isinstance(node, ast.ImportFrom)]
    return {name for node in imported for name in _bound(node) if name[0].isupper()} - {"Optimizer"}


@functools.cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes(), filename=str(path))


@functools.cache
def _top_level(path: Path) -> dict[str, ast.stmt]:
    """The statement that binds each name of a module, also inside `if`, `try`, `with` and loops."""
    bound: dict[str, ast.stmt] = {}
    rest = list(reversed(_parse(path).body))
    while rest:
        statement = rest.pop()
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bound[statement.name] = statement
        elif isinstance(statement, ast.ImportFrom | ast.Import):
            bound.update(dict.fromkeys(_bound(statement), statement))
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            nodes = [node for target in targets for node in ast.walk(target)]
            bound.update({n.id: statement for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)})
        else:
            for body in ("finalbody", "orelse", "handlers", "body"):
                for inner in reversed(getattr(statement, body, [])):
                    rest.extend(reversed(inner.body) if isinstance(inner, ast.ExceptHandler) else [inner])
    return bound


def _definition(name: str) -> tuple[str, ast.stmt | None]:
    """The module and the statement that define what "module:name" names, through imports within one package."""
    module, _, attribute = name.partition(":")
    for _hop in range(8):
        path = module_path(module)
        node = _top_level(path).get(attribute) if path else None
        if path is None or not isinstance(node, ast.ImportFrom):
            return module, node
        source = _source_of(node, module, path)
        if not _of_one_package(source, module):
            break
        attribute = next(a.name for a in node.names if (a.asname or a.name) == attribute)
        module = source
    return module, None


def _source_of(node: ast.ImportFrom, module: str, path: Path) -> str:
    """The absolute name of the module that is imported from."""
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    package = parts if path.name == "__init__.py" else parts[:-1]
    return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])


def _of_one_package(one: str, other: str) -> bool:
    return one.partition(".")[0] == other.partition(".")[0]


def _bound(node: ast.ImportFrom | ast.Import) -> set[str]:
    return {(alias.asname or alias.name).partition(".")[0] for alias in node.names}


def _names(nodes: Sequence[ast.AST]) -> set[str]:
    return {n.id for node in nodes for n in ast.walk(node) if isinstance(n, ast.Name)}
