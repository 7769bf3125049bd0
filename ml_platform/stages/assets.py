"""A pipeline's stages as Dagster assets, and the job that carries the whole chain out in one run.

The partitioned stages of a pipeline are one Dagster op, so a partition range or a backfill is one run with one Spark
session; those that come after unpartitioned ones are another. Dagster gives all partitions of such a step one data
version and one set of checks, unless the step logs an event for each, which it does. A single partition and the
unpartitioned stages yield their results in the usual way.
Candidates are one op too, so that several are trained at a time although a run has one process.
"""
# No `from __future__ import annotations` here: Dagster reads the annotations of ops, which stand inside functions.

import datetime as dt
import functools
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import dagster as dg
from dagster_pyspark import LazyPySparkResource

from ml_platform.dead_runs import PROCESS_TAG, process_tag
from ml_platform.failures import FAILURE_TAG
from ml_platform.overrides import overridden
from ml_platform.pipeline import DailyBatches, Pipeline
from ml_platform.registry.tracking import MlflowResource
from ml_platform.stages import stages_of
from ml_platform.stages.chain import Chain
from ml_platform.stages.outcome import STAGES_TAG
from ml_platform.stages.resources import PlatformResource, bench_of
from ml_platform.stages.stage import Stage
from ml_platform.stages.step import StageRun
from ml_platform.stages.together import refusal, together

MAX_RUNTIME_TAG = "dagster/max_runtime"
PRIORITY_TAG, LAST = "dagster/priority", "-1"
CANDIDATES = "candidates"
"""The step of all candidates."""


def partitions_of(pipeline: Pipeline) -> dg.PartitionsDefinition[str]:
    """One partition a batch."""
    batches = pipeline.batches
    if not isinstance(batches, DailyBatches):
        return dg.DynamicPartitionsDefinition(name=f"{pipeline.name}_batches")
    # Dagster's end is the first day that is not included.
    end = dt.date.fromisoformat(batches.end) + dt.timedelta(days=1) if batches.end else None
    return dg.DailyPartitionsDefinition(
        start_date=batches.start, end_date=end.isoformat() if end else None, timezone=batches.timezone
    )


def build_assets(stages: Mapping[str, Stage]) -> list[dg.AssetsDefinition]:
    """All assets of a pipeline, whose stages these are."""
    whole = {name: names for name, names in steps_of(stages).items() if not stages[names[0]].partitioned}
    return [
        _batch_assets(stages, "batches", [stage for stage in stages.values() if stage.partitioned and not stage.apart]),
        *(_whole_assets(stages, name, names) for name, names in whole.items()),
        *(_batch_assets(stages, stage.name, [stage]) for stage in stages.values() if stage.partitioned and stage.apart),
    ]


def steps_of(stages: Mapping[str, Stage]) -> dict[str, list[str]]:
    """The steps of a run, in order: the stages of each, by its name. All candidates are one step."""
    steps: dict[str, list[str]] = {}
    for name, stage in stages.items():
        is_candidate = stage.pipeline.candidates and name in stage.pipeline.recipes
        steps.setdefault(CANDIDATES if is_candidate else name, []).append(name)
    return steps


def _spec(stage: Stage, **more: Any) -> dg.AssetSpec:
    pipeline = stage.pipeline
    return dg.AssetSpec(
        key=[pipeline.name, stage.name],
        deps=[[pipeline.name, upstream] for upstream in stage.upstream],
        description=stage.description,
        group_name=pipeline.name,
        owners=list(pipeline.owners),
        tags={**pipeline.tags, "ml_platform/task": pipeline.task},
        kinds=set(stage.kinds),
        code_version=stage.version.value,
        freshness_policy=_freshness(stage),
        **more,
    )


def _freshness(stage: Stage) -> dg.FreshnessPolicy | None:
    """How old the asset may become, as declared; the UI warns when three quarters of the time have passed."""
    age = stage.pipeline.automation.fresh_within.get(stage.name)
    return dg.FreshnessPolicy.time_window(fail_window=age, warn_window=age * 0.75) if age else None


