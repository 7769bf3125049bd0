"""A code version follows what the code does, however far away, and nothing of how it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.versions.code import CodeVersion, code_version

FILES = {
    "acme/__init__.py": "from acme.product import PRODUCT\n",
    "acme/product.py": "PRODUCT = dict(epochs=3)\n",
    "acme/features.py": (
        '"""Features."""\n'
        "from __future__ import annotations\n"
        "from typing import TYPE_CHECKING\n"
        "from . import near\n"
        "from .parts import shaped\n"
        "if TYPE_CHECKING:\n    from acme import only_types\n"
        "def compute(x):\n"
        '    """Compute."""\n'
        "    from acme.late import later\n"
        "    return near.scale(shaped(later(x)))\n"
    ),
    "acme/near.py": "import acme.far\ndef scale(x):\n    return acme.far.FACTOR * x\n",
    "acme/far.py": "import pyarrow\nimport no_such_package_anywhere\nFACTOR = 2\n",
    "acme/late.py": "def later(x):\n    return x\n",
    "acme/only_types.py": "X = 1\n",
    "acme/parts/__init__.py": "from .shape import shaped\n",
    "acme/parts/shape.py": "def shaped(x):\n    return x\n",
    "acme/unrelated.py": "X = 1\n",
}

Version = Callable[[], CodeVersion]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name, text in FILES.items():
        write(tmp_path, name, text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    assert "acme" not in sys.modules, "the code was imported"


def write(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    stat = path.stat()  # two edits within a tick of the clock, of one size: tell them apart as an editor's user would
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + hash(text) % 1_000_000))


def version(**options: object) -> CodeVersion:
    return code_version(["acme.features:compute"], params={"lookback": 1}, **options)  # type: ignore[arg-type]


def test_it_finds_what_is_reached(folder: Path) -> None:
    found = version(libraries=["polars"])
    assert set(found.modules) == {
        "acme.features",
        "acme.near",
        "acme.far",
        "acme.late",
        "acme.parts",
        "acme.parts.shape",
    }
    assert set(found.libraries) == {"pyarrow", "polars", "no-such-package-anywhere"}
    assert found.libraries["no-such-package-anywhere"] == "not installed"
    import pyarrow

    assert found.libraries["pyarrow"] == pyarrow.__version__


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("acme/features.py", "# A comment\n" + FILES["acme/features.py"]),
        ("acme/features.py", FILES["acme/features.py"].replace('"""Compute."""', '"""Compute all."""\n\n')),
        ("acme/features.py", FILES["acme/features.py"].replace("(x)", "( x )")),
        ("acme/far.py", FILES["acme/far.py"] + '"""What it is multiplied by."""\n'),
        ("acme/product.py", "PRODUCT = dict(epochs=5)\n"),
        ("acme/__init__.py", "from acme.product import PRODUCT\nfrom acme import unrelated\n"),
        ("acme/only_types.py", "X = 2\n"),
        ("acme/unrelated.py", "X = 2\n"),
        ("acme/README.md", "New words"),
        ("acme/test_features.py", "def test(): ...\n"),
    ],
)
def test_what_cannot_change_a_result_does_not_count(folder: Path, name: str, text: str) -> None:
    before = version()
    write(folder, name, text)
    after = version()
    assert after.value == before.value
    assert after.diff(before) == []


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("acme/features.py", FILES["acme/features.py"].replace("near.scale(", "-near.scale("), "acme.features changed"),
        ("acme/far.py", FILES["acme/far.py"].replace("2", "3"), "acme.far changed"),
        ("acme/late.py", "def later(x):\n    return -x\n", "acme.late changed"),
        ("acme/parts/shape.py", "def shaped(x):\n    return -x\n", "acme.parts.shape changed"),
        ("acme/near.py", FILES["acme/near.py"] + "import acme.unrelated\n", "acme.unrelated added"),
        ("acme/__init__.py", "import os\nos.environ['TZ'] = 'UTC'\n", "acme added"),
        ("acme/far.py", "FACTOR = 2\n", "library pyarrow removed"),
        ("acme/far.py", FILES["acme/far.py"].replace("2", "2.0"), "acme.far changed"),
    ],
)
def test_what_can_change_a_result_counts(folder: Path, name: str, text: str, says: str) -> None:
    before = version()
    write(folder, name, text)
    after = version()
    assert after.value != before.value
    assert any(line.endswith(says) for line in after.diff(before)), after.diff(before)
    write(folder, name, FILES[name])
    assert version().value == before.value, "back to what it was is the version that it was"


def test_a_module_named_by_a_string_is_followed(folder: Path) -> None:
    write(folder, "acme/late.py", "import importlib\nX = importlib.import_module('acme.unrelated')\n")
    assert "acme.unrelated" in version().modules


def test_parameters_and_roots_count() -> None:
    def of(**params: object) -> CodeVersion:
        return code_version([], params=params)

    base = of(recipe={"epochs": 3, "rate": 0.1})
    assert of(recipe={"rate": 0.1, "epochs": 3}) == base
    assert of(recipe={"epochs": 5, "rate": 0.1}).diff(base) == ["parameter recipe.epochs: 3 -> 5"]
    assert of(recipe={"epochs": 3.0, "rate": 0.1}).diff(base) == ["parameter recipe.epochs: 3 -> 3.0"]
    assert of(recipe={"epochs": 3}).diff(base) == ["parameter recipe.rate removed"]
    assert of(x=(1, 2)).value == of(x=[1, 2]).value
    first = code_version(["ml_platform.errors:PlatformError"], params={})
    second = code_version(["ml_platform.errors:StoreError"], params={})
    assert first.value != second.value
    assert second.diff(first) == ["code: ml_platform.errors:PlatformError -> ml_platform.errors:StoreError"]


def test_a_version_set_by_hand_stands_for_the_code(folder: Path) -> None:
    before = version(pin="1")
    write(folder, "acme/features.py", "def compute(x):\n    return 0\n")
    assert version(pin="1") == before
    assert version(pin="2").value != before.value
    assert version(pin="2").diff(before) == ["version set by hand: 1 -> 2"]
    assert code_version(["acme.features:compute"], params={"lookback": 2}, pin="1").value != before.value


def test_it_travels_as_json(folder: Path) -> None:
    found = version()
    assert CodeVersion.from_dict(found.to_dict()) == found


def test_another_process_finds_the_same(folder: Path) -> None:
    program = (
        "from ml_platform.versions.code import code_version\n"
        "print(code_version(['acme.features:compute'], params={'lookback': 1}).value)"
    )
    environment = {**os.environ, "PYTHONPATH": str(folder), "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == version().value
    # The same from every version of Python: this was seen with 3.11, 3.12 and 3.13.
    assert version().modules["acme.features"] == "5b5ad90cf714b0769fec9294a50cebdf"


def test_what_is_declared_wrongly_is_said(folder: Path) -> None:
    with pytest.raises(DeclarationError, match=r"acme\.nothing"):
        code_version(["acme.nothing:compute"], params={})
    with pytest.raises(DeclarationError, match="not installed"):
        version(libraries=["no-such-library-anywhere"])
    with pytest.raises(DeclarationError, match="JSON"):
        code_version([], params={"x": object()})
    with pytest.raises(DeclarationError, match="JSON"):
        code_version([], params={"x": float("nan")})
    write(folder, "acme/late.py", "def later(x:\n")
    with pytest.raises(DeclarationError, match=r"late\.py:1"):
        version()


def test_the_platforms_own_stages_do_not_reach_one_another() -> None:
    """A stage's package imports every stage; the feature job must not count the rest of the platform."""
    found = code_version(["ml_platform.stages.feature_job:compute"], params={})
    assert not [name for name in found.modules if name.startswith(("ml_platform.registry", "ml_platform.store"))]
    assert not {"dagster", "mlflow", "torch"} & set(found.libraries)
