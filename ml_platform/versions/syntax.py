"""What a module's source says: a hash of what it does, one of each of its parts, and what it imports and names."""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ml_platform.errors import DeclarationError

MODULE_LEVEL = "module-level code"
"""The part of a module that is neither a definition nor an import."""
_TEXT_LENGTH = 100  # of a string that may name a file
_LOADERS = frozenset({"import_module", "__import__", "load_named", "resolve_name", "run_module", "files", "get_data"})
"""Functions whose first argument, where it is a literal, names a module that they import."""


@dataclass(frozen=True)
class Import:
    """`import base` (no names), or `from base import names`; "*" among them stands for all."""

    base: str
    names: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A module's source, read.

    Args:
        digest: hash of its syntax tree, without comments, docstrings and formatting.
        imports: what it imports, at whatever depth.
        attributes: by each imported dotted name, the attributes of it that are used: a package's may be modules.
        exports: the names in its `__all__`.
        texts: its string constants, the short ones: they may be names of files.
        patterns: those of them with a *, such as "*.json".
        paths: those of them with a slash inside.
        asks_where: whether it uses `__file__`, so that what it names may lie beside its package.
        effects: of a package's `__init__`: hash of what it does beyond importing and defining; None where nothing.
        effect_imports: the imports behind those effects.
    """

    digest: str
    imports: tuple[Import, ...] = ()
    attributes: tuple[tuple[str, frozenset[str]], ...] = ()
    exports: tuple[str, ...] = ()
    texts: frozenset[str] = frozenset()
    patterns: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    asks_where: bool = False
    effects: str | None = None
    effect_imports: tuple[Import, ...] = ()


def read_source(file: Path, name: str, *, is_package: bool) -> Source:
    """Read a module. What is compiled counts with its bytes, and nothing is known of what it imports.

    Raises:
        DeclarationError: it has a syntax error.
    """
    data = file.read_bytes()
    if file.suffix != ".py":
        return Source(hashlib.sha256(data).hexdigest()[:32])
    tree = _parse(data, file, name)
    found = _Found(name if is_package else name.rpartition(".")[0])
    found.walk([tree])
    source = Source(
        digest=_hash(tree),
        imports=tuple(dict.fromkeys(found.imports)),
        attributes=found.attributes(),
        exports=_exports(tree),
        texts=frozenset(found.texts),
        patterns=tuple(text for text in found.texts if "*." in text and "/" not in text),
        paths=tuple(text for text in found.texts if "/" in text.strip("/") and not text.startswith("/")),
        asks_where=found.asks_where,
    )
    effects, imports = _effects(tree.body) if is_package else ([], [])
    if not effects:
        return source
    behind = _Found(name)
    behind.walk(imports)
    return replace(source, effects=_hash(effects), effect_imports=tuple(behind.imports))


def parts_of(file: Path, name: str, digest: str) -> dict[str, str]:
    """A hash of each part of a module: "function build", "method Model.fit", "constant LIMIT", "import of numpy".

    Args:
        file: its source.
        name: of the module.
        digest: of the module, or of its effects, as it was read before. Where it is another by now, or where the
            module is compiled, nothing is known of its parts.
    """
    if file.suffix != ".py":
        return {}
    tree = _parse(file.read_bytes(), file, name)
    body: Sequence[ast.stmt] = tree.body
    if _hash(tree) != digest:
        body = _effects(tree.body)[0]
        if _hash(body) != digest:
            return {}
    found: dict[str, list[str]] = {}
    for statement in body:
        if not is_text(statement):
            for part, node in _parts(statement):
                found.setdefault(part, []).append(_hash(node))
    return {part: hashlib.sha256(" ".join(hashes).encode()).hexdigest()[:16] for part, hashes in found.items()}


def _parse(data: bytes, file: Path, name: str) -> ast.Module:
    try:
        return ast.parse(data, filename=str(file))
    except (SyntaxError, ValueError) as error:
        line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
        raise DeclarationError(
            f"The module {name} has a syntax error.", where=f"{file}{line}", got=error, fix="correct it"
        ) from error


# What it imports and names


class _Found:
    """What some syntax trees import and name. `package` is where relative imports begin."""

    def __init__(self, package: str) -> None:
        self.package = package
        self.imports: list[Import] = []
        self.texts: list[str] = []
        self.asks_where = False
        self._bound: dict[str, str] = {}
        self._used: dict[str, set[str]] = {}

    def walk(self, trees: Iterable[ast.AST]) -> None:
        stack = list(trees)
        while stack:
            node = stack.pop()
            if isinstance(node, ast.Import):
                for alias in node.names:
                    self.imports.append(Import(alias.name))
                    top = alias.name.partition(".")[0]
                    self._bound[alias.asname or top] = alias.name if alias.asname else top
                continue
            if isinstance(node, ast.ImportFrom):
                base = self._absolute("." * node.level + (node.module or ""))
                self.imports.append(Import(base, tuple(alias.name for alias in node.names)))
                self._bound |= {alias.asname or alias.name: f"{base}.{alias.name}" for alias in node.names}
                continue
            if isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
                stack += node.orelse
                continue
            if is_text(node):
                continue
            if isinstance(node, ast.Attribute):
                self._attribute(node)
            elif isinstance(node, ast.Call):
                self._call(node)
            elif isinstance(node, ast.Name):
                self.asks_where |= node.id == "__file__"
            elif isinstance(node, ast.Constant):
                if isinstance(node.value, str) and 0 < len(node.value) <= _TEXT_LENGTH and "\n" not in node.value:
                    self.texts.append(node.value)
                continue
            for field in node._fields:
                value = getattr(node, field, None)
                if isinstance(value, list):
                    stack += [each for each in value if isinstance(each, ast.AST)]
                elif isinstance(value, ast.AST) and field != "ctx":
                    stack.append(value)

    def attributes(self) -> tuple[tuple[str, frozenset[str]], ...]:
        """By imported name, the attributes that are used of it, "a.b" for what is used of an attribute."""
        return tuple((self._bound[n], frozenset(used)) for n, used in self._used.items() if n in self._bound)

    def _absolute(self, name: str) -> str:
        tail = name.lstrip(".")
        if not (level := len(name) - len(tail)):
            return name
        parts = self.package.split(".")
        return ".".join([*parts[: len(parts) - level + 1], *([tail] if tail else [])])

    def _attribute(self, node: ast.Attribute) -> None:
        chain = [node.attr]
        inner = node.value
        while isinstance(inner, ast.Attribute):
            chain.append(inner.attr)
            inner = inner.value
        if isinstance(inner, ast.Name):
            self._used.setdefault(inner.id, set()).add(".".join(reversed(chain)))

    def _call(self, node: ast.Call) -> None:
        first = node.args[0] if node.args else None
        if _name(node.func) not in _LOADERS or not isinstance(first, ast.Constant) or not isinstance(first.value, str):
            return
        module = first.value.partition(":")[0]
        if module.startswith("."):
            anchor = [*node.args[1:2], *(keyword.value for keyword in node.keywords if keyword.arg == "package")]
            if anchor and isinstance(anchor[0], ast.Constant) and isinstance(anchor[0].value, str):
                module = _Found(anchor[0].value)._absolute(module)
            else:
                module = self._absolute(module)  # of __package__, in one way or another
        self.imports.append(Import(module))


def _exports(tree: ast.Module) -> tuple[str, ...]:
    found: list[str] = []
    for statement in tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        value = getattr(statement, "value", None)
        if any(isinstance(t, ast.Name) and t.id == "__all__" for t in targets) and value is not None:
            found += [n.value for n in ast.walk(value) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return tuple(found)


def _name(node: ast.expr) -> str:
    """`name` of `name` and of `module.name`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


