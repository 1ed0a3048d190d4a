import subprocess
import sys

import numpy as np
import pytest
from helpers.reports import history, make_run, scores
from matplotlib.image import imread

from marsls_keras.report import save_curves
from marsls_keras.report.run_summary import evaluate, threshold_band
from marsls_keras.report.tile_pictures import ERROR_COLOURS, error_map, hillshade, stretch


def test_threshold_band_holds_the_curve():
    run = make_run()
    low, high = threshold_band(evaluate(run).histograms)
    value = scores(run.masks, run.probability >= np.float32(0.45))["miou"]
    assert low[450] < value < high[450] and high[450] - low[450] < 0.3
    assert (low <= high).all()


@pytest.mark.parametrize(("epochs", "ema"), [(1, True), (60, True), (60, False), (1, False), (0, True)])
def test_curves(tmp_path, epochs, ema):
    path = tmp_path / "fold_0" / "curves.png"
    save_curves(path, history(epochs, ema), "a $run$, fold 0")
    pixels = imread(path)
    assert 500 < pixels.shape[0] < 1500 and 500 < pixels.shape[1] < 1500
    assert [p.name for p in path.parent.iterdir()] == ["curves.png"]


def test_curves_of_a_training_that_gave_nan(tmp_path):
    rows = [row | {"val_miou": float("nan"), "loss": float("nan")} for row in history(3)]
    save_curves(tmp_path / "curves.png", rows, "diverged")
    assert (tmp_path / "curves.png").stat().st_size > 1000


def test_needs_no_tensorflow_and_no_pyplot():
    unwanted = ("tensorflow", "keras", "jax", "matplotlib.pyplot")
    code = f"import sys, marsls_keras.report; print([m for m in {unwanted} if m in sys.modules])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
    )


def test_error_map_has_the_colours_of_the_legend():
    truth, prediction = np.array([[True, False], [True, False]]), np.array([[True, True], [False, False]])
    picture = (error_map(truth, prediction, np.full((2, 2), 0.5)) * 255).round().astype(int)
    colours = ["#{:02X}{:02X}{:02X}".format(*pixel) for pixel in picture.reshape(-1, 3)]
    assert colours[:3] == list(ERROR_COLOURS.values())
    assert len(set(picture[1, 1])) == 1  # background is grey


def test_relief_is_lit_from_the_north_west_whatever_the_unit():
    rows, columns = np.mgrid[:32, :32]
    hill = np.exp(-((rows - 16) ** 2 + (columns - 16) ** 2) / 50)
    relief = hillshade(hill)
    assert relief[12, 12] > relief[20, 20] + 0.2
    np.testing.assert_allclose(hillshade(hill * 12822 - 5834), relief, atol=1e-3)
    assert np.isfinite(hillshade(np.zeros((8, 8)))).all() and np.isfinite(stretch(np.zeros((8, 8)))).all()
