"""The checks of `benchmarks.gate.Ten` by Great Expectations: versions, and seconds from the file to the verdict."""

import json
import logging
import sys
import time

import great_expectations as gx
import great_expectations.expectations as e
import pandas as pd

CARRIERS, ORIGINS = ["AA", "UA", "DL", "B6", "WN"], ["EWR", "JFK", "LGA"]
TYPES = {"id": "int64", "day": "int32", "price": "float64", "distance": "float64", "delay": "float64"}
TYPES |= {"departs": "int64", "arrives": "int64", "carrier": "str", "origin": "str", "note": "str"}
FILLED = [name for name in TYPES if name != "note"]

EXPECTED = [
    *(e.ExpectColumnValuesToBeOfType(column=name, type_=type_) for name, type_ in TYPES.items()),
    *(e.ExpectColumnValuesToNotBeNull(column=name) for name in FILLED),
    e.ExpectColumnValuesToBeUnique(column="id"),
    e.ExpectColumnValuesToBeBetween(column="day", min_value=1, max_value=31),
    e.ExpectColumnValuesToBeInSet(column="carrier", value_set=CARRIERS),
    e.ExpectColumnValuesToBeInSet(column="origin", value_set=ORIGINS),
    e.ExpectColumnValuesToBeBetween(column="price", min_value=0, max_value=500),
    e.ExpectColumnValuesToBeBetween(column="distance", min_value=0, max_value=3000),
    e.ExpectColumnValuesToBeBetween(column="departs", min_value=0),
    e.ExpectColumnValuesToBeBetween(column="arrives", max_value=2400),
    e.ExpectColumnPairValuesAToBeGreaterThanB(column_A="arrives", column_B="departs", or_equal=True),
]


def main() -> None:
    """Validate so many times."""
    logging.disable(logging.WARNING)
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}
    asset = context.data_sources.add_pandas("pandas").add_dataframe_asset("ten")
    definition = asset.add_batch_definition_whole_dataframe("whole")
    suite = context.suites.add(gx.ExpectationSuite(name="ten", expectations=EXPECTED))
    times = []
    for _ in range(int(sys.argv[2]) + 1):
        begun = time.perf_counter()
        batch = definition.get_batch(batch_parameters={"dataframe": pd.read_parquet(sys.argv[1])})
        result = batch.validate(suite)
        times.append(time.perf_counter() - begun)
        assert result.success, [r.expectation_config for r in result.results if not r.success]
    print(json.dumps({"name": f"Great Expectations {gx.__version__}, pandas {pd.__version__}", "seconds": times[1:]}))


if __name__ == "__main__":
    main()
