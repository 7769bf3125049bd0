"""What a person decides about a registered model: what the command line and the UI share.

The decision itself is `registry.promotion`'s. Here it is also told to Dagster, whose check `promoted` then says the
same, and to MLflow, where the version's description names who decided.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

from ml_platform.errors import PlatformError, RefusedError
from ml_platform.stages.evidence import PROMOTED, promoted
from ml_platform.stages.stage import UNPARTITIONED

if TYPE_CHECKING:
    from dagster import AssetCheckEvaluation, DagsterInstance

    from ml_platform.registry.trail import Decision
    from ml_platform.stages.chain import Chain

Deed = Literal["approve", "reject", "promote", "rollback"]
REGISTERED = "registered_model"


def decide(chain: Chain, deed: Deed, version: str, *, by: str, reason: str) -> Decision:
    """Carry out what a person decides.

    Args:
        chain: the pipeline as it stands.
        deed: what.
        version: of the registered model; "" for a rollback to the last champion.
        by: who.
        reason: why.

    Raises:
        RefusedError: it cannot be done as things stand, and why.
        RegistryError: MLflow refused or was away.
    """
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.promotion import Promotions

    if deed not in get_args(Deed):
        raise RefusedError("There is nothing of that name to decide.", got=deed, fix=", ".join(get_args(Deed)))
    promotions = Promotions(Connection(chain.settings.mlflow), chain.store, chain.pipeline.name)
    if deed == "rollback":
        return promotions.roll_back(version, by=by, reason=reason)
    what = {"approve": promotions.approve, "reject": promotions.reject, "promote": promotions.promote}[deed]
    return what(version, by=by, reason=reason)


def describe_in_mlflow(chain: Chain, decision: Decision) -> str:
    """Name the decisions about a model in its version's description. Returns why that was not possible, or "".

    The decision stands all the same: the description is for people who look at MLflow alone.
    """
    from ml_platform.provenance.registered import describe, record_of, version_named
    from ml_platform.registry.connection import Connection
    from ml_platform.registry.trail import decisions_of

    name, registry = chain.pipeline.name, chain.settings.mlflow
    try:
        connection = Connection(registry)
        version = version_named(connection, f"{name}@{decision.version}")
        about = decisions_of(chain.store, name, registry, decision.model)
        describe(
            connection, name, version.version, record_of(connection, version, chain), [d.describe() for d in about]
        )
    except PlatformError as error:
        return str(error)
    return ""


def told(chain: Chain, instance: DagsterInstance) -> AssetCheckEvaluation | None:
    """The check `promoted` of the model that the asset shows, as it stands now; None where it shows none."""
    import dagster as dg

    manifest = chain.published_artifact(REGISTERED)
    key = chain.published.key(REGISTERED)
    if manifest is None or manifest.batch != UNPARTITIONED or instance.get_latest_materialization_event(key) is None:
        return None
    now = promoted(chain, manifest.facts["trained_model"], manifest.facts["version"])
    return dg.AssetCheckEvaluation(
        asset_key=key,
        check_name=PROMOTED,
        passed=now.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=now.description,
        metadata=dict(now.metadata),
    )
