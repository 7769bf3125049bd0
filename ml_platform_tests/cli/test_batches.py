"""`--batches`: ranges over what has landed, and names."""

from __future__ import annotations

import pytest

from ml_platform.cli.batches import selected
from ml_platform.errors import LandingError
from ml_platform.pipeline import Pipeline
from ml_platform.pipelines.nyc_flights.pipeline import PIPELINE as FLIGHTS

LANDED = ("2013-01-01", "2013-01-02", "2013-01-04", "2013-02-01")


def chosen(*texts: str, pipeline: Pipeline = FLIGHTS) -> set[str] | None:
    return selected(texts, pipeline, lambda: LANDED)


def test_nothing_said_means_all() -> None:
    assert chosen() is None
    assert chosen("", " ") is None


def test_a_range_takes_what_landed_between_its_ends() -> None:
    assert chosen("2013-01-02..2013-01-31") == {"2013-01-02", "2013-01-04"}
    assert chosen("2013-01-04..") == {"2013-01-04", "2013-02-01"}
    assert chosen("..2013-01-01") == {"2013-01-01"}


def test_a_name_is_taken_whether_it_landed_or_not() -> None:
    assert chosen("2013-01-01,2013-03-03", "2013-01-04..2013-01-05") == {"2013-01-01", "2013-03-03", "2013-01-04"}


@pytest.mark.parametrize("text", ["2013-02-01..2013-01-01", "2013-03-01..2013-03-31", "June", "2013-01-01..x", "../x"])
def test_what_selects_nothing_is_refused(text: str) -> None:
    with pytest.raises(LandingError) as refused:
        chosen(text)
    assert refused.value.got is not None


def test_a_range_of_free_form_names_goes_by_name(tiny: Pipeline) -> None:
    assert selected(["a..b"], tiny, lambda: ["a", "a-2", "b", "c"]) == {"a", "a-2", "b"}
