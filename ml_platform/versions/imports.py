"""Which modules a module reaches, and a hash of what each does: read from the source, nothing is imported or run."""

from __future__ import annotations

import ast
import hashlib
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from ml_platform.errors import DeclarationError

_WORDS_ONLY = frozenset({"ml_platform.batches", "ml_platform.errors", "ml_platform.naming", "ml_platform.pipeline"})
"""Modules that cannot change a result by themselves: texts for people, and the form of declarations, whose values the
stages that read them count among their parameters."""


@dataclass(frozen=True)
class _Place:
    """Where a module is: its file (None for a namespace package) and, for a package, its folders."""

    file: Path | None
    folders: tuple[str, ...] = ()

    @property
    def is_installed(self) -> bool:
        at = str(self.file or next(iter(self.folders), ""))
        return "site-packages" in at or "dist-packages" in at


@dataclass(frozen=True)
class _Parsed:
    """A module's hash, and what it imports: modules, and for each `from x import a, b` the pair (x, (a, b))."""

    digest: str
    effects: str | None
    imports: tuple[tuple[str, tuple[str, ...]], ...]


def closure(roots: tuple[str, ...]) -> tuple[dict[str, str], set[str]]:
    """Hashes of the first-party modules that the roots reach, and the names of other packages that these import."""
    find = _finder()
    own = {root.partition(".")[0] for root in roots}
    modules: dict[str, str] = {}
    packages: set[str] = set()
    seen: set[str] = set()
    on_the_way: set[str] = set()

    def is_own(name: str) -> bool:
        top = name.partition(".")[0]
        if top in sys.stdlib_module_names or top in sys.builtin_module_names:
            return False
        place = find(top)
        if place is not None and (top in own or not place.is_installed):
            return True
        packages.add(top)
        return False

    for root in roots:
        if not is_own(root) or find(root) is None:
            raise DeclarationError("There is no such module.", got=root, fix="check the spelling")
    waiting = list(roots)
    while waiting:
        name = waiting.pop()
        if name in seen or name in _WORDS_ONLY or not is_own(name):
            continue
        seen.add(name)
        place = find(name)
        if place is None:
            continue  # a module that is there on other machines only
        parts = name.split(".")
        on_the_way.update(".".join(parts[:count]) for count in range(1, len(parts)))
        if place.file is None:
            continue
        parsed = _parse(place.file, name, bool(place.folders))
        modules[name] = parsed.digest
        for base, names in parsed.imports:
            submodules = [f"{base}.{each}" for each in names if is_own(base) and find(f"{base}.{each}")]
            waiting += submodules
            if not names or len(submodules) < len(names):
                waiting.append(base)
            else:
                on_the_way.add(base)
    for name in on_the_way - modules.keys():
        place = find(name)
        if place is not None and place.file is not None and (effects := _parse(place.file, name, True).effects):
            modules[name] = effects
    return modules, packages


def _finder() -> Callable[[str], _Place | None]:
    """`_find` that looks at the disk once for each name."""
    global _path
    if _path != tuple(sys.path):
        _path = tuple(sys.path)
        _places.clear()
    found: dict[str, _Place | None] = {}

    def find(name: str) -> _Place | None:
        if name not in found:
            found[name] = _find(name)
        return found[name]

    return find


_places: dict[str, _Place] = {}
_path: tuple[str, ...] = ()


def _find(name: str) -> _Place | None:
    """Find a module's file as the import system would, without running its package."""
    place = _places.get(name)
    if place is not None and os.path.exists(place.file or place.folders[0]):
        return place
    parent, _, last = name.rpartition(".")
    if parent:
        above = _find(parent)
        place = _in_folders(above.folders, last) if above else None
    else:
        place = _top_level(name)
    if place is not None:
        _places[name] = place
    return place


def _top_level(name: str) -> _Place | None:
    for finder in sys.meta_path:
        find = getattr(finder, "find_spec", None)
        spec = find(name, None) if find else None
        if spec is not None:
            file = Path(spec.origin) if spec.has_location and spec.origin else None
            folders = tuple(spec.submodule_search_locations or ())
            return _Place(file, folders) if file or folders else None
    return None


def _in_folders(folders: Iterable[str], name: str) -> _Place | None:
    namespace = []
    for folder in folders:
        base = Path(folder, name)
        if (init := base / "__init__.py").is_file():
            return _Place(init, (str(base),))
        if (source := base.with_name(f"{name}.py")).is_file():
            return _Place(source)
        if compiled := sorted(Path(folder).glob(f"{name}.*.so")) if Path(folder).is_dir() else []:
            return _Place(compiled[0])
        if base.is_dir() and name.isidentifier() and name != "__pycache__":
            namespace.append(str(base))
    return _Place(None, tuple(namespace)) if namespace else None


_parsed: dict[Path, tuple[tuple[int, int, int], _Parsed]] = {}


def _parse(file: Path, name: str, is_package: bool) -> _Parsed:
    """Parse a module, unless it has been parsed and its file has not changed since."""
    stat = file.stat()
    stamp = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    known = _parsed.get(file)
    if known is not None and known[0] == stamp:
        return known[1]
    data = file.read_bytes()
    if file.suffix != ".py":
        parsed = _Parsed(hashlib.sha256(data).hexdigest()[:32], None, ())
    else:
        try:
            tree = ast.parse(data, filename=str(file))
        except (SyntaxError, ValueError) as error:
            line = f":{error.lineno}" if isinstance(error, SyntaxError) else ""
            raise DeclarationError(
                f"The module {name} has a syntax error.", where=f"{file}{line}", got=error, fix="correct it"
            ) from error
        package = name if is_package else name.rpartition(".")[0]
        effects = [statement for statement in tree.body if not _only_defines(statement)]
        imports = tuple(dict.fromkeys(_imports(tree, package)))
        parsed = _Parsed(_hash(tree), _hash(effects) if effects else None, imports)
    _parsed[file] = (stamp, parsed)
    return parsed


def _imports(tree: ast.AST, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    stack: list[ast.AST] = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = package.split(".")
                base = ".".join([*parts[: len(parts) - node.level + 1], *([base] if base else [])])
            yield base, tuple(alias.name for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.If) and _name(node.test) == "TYPE_CHECKING":
            stack += node.orelse
            continue
        elif isinstance(node, ast.Call) and _name(node.func) == "import_module":
            first = node.args[0] if node.args else None
            if isinstance(first, ast.Constant) and isinstance(first.value, str) and not first.value.startswith("."):
                yield first.value, ()
        stack += ast.iter_child_nodes(node)


def _name(node: ast.expr) -> str:
    """`name` of `name` and of `module.name`."""
    return node.id if isinstance(node, ast.Name) else node.attr if isinstance(node, ast.Attribute) else ""


def _only_defines(statement: ast.stmt) -> bool:
    """Whether a module's statement only binds names of that module."""
    if isinstance(statement, ast.Assign):
        return all(isinstance(target, ast.Name | ast.Tuple) for target in statement.targets)
    if isinstance(statement, ast.AnnAssign):
        return isinstance(statement.target, ast.Name)
    if isinstance(statement, ast.If):
        return all(_only_defines(each) for each in (*statement.body, *statement.orelse))
    defining = ast.Import | ast.ImportFrom | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Pass
    return isinstance(statement, defining) or _is_text(statement)


def _is_text(node: object) -> bool:
    """Whether it is a string that stands alone: a docstring, or a comment in its place."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _hash(tree: ast.AST | list[ast.stmt]) -> str:
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
            if not _is_text(each):
                _write(each, words)
        words.append("]")
    else:
        words.append(f"{type(node).__name__}:{node!r};")
