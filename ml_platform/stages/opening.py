"""Opens a pipeline as it stands: its stages over the landing place, the store and what Dagster has published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ml_platform.landing import Landing
from ml_platform.stages.chain import Chain
from ml_platform.stages.digests import Digests
from ml_platform.stages.event_index import EventIndex
from ml_platform.stages.published import Events, InstanceEvents, Published
from ml_platform.store import Store

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from ml_platform.settings import Settings
    from ml_platform.stages.stage import Stage


def chain_of(stages: Mapping[str, Stage], settings: Settings, instance: DagsterInstance | None = None) -> Chain:
    """A pipeline, whose stages these are, as it stands now.

    Args:
        stages: by name, in the order of the chain.
        settings: where everything is.
        instance: whose runs the stages are carried out in. None only looks, without importing Dagster.
    """
    pipeline = next(iter(stages.values())).pipeline
    landing = landing_of(settings)
    return Chain(
        pipeline=pipeline,
        stages=stages,
        settings=settings,
        store=store_of(settings),
        landing=landing,
        digests=Digests(landing, settings.cache),
        published=Published(events_of(settings, instance), pipeline.name),
    )


def events_of(settings: Settings, instance: DagsterInstance | None) -> Events:
    """The files of the home's instance where they are the event log; else Dagster is asked."""
    if instance is not None:
        from ml_platform.event_log import EventLog

        if not (isinstance(instance.event_log_storage, EventLog) and instance.event_log_storage.holds(settings)):
            return InstanceEvents(instance)
    return EventIndex(settings.dagster_home)


def store_of(settings: Settings) -> Store:
    """The store that the settings name."""
    return Store(settings.store, cache=settings.cache, storage_options=settings.storage_options)


def landing_of(settings: Settings) -> Landing:
    """The landing place that the settings name."""
    return Landing(settings.landing, storage_options=settings.storage_options, settle_seconds=settings.settle_seconds)
