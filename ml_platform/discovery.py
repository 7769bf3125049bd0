"""Which pipelines there are: every `PIPELINE` under ml_platform/pipelines and in the modules that settings name."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

from ml_platform.errors import DeclarationError
from ml_platform.pipeline import Pipeline
from ml_platform.settings import Settings

BUILT_IN = "ml_platform.pipelines"


def pipelines(settings: Settings) -> dict[str, Pipeline]:
    """Every declared pipeline by name, in name order.

    Raises:
        DeclarationError: a module is missing, does not import, holds no `Pipeline` named PIPELINE, or two modules
            declare pipelines of one name. The message names the module.
    """
    return {name: pipeline for name, (pipeline, _) in _found(settings).items()}


def folders(settings: Settings) -> dict[str, Path]:
    """The folder of the module that declares each pipeline, by the pipeline's name. Raises what `pipelines` does."""
    return {
        name: Path(sys.modules[module].__file__ or "").absolute().parent
        for name, (_, module) in _found(settings).items()
    }


def _found(settings: Settings) -> dict[str, tuple[Pipeline, str]]:
    """Every declared pipeline with its module, by name, in name order."""
    found: dict[str, tuple[Pipeline, str]] = {}
    for module in _modules(settings):
        pipeline = _declared(module)
        known = found.get(pipeline.name)
        if known is not None and known[1] != module:
            raise DeclarationError(
                "Two modules declare a pipeline of the same name.",
                where=f"{known[1]} and {module}",
                got=pipeline.name,
                fix="rename one of them: the name prefixes the assets and names the registered model",
            )
        found[pipeline.name] = (pipeline, module)
    return dict(sorted(found.items()))


def pipeline_named(settings: Settings, name: str) -> Pipeline:
    """The pipeline of that name. Raises DeclarationError, with the names there are, where there is none."""
    known = pipelines(settings)
    if name not in known:
        raise DeclarationError(
            "There is no such pipeline.",
            got=name,
            fix=f"one of {', '.join(known) or '(none are declared)'}; `ml-platform new {name}` writes a new one",
        )
    return known[name]


def _modules(settings: Settings) -> Iterator[str]:
    """Names of the modules that hold a PIPELINE."""
    yield from _inside(BUILT_IN, importlib.import_module(BUILT_IN))
    for name in settings.pipeline_modules:
        module = _imported(name, where=f"ML_PLATFORM_PIPELINES={settings.pipelines}")
        inner = f"{name}.pipeline"
        if hasattr(module, "PIPELINE"):
            yield name
        elif hasattr(module, "__path__") and importlib.util.find_spec(inner):
            yield inner
        elif inside := list(_inside(name, module)):
            yield from inside
        else:
            raise DeclarationError(
                "The module holds no pipeline.",
                where=f"ML_PLATFORM_PIPELINES={settings.pipelines}",
                got=name,
                fix="name a module with a PIPELINE in it, a package with a pipeline.py, or a folder of such packages",
            )


def _inside(name: str, module: ModuleType) -> Iterator[str]:
    """The `pipeline` modules of a package's direct sub-packages."""
    for entry in pkgutil.iter_modules(getattr(module, "__path__", ())):
        inner = f"{name}.{entry.name}.pipeline"
        if entry.ispkg and _has(inner):
            yield inner


def _has(module: str) -> bool:
    """Whether there is a module of that name. Imports its parents."""
    parent = module.rpartition(".")[0]
    _imported(parent, where=parent)
    return importlib.util.find_spec(module) is not None


def _imported(name: str, *, where: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except DeclarationError as error:
        # What a pipeline's own definition raises does not know which module it stands in.
        if name in str(error.where):
            raise
        raise DeclarationError(error.what, where=f"{name}: {error.where}", got=error.got, fix=error.fix) from error
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise DeclarationError(
                "There is no such module.", where=where, got=name, fix=f"put it on sys.path, which is {sys.path}"
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _broken(name: str, error: Exception) -> DeclarationError:
    return DeclarationError(
        "The module does not import.", where=name, got=f"{type(error).__name__}: {error}", fix="correct the module"
    )


def _declared(module: str) -> Pipeline:
    """The PIPELINE of a module."""
    declared = getattr(_imported(module, where=module), "PIPELINE", None)
    if not isinstance(declared, Pipeline):
        raise DeclarationError(
            "The module must hold a Pipeline named PIPELINE.",
            where=module,
            got=type(declared).__name__ if declared is not None else "nothing of that name",
            fix="write `PIPELINE = Pipeline(name=..., ...)` at the top level of the module",
        )
    return declared
