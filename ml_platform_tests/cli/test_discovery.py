"""Which pipelines there are, and what is said where a module is not what it should be."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ml_platform import discovery
from ml_platform.errors import DeclarationError
from ml_platform.settings import Settings

DECLARATION = """
from dataclasses import replace
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE as FLIGHTS
PIPELINE = replace(FLIGHTS, name={name!r})
"""


@pytest.fixture
def modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that Python finds modules in, and forgets afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if getattr(sys.modules[name], "__file__", None) and str(tmp_path) in str(sys.modules[name].__file__):
            del sys.modules[name]


def declare(folder: Path, module: str, text: str) -> None:
    *packages, last = module.split(".")
    for package in packages:
        folder = folder / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
    (folder / f"{last}.py").write_text(text)


def found(home: Path, names: str) -> list[str]:
    return list(discovery.pipelines(Settings(home=home, pipelines=names)))


def test_the_pipelines_of_the_platform_are_found(tmp_path: Path) -> None:
    assert "nyc_flights" in found(tmp_path, "")


@pytest.mark.parametrize("named", ["shop_a.churn.pipeline", "shop_a.churn", "shop_a", "shop_a, shop_a.churn"])
def test_a_module_a_package_or_a_folder_of_packages_may_be_named(modules: Path, named: str) -> None:
    declare(modules, "shop_a.churn.pipeline", DECLARATION.format(name="churn"))
    assert {"churn", "nyc_flights"} <= set(found(modules, named))


def test_two_pipelines_of_one_name_are_refused_naming_both_modules(modules: Path) -> None:
    declare(modules, "first_b", DECLARATION.format(name="churn"))
    declare(modules, "second_b", DECLARATION.format(name="churn"))
    with pytest.raises(DeclarationError) as refused:
        found(modules, "first_b,second_b")
    assert "first_b" in str(refused.value)
    assert "second_b" in str(refused.value)
    assert "churn" in str(refused.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("import no_such_library", "no_such_library"),
        ("1 / 0", "ZeroDivisionError"),
        ("def broken(:", "SyntaxError"),
        ("PIPELINE = 'churn'", "Pipeline named PIPELINE"),
        (DECLARATION.format(name="Churn!"), "Churn!"),
    ],
)
def test_a_broken_module_is_named_with_its_reason(modules: Path, text: str, said: str) -> None:
    declare(modules, "broken_c", text)
    try:
        with pytest.raises(DeclarationError) as refused:
            found(modules, "broken_c")
    finally:
        sys.modules.pop("broken_c", None)
    assert "broken_c" in str(refused.value)
    assert said in str(refused.value)


def test_a_module_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="no_such_package_d"):
        found(tmp_path, "no_such_package_d.churn")


def test_a_module_without_a_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(DeclarationError, match="holds no pipeline"):
        found(tmp_path, "ml_platform.errors")