def _check_specs(stage: Stage, partitions: dg.PartitionsDefinition[str] | None) -> list[dg.AssetCheckSpec]:
    with warnings.catch_warnings():
        # A check without partitions on a partitioned asset leaks between batches; with them it is "in preview".
        warnings.simplefilter("ignore", dg.PreviewWarning)
        return [
            dg.AssetCheckSpec(
                name=check.name,
                asset=[stage.pipeline.name, stage.name],
                description=check.description,
                blocking=check.blocking,
                partitions_def=partitions,
            )
            for check in stage.checks()
        ]


def _batch_assets(stages: Mapping[str, Stage], name: str, partitioned: Sequence[Stage]) -> dg.AssetsDefinition:
    pipeline = partitioned[0].pipeline
    partitions = partitions_of(pipeline)

    @dg.multi_asset(
        name=f"{pipeline.name}__{name}",
        specs=[_spec(stage, skippable=True) for stage in partitioned],
        check_specs=[spec for stage in partitioned for spec in _check_specs(stage, partitions)],
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
        can_subset=True,
    )
    def batches(
        context: dg.AssetExecutionContext,
        platform: PlatformResource,
        spark: LazyPySparkResource,
        mlflow: MlflowResource,
    ) -> Iterator[Any]:
        if not context.selected_asset_keys:
            raise dg.Failure(
                "Checks are answered when a batch is materialized: they cannot be executed by themselves. Materialize "
                "its partition: what is known of it is published again, and nothing is computed twice.",
                allow_retries=False,
            )
        begin(context)
        chain = platform.chain(stages, context.instance)
        keys = list(context.partition_keys)
        with bench_of(chain, context, spark, mlflow) as bench:
            for stage in partitioned:
                if chain.published.key(stage.name) not in context.selected_asset_keys:
                    continue
                run = StageRun(stage, bench, keys, again=True)
                if len(keys) == 1:
                    for result in run.results():
                        yield from run.publisher.results(result)
                else:
                    run.log_all()
                if failure := run.refuse():
                    raise failure

    return batches


def _whole_assets(stages: Mapping[str, Stage], name: str, names: Sequence[str]) -> dg.AssetsDefinition:
    """The assets of one step: an unpartitioned stage, or all candidates."""
    several = len(names) > 1
    pipeline = stages[names[0]].pipeline

    @dg.multi_asset(
        name=f"{pipeline.name}__{name}",
        specs=[_spec(stages[each], **({"skippable": True} if several else {})) for each in names],
        check_specs=[spec for each in names for spec in _check_specs(stages[each], None)],
        can_subset=several,
    )
    def whole(
        context: dg.AssetExecutionContext,
        platform: PlatformResource,
        spark: LazyPySparkResource,
        mlflow: MlflowResource,
    ) -> Iterator[Any]:
        begin(context)
        selected = {key.path[-1] for key in context.selected_asset_keys} if several else {*names}
        with ExitStack() as stack:
            runs = []
            for each in names:
                if each in selected:
                    chain = platform.chain(stages, context.instance)
                    bench = stack.enter_context(bench_of(chain, context, spark, mlflow))
                    runs.append(StageRun(stages[each], bench, None, again=True))
            for run, result in together(runs, platform.typed().training_at_once(len(runs))):
                yield from run.publisher.results(result)
        if failure := refusal(runs):
            raise failure

    return whole


class ChainConfig(dg.Config):
    """What to run: all batches and all stages, unless named."""

    batches: list[str] | None = None
    stages: list[str] | None = None
    force: bool = False
    """Run bodies even where their result is known. A result that differs from the known one takes its place."""
    replaced: list[str] = []  # noqa: RUF012 -- pydantic copies it
    """Declared values to replace in this run, each like recipe.epochs=5."""
    console: str = "INFO"
    """Level of what the run's process prints. The event log has everything all the same."""


def chain_job_name(pipeline: Pipeline) -> str:
    """The job that carries the whole chain out."""
    return f"{pipeline.name}_chain"


