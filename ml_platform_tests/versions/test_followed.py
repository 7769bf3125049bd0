"""Ways in which code reaches other code, or data, where a stranger would not expect it: each counts."""

from __future__ import annotations

import itertools
import os
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from ml_platform.errors import DeclarationError
from ml_platform.versions.code import CodeVersion, code_version

ROOT = "rocket.features:compute"
FILES = {
    "rocket/__init__.py": "",
    "rocket/features.py": "def compute(x):\n    return x\n",
    "rocket/near.py": "import rocket.far\ndef scale(x):\n    return rocket.far.FACTOR * x\n",
    "rocket/far.py": "FACTOR = 2\n",
    "rocket/parts/__init__.py": "",
    "rocket/parts/shape.py": "def cut(x):\n    return x\n",
}
_tick = itertools.count(1)


class Package:
    """A team's package, edited as a person does: no two edits at one instant."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name, text in FILES.items():
            self.write(name, text)

    def write(self, name: str, text: str | bytes) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode() if isinstance(text, str) else text)
        os.utime(path, ns=(0, 10**18 + next(_tick) * 10**9))

    def features(self, text: str) -> None:
        self.write("rocket/features.py", f"{text}\ndef compute(x):\n    return x\n")

    def version(self, **params: object) -> CodeVersion:
        return code_version([ROOT], params=params)

    def counts(self, name: str, text: str | bytes, **params: object) -> bool:
        """Whether writing a file changes the version; it is put back afterwards."""
        path = self.folder / name
        before, old = self.version(**params).value, path.read_bytes() if path.exists() else None
        self.write(name, text)
        after = self.version(**params).value
        if old is None:
            path.unlink()
        else:
            self.write(name, old)
        assert self.version(**params).value == before
        return after != before


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    monkeypatch.syspath_prepend(str(tmp_path))
    return Package(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "import rocket.near",
        "from rocket import near",
        "from . import near",
        "from .near import scale as s",
        "from .near import *",
        "try:\n    from .near import scale\nexcept ImportError:\n    scale = abs",
        "import sys\nif sys.platform == 'linux':\n    from . import near",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    pass\nelse:\n    from . import near",
        "class Lazy:\n    def get(self):\n        from .near import scale\n        return scale",
        "import importlib\nnear = importlib.import_module('rocket.near')",
        "import importlib\nx = importlib.import_module('.near', __package__)",
        "from importlib import import_module\nx = import_module('.near', package='rocket')",
        "x = __import__('rocket.near')",
        "from ml_platform.naming import load_named\nx = load_named('rocket.near:scale')",
        "import rocket\nx = lambda: rocket.near.scale(1)",
        "import rocket as r\nx = lambda: r.near.scale(1)",
    ],
)
def test_a_helper_two_imports_away_counts_however_it_is_imported(package: Package, text: str) -> None:
    package.features(text)
    assert package.counts("rocket/far.py", "FACTOR = 3\n")
    assert not package.counts("rocket/parts/shape.py", "def cut(x):\n    return -x\n")


@pytest.mark.parametrize(
    "text",
    [
        "from rocket import parts\nx = lambda: parts.shape.cut(1)",
        "import rocket.parts as p\nx = lambda: p.shape.cut(1)",
        "import rocket\nx = lambda: rocket.parts.shape.cut(1)",
        "from rocket.parts import shape",
    ],
)
def test_a_module_that_is_an_attribute_of_a_package_counts(package: Package, text: str) -> None:
    package.features(text)
    assert package.counts("rocket/parts/shape.py", "def cut(x):\n    return -x\n")
    assert not package.counts("rocket/far.py", "FACTOR = 3\n")


def test_what_a_star_brings_along_counts(package: Package) -> None:
    package.features("from rocket.parts import *")
    package.write("rocket/parts/__init__.py", "__all__ = ['shape']\n")
    assert package.counts("rocket/parts/shape.py", "def cut(x):\n    return -x\n")


def test_code_that_a_parameter_names_counts(package: Package) -> None:
    recipe = {"hyperparameters": {"block": "rocket.near:scale", "when": "12:30", "elsewhere": "no.such.module:thing"}}
    assert package.counts("rocket/far.py", "FACTOR = 3\n", recipe=recipe)
    assert not {"no", "12"} & set(package.version(recipe=recipe).libraries)


@pytest.mark.parametrize(
    "init",
    [
        "from rocket.near import scale\nscale(1)\n",
        "from rocket import near\ndef prepare():\n    near.scale(1)\nif True:\n    prepare()\n",
    ],
)
def test_what_a_package_does_while_it_is_imported_counts(package: Package, init: str) -> None:
    package.write("rocket/__init__.py", init)
    assert package.counts("rocket/far.py", "FACTOR = 3\n")
    assert package.counts("rocket/__init__.py", init.replace("scale(1)", "scale(2)"))


def test_what_a_package_only_names_does_not_count(package: Package) -> None:
    package.write("rocket/__init__.py", "from rocket.near import scale\nFACTOR = scale\ndef prepare():\n    scale(1)\n")
    assert not package.counts("rocket/far.py", "FACTOR = 3\n")
    assert not package.counts("rocket/__init__.py", "from rocket.near import scale\n")


@pytest.mark.parametrize(
    ("text", "file"),
    [
        ("from pathlib import Path\nT = Path(__file__).with_name('table.csv')", "rocket/table.csv"),
        ("from pathlib import Path\nT = Path(__file__).parent / 'data' / 'table.csv'", "rocket/data/table.csv"),
        ("from pathlib import Path\nT = Path(__file__).parent / 'data/table.csv'", "rocket/data/table.csv"),
        ("from pathlib import Path\nT = Path(__file__).parent / '../tables/a.csv'", "rocket/../tables/a.csv"),
        ("from importlib.resources import files\nT = files('rocket') / 'query.sql'", "rocket/query.sql"),
        ("from pathlib import Path\nT = sorted(Path(__file__).parent.glob('*.json'))", "rocket/a.json"),
        ("from pathlib import Path\nT = Path(__file__).parent / 'data'", "rocket/features.txt"),
    ],
)
def test_a_file_beside_the_code_counts_where_the_code_names_it(package: Package, text: str, file: str) -> None:
    package.features(text)
    package.write(file, "a,b\n1,2\n")
    counts = not file.endswith("features.txt")
    assert package.counts(file, "a,b\n1,3\n") is counts
    assert (file in package.version().modules) is counts
    if counts:
        before = package.version()
        package.write(file, "a,b\n1,3\n")
        assert [str(cause) for cause in package.version().diff(before)] == [f"{file} changed"]


@pytest.mark.parametrize(
    "text",
    [
        "from pathlib import Path\nT = Path(__file__).parents[1] / 'shared' / 'cfg.json'",
        "from pathlib import Path\nT = Path(__file__).parents[1] / 'shared/cfg.json'",
        "from shared import DIR\nT = DIR / 'cfg.json'",
        "from rocket.near import DIR\nT = DIR / 'cfg.json'",
        "from importlib import resources\nimport shared\nT = resources.files(shared).joinpath('cfg.json')",
        "from importlib import resources\nT = resources.files('shared').joinpath('cfg.json')",
        "import pkgutil\nT = pkgutil.get_data('shared', 'cfg.json')",
    ],
)
def test_a_file_of_a_neighbouring_package_counts_where_the_code_names_it(package: Package, text: str) -> None:
    package.write("rocket/near.py", "from shared import DIR\n")
    package.write("shared/__init__.py", "from pathlib import Path\nDIR = Path(__file__).parent\n")
    package.features(text)
    for name in ("cfg.json", "other.json"):
        package.write(f"shared/{name}", "1")
    assert package.counts("shared/cfg.json", "2")
    assert not package.counts("shared/other.json", "2")


def test_a_file_beside_the_package_counts_where_the_code_asks_for_its_place(package: Package) -> None:
    package.features("from pathlib import Path\nT = Path(__file__).parents[1] / 'cfg.json'")
    assert package.counts("cfg.json", "1")
    assert not package.counts("other.json", "1")


def test_a_text_that_leads_out_of_the_package_is_no_data(package: Package) -> None:
    package.write("outside.csv", "1")
    package.features("HERE, UP, NAMES = '.', '../..', ['rocket/..', 'rocket', 'outside.csv', '__pycache__', '*.py']")
    assert list(package.version().modules) == ["rocket.features"]


def test_a_file_of_the_package_above_counts(package: Package) -> None:
    package.features("from rocket.parts import shape")
    package.write("rocket/parts/shape.py", "from pathlib import Path\nT = Path(__file__).parents[1] / 'table.csv'\n")
    package.write("rocket/table.csv", "1")
    assert package.counts("rocket/table.csv", "2")


def test_a_compiled_module_counts_and_hides_its_source(package: Package) -> None:
    package.features("from . import near")
    for suffix in EXTENSION_SUFFIXES:
        assert package.counts(f"rocket/near{suffix}", b"\x7fELF 1")
    compiled = f"rocket/near{EXTENSION_SUFFIXES[-1]}"
    package.write(compiled, b"\x7fELF 1")
    assert package.counts(compiled, b"\x7fELF 2")
    assert not package.counts("rocket/near.py", "def scale(x):\n    return x\n"), "Python imports the compiled one"
    before = package.version()
    package.write(compiled, b"\x7fELF 2")
    assert [str(cause) for cause in package.version().diff(before)] == [f"{compiled} changed"]


def test_stubs_do_not_count(package: Package) -> None:
    package.features("from . import near")
    assert not package.counts("rocket/near.pyi", "def scale(x: int) -> int: ...\n")


@pytest.mark.parametrize("name", ["pyarrow", "statistics"])
def test_a_module_that_hides_a_library_counts_as_what_it_is(package: Package, name: str) -> None:
    package.features(f"import {name}")
    assert name not in package.version().modules
    package.write(f"{name}.py", "X = 1\n")
    assert name in package.version().modules
    assert name not in package.version().libraries
    assert package.counts(f"{name}.py", "X = 2\n")


def test_packages_without_an_init_are_followed(package: Package) -> None:
    package.write("rocket/loose/deep/tool.py", "X = 1\n")
    package.features("from rocket.loose.deep import tool")
    assert package.counts("rocket/loose/deep/tool.py", "X = 2\n")
    package.write("orbit/tool.py", "X = 1\n")
    package.features("import orbit.tool")
    assert package.counts("orbit/tool.py", "X = 2\n")


def test_links_are_followed(package: Package, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "shared.py").write_text("X = 1\n")
    (package.folder / "rocket/shared.py").symlink_to(elsewhere / "shared.py")
    package.features("from . import shared")
    before = package.version().value
    (elsewhere / "shared.py").write_text("X = 22\n")
    assert package.version().value != before


def test_a_base_class_in_another_module_counts(package: Package) -> None:
    package.write("rocket/base.py", "class Base:\n    limit = 1\n")
    package.write("rocket/schema.py", "from rocket.base import Base\nclass Rows(Base):\n    pass\n")
    before = CodeVersion.from_dict(code_version(["rocket.schema:Rows"], params={}).to_dict())
    package.write("rocket/base.py", "class Base:\n    limit = 2\n")
    after = code_version(["rocket.schema:Rows"], params={})
    assert [str(cause) for cause in after.diff(before)] == ["rocket/base.py: class Base changed"]


def test_circles_end(package: Package) -> None:
    package.features("from . import near")
    package.write("rocket/near.py", "from . import features\n")
    assert package.counts("rocket/near.py", "from . import features\nX = 1\n")


def test_what_was_found_before_is_looked_at_again(package: Package) -> None:
    """A process that lives long sees files come, go, and change into packages."""
    package.features("try:\n    from . import extra, near\nexcept ImportError:\n    extra = None")
    assert "rocket.extra" not in package.version().modules
    assert package.counts("rocket/extra.py", "X = 1\n")
    old = package.version().modules["rocket.near"]
    package.write("rocket/near/__init__.py", "X = 1\n")
    assert package.version().modules["rocket.near"] != old, "a package comes before a module of its name"
    (package.folder / "rocket/features.py").unlink()
    with pytest.raises(DeclarationError, match=r"no such module(?s:.*)rocket\.features"):
        package.version()
