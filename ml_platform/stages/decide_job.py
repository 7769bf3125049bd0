"""The job through which a person decides about a registered model in Dagster's UI: its config is filled in at the
launchpad."""
# No `from __future__ import annotations` here: Dagster reads the annotations of ops, which stand inside functions.

from collections.abc import Mapping
from typing import Literal

import dagster as dg

from ml_platform.errors import PlatformError
from ml_platform.stages.deciding import decide, describe_in_mlflow, told
from ml_platform.stages.resources import PlatformResource
from ml_platform.stages.stage import Stage


class DecisionConfig(dg.Config):
    """What to decide about which version, who says so, and why. `ml-platform models` does the same."""

    action: Literal["approve", "reject", "promote", "rollback"]
    """approve or reject the challenger; promote any version; roll back to an earlier champion."""
    version: str = ""
    """Of the registered model. Empty, with rollback: the last champion."""
    reason: str
    """Why."""
    by: str
    """Your name."""


def build_decide_job(stages: Mapping[str, Stage]) -> dg.JobDefinition:
    """The job of one pipeline."""
    pipeline = next(iter(stages.values())).pipeline

    @dg.op(name=f"{pipeline.name}_decision", out=dg.Out(dg.Nothing))
    def decision(context: dg.OpExecutionContext, config: DecisionConfig, platform: PlatformResource) -> None:
        chain = platform.chain(stages, context.instance)
        try:
            made = decide(chain, config.action, config.version, by=config.by, reason=config.reason)
        except PlatformError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(f"{pipeline.name} {made.describe()}")
        if undone := describe_in_mlflow(chain, made):
            context.log.warning(f"The version's description in MLflow does not say so yet.\n{undone}")
        if (check := told(chain, context.instance)) is not None:
            context.instance.report_runless_asset_event(check)

    @dg.job(
        name=f"{pipeline.name}_decide",
        description=f"Approves or rejects the challenger of {pipeline.name}, promotes a version, or rolls back to an "
        "earlier one. Fill in what, who and why at the launchpad.",
        executor_def=dg.in_process_executor,
    )
    def deciding() -> None:
        decision()

    return deciding