# What a package does while it is imported


def _effects(body: Sequence[ast.stmt]) -> tuple[list[ast.stmt], list[ast.stmt]]:
    """The statements that do more than import and define, with the definitions that they use; and their imports."""
    chosen = {id(statement) for statement in body if not _only_defines(statement)}
    if not chosen:
        return [], []
    bound = [(statement, names) for statement in body if (names := _binds(statement))]
    used: set[str] = set()
    waiting = [statement for statement in body if id(statement) in chosen]
    while waiting:
        names = {node.id for node in ast.walk(waiting.pop()) if isinstance(node, ast.Name)} - used
        used |= names
        for statement, binds in bound:
            if binds & names and id(statement) not in chosen:
                chosen.add(id(statement))
                waiting.append(statement)
    taken = [statement for statement in body if id(statement) in chosen]
    imports: list[ast.stmt] = [each for each in taken if isinstance(each, ast.Import | ast.ImportFrom)]
    return [statement for statement in taken if statement not in imports], imports


def _binds(statement: ast.stmt) -> set[str]:
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names: set[str] = set()
    for node in ast.walk(statement):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
    return names


def _only_defines(statement: ast.stmt) -> bool:
    """Whether a module's statement only binds names of that module."""
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name | ast.Tuple) for target in statement.targets)
    if isinstance(statement, ast.AnnAssign):
        return isinstance(statement.target, ast.Name)
    if isinstance(statement, ast.If):
        return all(_only_defines(each) for each in (*statement.body, *statement.orelse))
    defining = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Pass
    return isinstance(statement, defining) or is_text(statement)


