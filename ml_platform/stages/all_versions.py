"""Every pipeline's code versions, as JSON.

`plan --diff` runs the text of this file over the sources of another revision, in a process of its own, also where that
revision does not have it yet: so it relies on nothing but the settings, the discovery of pipelines and `Stage.version`.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from typing import Any


def all_versions(settings: Any) -> dict[str, dict[str, dict[str, Any]]]:
    """By pipeline, then stage: `version` as `CodeVersion.to_dict` has it, `upstream`, and whether `partitioned`.

    A module that `settings.pipelines` names and that is not there counts as none.
    """
    from ml_platform.discovery import pipelines
    from ml_platform.stages import stages_of

    there = [name for name in settings.pipeline_modules if _is_there(name)]
    return {
        name: {
            stage.name: {
                "version": stage.version.to_dict(),
                "upstream": list(stage.upstream),
                "partitioned": stage.partitioned,
            }
            for stage in stages_of(pipeline).values()
        }
        for name, pipeline in pipelines(settings.model_copy(update={"pipelines": ",".join(there)})).items()
    }


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False


def main(path: str, instead_of: str, out: str) -> None:
    """Write them as JSON.

    Args:
        path: the search path to import from, as a JSON list.
        instead_of: folders that nothing may be imported from, but installed packages, as a JSON list.
        out: the file to write.
    """
    sys.path[:] = json.loads(path)
    from ml_platform.settings import settings

    found = all_versions(settings())
    files = {name: str(getattr(module, "__file__", "") or "") for name, module in list(sys.modules.items())}
    others = tuple(json.loads(instead_of))
    wrong = [name for name, file in files.items() if file.startswith(others) and "-packages" not in file]
    if wrong:
        where = " or ".join(others)
        sys.exit(f"an import hook finds {', '.join(wrong[:3])} in {where}: name its folder in PYTHONPATH instead")
    Path(out).write_text(json.dumps(found), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
