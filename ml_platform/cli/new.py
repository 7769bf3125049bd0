"""`ml-platform new`: writes a working pipeline to edit, with its test."""

from __future__ import annotations

import keyword
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ml_platform.errors import SetupError

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

EXAMPLES = """[bold]Examples[/bold]

  ml-platform new churn                into ml_platform/pipelines/churn
  ml-platform new churn --into ~/work  elsewhere, and says what to set

What it writes runs at once: ml-platform land churn && ml-platform run churn"""

PARTS = ("__init__.py", "pipeline.py", "schema.py", "features.py", "sample.py")


def new(
    name: Annotated[str, typer.Argument(help="Lower-case letters, digits and underscores.")],
    into: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where to write it. Default: this checkout's pipelines.")
    ] = None,
) -> None:
    """Write a working pipeline of your own, with its test."""
    from ml_platform.cli import common

    _check_name(name)
    settings = common.load_settings()
    root = checkout()
    if into is None and root is None:
        raise SetupError(
            "This is an installed ml-platform, not a checkout of it.",
            fix=f"say where to write: ml-platform new {name} --into FOLDER",
        )
    if into is None:
        assert root is not None
        folder, test = root / "ml_platform/pipelines" / name, root / f"ml_platform_tests/pipelines/test_{name}.py"
        package, depth = f"ml_platform.pipelines.{name}", 3
    else:
        into = into.expanduser().absolute()
        folder, test, package, depth = into / name, into / f"tests/test_{name}.py", name, 1
        _check_free(name)
    for path in (folder, test):
        if path.exists():
            raise SetupError("There is one already.", where=path, got=name, fix="take another name, or remove that one")
    write(name, package, depth, folder, test)

    console = common.output()
    for path in (folder, test):
        console.print(f"Wrote {path}", markup=False, soft_wrap=True)
    console.print("\nRun it, then edit it:")
    if into is not None:
        named = ",".join([*settings.pipeline_modules, name])
        console.print(f"  export PYTHONPATH='{into}' ML_PLATFORM_PIPELINES={named}", markup=False, soft_wrap=True)
    console.print(f"  ml-platform land {name} && ml-platform run {name}", markup=False)
    console.print(f"  python -m pytest '{test}'", markup=False, soft_wrap=True)


def checkout() -> Path | None:
    """The root of the checkout that this package lies in; None where it is installed without one."""
    root = Path(__file__).resolve().parents[2]
    return root if (root / "pyproject.toml").is_file() and (root / "ml_platform_tests").is_dir() else None


def write(name: str, package: str, depth: int, folder: Path, test: Path) -> None:
    """Write the pipeline's folder and its test.

    Args:
        name: of the pipeline.
        package: Python's name of the folder.
        depth: how many folders above the pipeline's module its import root lies, less one.
        folder: where the pipeline goes; must not exist.
        test: where its test goes; must not exist.
    """
    from importlib import resources
    from string import Template

    source: Traversable = resources.files("ml_platform").joinpath("template")
    imports = sorted([f"from {package} import pipeline, sample", "from ml_platform.settings import child_environment"])
    values = {
        "name": name,
        "package": package,
        "title": name.replace("_", " ").capitalize(),
        "depth": str(depth),
        "imports": "\n".join(imports),
    }
    targets = {f"{part}.tmpl": folder / part for part in PARTS} | {"test.py.tmpl": test}
    for template, target in targets.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        text = Template(source.joinpath(template).read_text(encoding="utf-8")).substitute(values)
        target.write_text(text, encoding="utf-8")


def _check_name(name: str) -> None:
    import re

    if not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", name) or keyword.iskeyword(name):
        raise SetupError(
            "That cannot be a pipeline's name.",
            got=repr(name),
            fix="lower-case letters, digits and underscores, from a letter on, at most 63, and no keyword of Python",
        )


def _check_free(name: str) -> None:
    """A package outside ml_platform must not hide another: `new random --into .` would break Python itself."""
    import importlib.util
    import sys

    if name in sys.stdlib_module_names or importlib.util.find_spec(name) is not None:
        raise SetupError("Python has a module of that name already.", got=name, fix="take another name")