def build_chain_job(stages: Mapping[str, Stage]) -> dg.JobDefinition:
    """The whole chain in one run: what is fresh is skipped, what is known is published again, the rest is built."""
    pipeline = next(iter(stages.values())).pipeline
    steps = steps_of(stages)

    @dg.config_mapping  # type: ignore[untyped-decorator,unused-ignore]
    def everywhere(config: ChainConfig) -> dict[str, Any]:
        given = {"config": config.model_dump(exclude={"console"})}
        console = {"config": {"log_level": config.console}}
        return {"ops": dict.fromkeys(steps, given), "loggers": {"console": console}}

    @dg.job(
        name=chain_job_name(pipeline),
        description=f"Brings every stage of {pipeline.name} up to date, over all batches, in one run.",
        config=everywhere,
        executor_def=dg.in_process_executor,
        tags={MAX_RUNTIME_TAG: 24 * 3600},
    )
    def chain() -> None:
        step = _chain_op(stages)
        done: dict[str, Any] = {}
        for name, names in steps.items():
            first = stages[names[0]]
            if first.apart:  # last by its priority, which the executor goes by where an order is open
                needed = [done[above] for above in first.upstream if stages[above].partitioned]
                done[name] = step.alias(name).tag({PRIORITY_TAG: LAST})(needed)
            else:
                before = [done[other] for other in list(done)[-1:]]
                done[name] = step.alias(name)(before)

    return chain


def _chain_op(stages: Mapping[str, Stage]) -> dg.OpDefinition:
    """One op for all steps, called by a step's name in the job: making one each would take half of a start."""
    pipeline = next(iter(stages.values())).pipeline
    steps = steps_of(stages)
    variants = functools.cache(lambda replaced: stages_of(overridden(pipeline, replaced)) if replaced else stages)

    @dg.op(name=f"{pipeline.name}_stage", ins={"before": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
    def step(
        context: dg.OpExecutionContext,
        config: ChainConfig,
        platform: PlatformResource,
        spark: LazyPySparkResource,
        mlflow: MlflowResource,
    ) -> None:
        wanted = config.stages
        names = [name for name in steps[context.op_handle.name] if wanted is None or name in wanted]
        if not names:
            return
        begin(context)
        with ExitStack() as stack:
            runs = []
            for name in names:
                chain = platform.chain(variants(tuple(config.replaced)), context.instance)
                register_batches(chain, context.instance)
                runs.append(
                    StageRun(
                        chain.stages[name],
                        stack.enter_context(bench_of(chain, context, spark, mlflow)),
                        config.batches,
                        again=False,
                        force=config.force,
                        partial=config.batches is not None,
                    )
                )
            for run, result in together(runs, platform.typed().training_at_once(len(runs))):
                run.publisher.log(result)
        if failure := refusal(runs):
            raise failure

    return step


def begin(context: dg.OpExecutionContext | dg.AssetExecutionContext) -> None:
    """Say on the run which process executes it, so that its death is noticed (`dead_runs`)."""
    if context.run.tags.get(PROCESS_TAG) != process_tag():
        _begin(context.instance, context.run.run_id)


@functools.lru_cache(maxsize=64)  # once a run, not once a step
def _begin(instance: dg.DagsterInstance, run_id: str) -> None:
    # A run that is started again from another one has that one's tags.
    instance.add_run_tags(run_id, {PROCESS_TAG: process_tag(), STAGES_TAG: "[]", FAILURE_TAG: ""})


def register_batches(chain: Chain, instance: dg.DagsterInstance) -> None:
    """Make free-form batches that have landed known to Dagster as partitions. Daily ones exist by themselves."""
    partitions = partitions_of(chain.pipeline)
    if isinstance(partitions, dg.DynamicPartitionsDefinition):
        assert partitions.name is not None
        known = set(instance.get_dynamic_partitions(partitions.name))
        if new := sorted(set(chain.batches()) - known):
            instance.add_dynamic_partitions(partitions.name, new)
