"""Plots are pictures, small enough to travel in metadata, and drawn without pyplot."""

import io
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from ml_platform.evaluation import drawing, plots

RANDOM = np.random.default_rng(3)
ROWS = 20_000
TARGET = (RANDOM.random(ROWS) < 0.24).astype(int)
SCORES = np.clip(0.24 + 0.2 * (TARGET - 0.24) + 0.12 * RANDOM.standard_normal(ROWS), 0.001, 0.999)
BOTH = {"network": SCORES, "gradient boosting": SCORES[::-1]}
NAMES = [f"class {number}" for number in range(8)]


def draw() -> dict[str, bytes]:
    numbers = 100 * SCORES + RANDOM.standard_normal(ROWS)
    return {
        "loss": plots.loss_curve({"train": [0.6, 0.5, 0.47], "holdout": [0.58, 0.52, 0.51]}),
        "roc": plots.roc(TARGET, BOTH),
        "calibration": plots.calibration(TARGET, BOTH),
        "histogram": plots.score_histogram(TARGET, SCORES),
        "confusion": plots.confusion(RANDOM.choice(NAMES, 500), RANDOM.choice(NAMES, 500), NAMES),
        "regression": plots.predicted_actual(numbers, {"network": 100 * SCORES, "gradient boosting": 90 * SCORES}),
    }


@pytest.fixture(scope="module")
def pictures() -> dict[str, bytes]:
    return draw()


@pytest.mark.parametrize("name", ["loss", "roc", "calibration", "histogram", "confusion", "regression"])
def test_a_plot_is_a_small_png(pictures, name):
    image = Image.open(io.BytesIO(pictures[name]))
    image.load()
    assert image.format == "PNG"
    assert image.size == drawing.SIZE
    assert len(pictures[name]) < 25_000
    assert len(image.convert("RGB").getcolors(100_000)) > 5  # not an empty sheet


def test_one_class_is_drawn_with_a_note_instead_of_a_curve():
    assert plots.roc(np.zeros(10, int), {"network": SCORES[:10]}) != plots.roc(TARGET, {"network": SCORES})
    assert plots.score_histogram(np.zeros(10, int), SCORES[:10])
    assert plots.calibration(np.ones(10, int), {"network": SCORES[:10]})


def test_drawing_again_gives_the_same_bytes(pictures):
    assert plots.roc(TARGET, BOTH) == pictures["roc"]


def test_pyplot_stays_out():
    code = (
        "import sys; from ml_platform.evaluation import plots; plots.loss_curve({'train': [1, 2]}); "
        "sys.exit('matplotlib.pyplot' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
