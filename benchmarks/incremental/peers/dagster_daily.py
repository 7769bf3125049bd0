"""Plain Dagster: three assets a day with `BackfillPolicy.single_run()`, and one over all days.

One run over the whole range: the bodies loop, and an IO manager splits what they return, because Dagster's own refuses
to write several partitions. Its console is quiet. DAYS is the number of days; each is a CSV file in the folder `data`.
"""

import csv
import datetime
import json
import os
from pathlib import Path

import dagster as dg

START = datetime.date(2001, 1, 1)
DAILY = dg.DailyPartitionsDefinition(
    START.isoformat(), end_date=(START + datetime.timedelta(days=int(os.environ["DAYS"]))).isoformat()
)
EACH = {"partitions_def": DAILY, "backfill_policy": dg.BackfillPolicy.single_run()}


@dg.asset(**EACH)
def day_rows(context: dg.AssetExecutionContext):
    out = {}
    for key in context.partition_keys:
        with open(f"data/{key}.csv") as file:
            out[key] = [int(row["number"]) for row in csv.DictReader(file)]
    return out


@dg.asset(**EACH)
def day_valid(day_rows):
    assert all(row >= 0 for rows in day_rows.values() for row in rows)
    return day_rows


@dg.asset(**EACH)
def day_features(day_valid):
    return {day: [row * 2 for row in rows] for day, rows in day_valid.items()}


@dg.asset
def model(day_features):
    return sum(map(sum, day_features.values()))


class FileADay(dg.IOManager):
    """A JSON file for each partition."""

    def _path(self, context, key):
        return Path("store", f"{context.asset_key.path[-1]}-{key}.json")

    def handle_output(self, context, obj):
        Path("store").mkdir(exist_ok=True)
        values = obj if context.has_asset_partitions else {"all": obj}
        for key, value in values.items():
            self._path(context, key).write_text(json.dumps(value))

    def load_input(self, context):
        keys = context.asset_partition_keys
        return {key: json.loads(self._path(context.upstream_output, key).read_text()) for key in keys}


def main():
    days = DAILY.get_partition_keys()
    batches, everything = [day_rows, day_valid, day_features], [day_rows, day_valid, day_features, model]
    resources = {"io_manager": FileADay()}
    ends = {"dagster/asset_partition_range_start": days[0], "dagster/asset_partition_range_end": days[-1]}
    with dg.DagsterInstance.get() as instance:
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        kept = {"instance": instance, "resources": resources, "run_config": quiet}
        assert dg.materialize(everything, selection=batches, tags=ends, **kept).success
        assert dg.materialize(everything, selection=[model], **kept).success


if __name__ == "__main__":
    main()