# Its parts


def _parts(statement: ast.stmt) -> Iterator[tuple[str, ast.AST | list[ast.stmt]]]:
    """The parts that a statement at the top of a module makes up, each with what is hashed of it."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
        yield f"function {statement.name}", statement
    elif isinstance(statement, ast.ClassDef):
        methods = [each for each in statement.body if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)]
        yield from ((f"method {statement.name}.{method.name}", method) for method in methods)
        rest = [each for each in statement.body if each not in methods]
        yield f"class {statement.name}", ast.ClassDef(**{**dict(ast.iter_fields(statement)), "body": rest})
    elif isinstance(statement, ast.Import):
        yield from ((f"import of {alias.name}", alias) for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        base = "." * statement.level + (statement.module or "")
        dot = "" if base.endswith(".") else "."
        yield from ((f"import of {base}{dot}{alias.name}", alias) for alias in statement.names)
    else:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        flat = [e for t in targets for e in (t.elts if isinstance(t, ast.Tuple | ast.List) else [t])]
        names = [each.id for each in flat if isinstance(each, ast.Name)]
        plain = isinstance(statement, ast.Assign | ast.AnnAssign) and len(names) == len(flat)
        yield from ((f"constant {name}", statement) for name in names) if plain else [(MODULE_LEVEL, statement)]


def is_text(node: object) -> bool:
    """Whether it is a string that stands alone: a docstring, or a comment in its place."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


# Hashing


def _hash(tree: ast.AST | Sequence[ast.stmt]) -> str:
    words: list[str] = []
    _write(tree, words)
    return hashlib.sha256("".join(words).encode("utf-8", "surrogatepass")).hexdigest()[:32]


_NO_MEANING = frozenset({"ctx", "kind", "type_comment", "type_ignores"})


def _write(node: object, words: list[str]) -> None:
    """Write a syntax tree as text: no positions, no docstrings, and the same from every version of Python."""
    if isinstance(node, ast.AST):
        words.append(f"({type(node).__name__}")
        for name in node._fields:
            value = getattr(node, name, None)
            # Python versions differ in the empty fields that they have.
            if name in _NO_MEANING or value == [] or (value is None and not isinstance(node, ast.Constant)):
                continue
            words.append(f" {name}=")
            _write(value, words)
        words.append(")")
    elif isinstance(node, list):
        words.append("[")
        for each in node:
            if not is_text(each):
                _write(each, words)
        words.append("]")
    else:
        words.append(f"{type(node).__name__}:{node!r};")
