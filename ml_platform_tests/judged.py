"""Some lots of the tiny pipeline that its data gate has judged, for tests of what is shown of that."""

from __future__ import annotations

from pathlib import Path

from ml_platform.pipeline import BatchGate, Pipeline
from ml_platform.settings import Settings
from ml_platform.stages.opening import landing_of
from ml_platform.stages.run import Request, run_pipeline
from ml_platform_tests.conftest import fresh_settings
from ml_platform_tests.tiny_pipeline.data import readings

LOTS = tuple(f"lot-{number:02d}" for number in range(1, BatchGate().least + 3))
"""Of which the last one has just enough accepted ones before it."""
REJECTED, DRIFTED = "lot-07", LOTS[-1]
TRAP = "<script>alert(1)</script>"
"""What stands in two rows of the rejected lot."""


def judge_lots(tiny: Pipeline, home: Path) -> Settings:
    """Land the lots and let the gate judge them: of one two rows name a machine that there is not, and in the last
    one every load is a hundredth of what it was."""
    import pyarrow as pa
    import pyarrow.compute as pc

    settings = fresh_settings(home)
    landing = landing_of(settings)
    for number, lot in enumerate(LOTS):
        table = readings(number)
        if lot == REJECTED:
            machines = [TRAP if row in (3, 40) else name for row, name in enumerate(table["machine"].to_pylist())]
            table = table.set_column(table.schema.get_field_index("machine"), "machine", pa.array(machines))
        elif lot == DRIFTED:
            table = table.set_column(table.schema.get_field_index("load"), "load", pc.divide(table["load"], 100.0))
        landing.put(tiny, "readings", lot, table, "csv")
    summary = run_pipeline(tiny, settings, Request(select=("raw_batch", "validated_batch")))
    assert set(summary.rejected) == {REJECTED, DRIFTED}, summary
    return settings
