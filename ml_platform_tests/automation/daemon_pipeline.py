"""The tiny pipeline, looked at often."""

from __future__ import annotations

from dataclasses import replace

from ml_platform.pipeline import Automation, NewData, Reconcile
from ml_platform_tests.tiny_pipeline.pipeline import PIPELINE as TINY

PIPELINE = replace(
    TINY,
    automation=Automation(new_data=NewData(every_seconds=2), reconcile=Reconcile(every_seconds=5, retry_seconds=1)),
)
