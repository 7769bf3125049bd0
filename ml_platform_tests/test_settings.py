"""A setting that cannot work is refused when it is read, naming it."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from ml_platform.settings import Settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATE_MEMORY", "63"),
        ("GATE_MEMORY", "-1"),
        ("GATE_MEMORY", "512.5"),
        ("SPARK_MEMORY", "lots"),
        ("SPARK_MEMORY", "512"),
        ("SPARK_MEMORY", "0g"),
        ("SPARK_MEMORY", "1.5g"),
        ("SPARK_MEMORY", "1g\n2g"),
        ("SETTLE_SECONDS", "-1"),
        ("SETTLE_SECONDS", "inf"),
        ("SETTLE_SECONDS", "nan"),
    ],
)
def test_a_wrong_setting_is_refused(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"ML_PLATFORM_{name}", value)
    with pytest.raises(ValidationError, match=f"(?i){name}"):
        Settings()


def test_what_can_work_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"GATE_MEMORY": "64", "SPARK_MEMORY": "768M", "SETTLE_SECONDS": "0"}.items():
        monkeypatch.setenv(f"ML_PLATFORM_{name}", value)
    settings = Settings(home=tmp_path)
    assert (settings.gate_memory, settings.spark_memory, settings.settle_seconds) == (64, "768M", 0.0)
