"""What is known of a model when it is decided about, whether that is enough for the policy, and how it stands since."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

from ml_platform.pipeline import METRICS
from ml_platform.stages.stage import CheckResult

if TYPE_CHECKING:
    from ml_platform.pipeline import Pipeline
    from ml_platform.stages.against_champion import Beside
    from ml_platform.stages.chain import Chain
    from ml_platform.stages.stage import Bench
    from ml_platform.store.manifest import Manifest

PROMOTED = "promoted"


def evidence(bench: Bench, evaluation: Manifest, beside: Beside | None) -> dict[str, Any]:
    """What a decision about an evaluated model rests on, as `registry.trail.Decision` keeps it."""
    facts, pipeline = evaluation.facts, bench.pipeline
    names = ("metric", "rows", "gain", "low", "high", "model", "champion", "champion_version")
    compared = {name: beside.facts[name] for name in names if name in beside.facts} if beside else {}
    found = {
        "evaluation": evaluation.data_version,
        "metric": pipeline.model_gate.main(METRICS[pipeline.task][0]),
        "metrics": facts["metrics"],
        "intervals": facts["intervals"],
        "gates": facts["gates"],
        "gain": compared if "gain" in compared else {},
        "said": beside.message if beside else "",
        "run": bench.run_id,
    }
    told: dict[str, Any] = _finite({name: value for name, value in found.items() if value})
    return told


def _finite(value: Any) -> Any:
    """JSON has no word for not-a-number."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    return [_finite(each) for each in value] if isinstance(value, list | tuple) else value


def good_enough(pipeline: Pipeline, beside: Beside) -> tuple[bool, str]:
    """Whether a model whose gates were passed may be promoted by itself, as far as figures go; and why."""
    judged = pipeline.model_gate.champion in ("reject", "keep")
    if judged and (few := beside.facts.get("too_few")):
        return (
            False,
            f"too few held-out rows to tell whether it is worse than the champion ({few}). {beside.message}",
        )
    least = pipeline.promotion.least_gain
    if beside.worse and pipeline.model_gate.champion == "keep":
        return False, f"it is worse than the champion beyond noise. {beside.message}"
    if least is not None and beside.against:
        low = beside.facts.get("low")
        if low is None:
            return False, f"a gain of {least:g} is asked for, and none is shown. {beside.message}"
        if low < least:
            return False, f"its gain is not surely {least:g}. {beside.message}"
    return True, f"every gate was passed. {beside.message}"


def approving(pipeline: str, version: str) -> str:
    """How a person decides, in words."""
    told = f'ml-platform models approve {pipeline} {version} --reason "..."'
    return f"To make it the champion: {told}; or reject in place of approve"


def promoted(chain: Chain, model: str, version: str) -> CheckResult:
    """How a model stands by the trail of decisions, as an asset check that warns where it is not the champion.

    Args:
        chain: the pipeline as it stands.
        model: data version of the trained model.
        version: of the registered model; "" where it has none. One that was made anew since, because the files of this
            one were changed, is told in its place.
    """
    from ml_platform.registry.trail import Trail

    version, alias = _now(chain, model, version)
    standing = Trail.of(chain.store, chain.pipeline.name, chain.settings.mlflow).read()
    name, champion, waits = chain.pipeline.name, standing.champion, standing.challenger
    about = [each for each in standing.about(model) if each.model == model]
    shown: dict[str, Any] = {"model": model, "alias": alias, **({"version": version} if version else {})}
    if about:
        last = about[-1]
        shown |= {"decision": last.number, "action": last.action, "by": last.by, "when": last.when}
        shown |= {key: last.evidence["gain"][key] for key in ("gain", "low", "high") if last.evidence.get("gain")}
    passed = champion is not None and champion.model == model
    if not version:
        said = "Not registered."
    elif champion is not None and passed:
        said = f"It is the champion: {champion.describe()}"
    elif barred := standing.barred(model):
        by_hand = f'ml-platform models promote {name} {version} --reason "..."'
        said = f"It is not used: {barred.describe()}. To use it all the same: {by_hand}"
    elif waits is not None and waits.model == model:
        said = f"It waits as challenger: {waits.reason} {approving(name, version)}"
    elif champion is not None:
        said = f"Another is the champion: {champion.describe()}"
    else:
        said = "Nothing is decided about it."
    return CheckResult(name=PROMOTED, passed=passed, warn=True, description=said, metadata=shown)


def _now(chain: Chain, model: str, version: str) -> tuple[str, str]:
    """The version by which a model is used now, with its alias; the given one, with "", where no alias names it."""
    from ml_platform.errors import RegistryError
    from ml_platform.registry import glance
    from ml_platform.registry.models import CHALLENGER, CHAMPION

    # The trail says how a model stands, also while the registry is away; whether that is there is asked elsewhere.
    with contextlib.suppress(RegistryError):
        for alias in (CHAMPION, CHALLENGER) if version else ():
            named = glance.champion(chain.settings.mlflow, chain.pipeline.name, alias)
            if named is not None and named.data_version == model:
                return named.version, alias
    return version, ""
