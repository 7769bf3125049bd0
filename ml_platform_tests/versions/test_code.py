"""A code version follows what the code does, however far away, and nothing of how it is written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
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


def edited(module: str, old: str, new: str) -> str:
    text = FILES[f"acme/{module}.py"]
    assert old in text
    return text.replace(old, new)


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


def lines(now: CodeVersion, before: CodeVersion) -> list[str]:
    return [str(cause) for cause in now.diff(before)]


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
        (
            "acme/features.py",
            edited("features", "near.scale(", "-near.scale("),
            "features.py: function compute changed",
        ),
        ("acme/features.py", edited("features", "(x):", "(x=1):"), "features.py: function compute changed"),
        ("acme/features.py", edited("features", "def", "@near.scale\ndef"), "features.py: function compute changed"),
        ("acme/far.py", edited("far", "2", "3"), "acme/far.py: constant FACTOR changed"),
        ("acme/late.py", "def later(x):\n    return -x\n", "acme/late.py: function later changed"),
        ("acme/parts/shape.py", "def shaped(x):\n    return -x\n", "acme/parts/shape.py: function shaped changed"),
        ("acme/parts/shape.py", "def shaped(x): return x\ndef also(): ...\n", "shape.py: function also added"),
        ("acme/near.py", FILES["acme/near.py"] + "import acme.unrelated\n", "acme/unrelated.py: now counts"),
        ("acme/near.py", FILES["acme/near.py"] + "import acme.unrelated\n", "near.py: import of acme.unrelated added"),
        ("acme/near.py", FILES["acme/near.py"] + "if scale: scale = abs\n", "near.py: module-level code added"),
        ("acme/__init__.py", "import os\nos.environ['TZ'] = 'UTC'\n", "acme/__init__.py: now counts"),
        ("acme/far.py", "FACTOR = 2\n", "library pyarrow removed"),
        ("acme/far.py", edited("far", "2", "2.0"), "acme/far.py: constant FACTOR changed"),
    ],
)
def test_what_can_change_a_result_counts(folder: Path, name: str, text: str, says: str) -> None:
    before = version()
    before_record = before.to_dict()
    write(folder, name, text)
    after = version()
    assert after.value != before.value
    recorded = CodeVersion.from_dict(json.loads(json.dumps(before_record)))
    assert any(line.endswith(says) for line in lines(after, recorded)), lines(after, recorded)
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
    assert lines(of(recipe={"epochs": 5, "rate": 0.1}), base) == ["parameter recipe.epochs: 3 -> 5"]
    assert lines(of(recipe={"epochs": 3.0, "rate": 0.1}), base) == ["parameter recipe.epochs: 3 -> 3.0"]
    assert lines(of(recipe={"epochs": 3}), base) == ["parameter recipe.rate removed"]
    assert of(x=(1, 2)).value == of(x=[1, 2]).value
    first = code_version(["ml_platform.errors:PlatformError"], params={})
    second = code_version(["ml_platform.errors:StoreError"], params={})
    assert first.value != second.value
    assert lines(second, first) == ["code: ml_platform.errors:PlatformError -> ml_platform.errors:StoreError"]


def test_a_version_set_by_hand_stands_for_the_code(folder: Path) -> None:
    before = version()
    write(folder, "acme/features.py", "def compute(x):\n    return 0\n")
    after = version()
    assert after.pinned("1") == before.pinned("1")
    assert after.pinned("2").value != before.pinned("1").value
    assert lines(after.pinned("2"), before.pinned("1")) == ["version set by hand: 1 -> 2"]
    assert lines(after.pinned("1"), before) == ["version set by hand: none -> 1"]
    other = code_version(["acme.features:compute"], params={"lookback": 2}).pinned("1")
    assert lines(other, before.pinned("1")) == ["parameter lookback: 1 -> 2"]


def test_methods_and_what_surrounds_them_are_told_apart(folder: Path) -> None:
    model = "class Model:\n    size = 1\n    def fit(self):\n        return 1\n    def score(self):\n        return 2\n"
    write(folder, "acme/late.py", model)
    before = version().to_dict()

    def said(old: str, new: str) -> list[str]:
        write(folder, "acme/late.py", model.replace(old, new))
        return lines(version(), CodeVersion.from_dict(before))

    assert said("return 2", "return 3") == ["acme/late.py: method Model.score changed"]
    assert said("size = 1", "size = 2") == ["acme/late.py: class Model changed"]
    assert said("Model:", "Model(dict):") == ["acme/late.py: class Model changed"]


def test_a_record_without_parts_names_the_file(folder: Path) -> None:
    write(folder, "acme/late.py", f"def later(x):\n    return {folder.name!r}\n")  # seen by no other test
    found = version()
    before = {name: getattr(found, name) for name in ("value", "roots", "modules", "libraries", "params", "pin")}
    write(folder, "acme/late.py", "def later(x):\n    return -x\n")
    assert lines(version(), CodeVersion.from_dict(before)) == ["acme/late.py changed"]


def test_a_record_of_a_later_release_is_read(folder: Path) -> None:
    found = version()
    assert CodeVersion.from_dict({**found.to_dict(), "colour": "blue"}) == found


def test_parts_of_a_file_that_was_edited_since_are_not_made_up(folder: Path) -> None:
    """A process reads a version once; what it commits later must not be said to have been another code."""
    write(folder, "acme/late.py", f"def later(x):\n    return {folder.name!r}\n")
    found = version()
    write(folder, "acme/late.py", "def later(x:\n")
    assert "acme.late" not in found.to_dict()["parts"]
    assert "acme.near" in found.to_dict()["parts"]


def test_files_are_named_from_the_project_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = folder / "project"
    (project / "src").mkdir(parents=True)
    (project / "pyproject.toml").touch()
    (folder / "acme").rename(project / "src" / "acme")
    monkeypatch.syspath_prepend(str(project / "src"))
    assert version().to_dict()["files"]["acme.late"] == "src/acme/late.py"


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
