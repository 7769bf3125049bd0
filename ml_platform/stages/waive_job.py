"""The job through which a person accepts a rejected batch in Dagster's UI: its config is filled in at the launchpad."""
# No `from __future__ import annotations` here: Dagster reads the annotations of ops, which stand inside functions.

from collections.abc import Mapping

import dagster as dg

from ml_platform.errors import PlatformError
from ml_platform.stages.resources import PlatformResource
from ml_platform.stages.stage import Stage
from ml_platform.stages.waiving import VALIDATED, revoke, waive


class WaiverConfig(dg.Config):
    """What to accept, who says so, and why. `ml-platform waive` does the same."""

    batch: str
    """The rejected batch."""
    reason: str
    """Why it is good enough; with `revoke`, why it no longer is."""
    by: str
    """Your name."""
    expires: str = ""
    """How long it holds, such as 30d, or its last day, such as 2026-12-31. Empty: for good."""
    stage: str = VALIDATED
    """Whose gate it was: validated_batch, or a reference, for which `batch` is empty."""
    revoke: bool = False
    """Take the waiver back."""


def build_waive_job(stages: Mapping[str, Stage]) -> dg.JobDefinition:
    """The job of one pipeline."""
    pipeline = next(iter(stages.values())).pipeline

    @dg.op(name=f"{pipeline.name}_waiver", out=dg.Out(dg.Nothing))
    def waiver(context: dg.OpExecutionContext, config: WaiverConfig, platform: PlatformResource) -> None:
        chain = platform.chain(stages, context.instance)
        try:
            if config.revoke:
                for each in revoke(chain, config.batch, by=config.by, reason=config.reason, stage=config.stage):
                    context.log.info(f"Revoked: {config.stage} {config.batch} {each.describe()}")
                return
            given = waive(
                chain, config.batch, by=config.by, reason=config.reason, expires=config.expires, stage=config.stage
            )
        except PlatformError as error:
            raise dg.Failure(str(error), allow_retries=False) from error
        context.log.info(f"{given.stage} {given.batch} {given.describe()}\nThe gate had said: {given.said}")

    @dg.job(
        name=f"{pipeline.name}_waive",
        description=f"Accepts a batch of {pipeline.name} that its gate rejected, or takes that back; the next run of "
        f"{pipeline.name}_chain carries it out. Fill in who and why at the launchpad.",
        executor_def=dg.in_process_executor,
    )
    def waiving() -> None:
        waiver()

    return waiving
