"""The check of the band slope, on planes and domes with known gradient, and on synthetic tiles of each release."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile

from competition.commands.check import check_data
from marsls_keras.data.decoded.load import load
from marsls_keras.data.decoded.slope_check import slope_correlations, slope_problems
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.synthetic.mars import write_dataset


@pytest.mark.parametrize("release", ["mmls_v1", "mmls_v2", "challenge"])
def test_generated_tiles_have_a_slope(release: str, tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", release, train=6, val=0, test=0, size=64)
    result = check_data(tmp_path / "data")
    assert result["release"] == release and result["slope"]["slope"] > 0.9
    assert not [problem for problem in result["problems"] if problem["kind"] == "exchanged bands"]


def test_names_that_are_exchanged_are_found(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "mmls_v2", train=6, val=0, test=0, size=64)
    for path in (tmp_path / "data" / "train" / "images").iterdir():
        image = tifffile.imread(path)[..., [0, 1, 2, 3, 5, 4, 6]]
        tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig")
    (problem,) = [
        problem for problem in check_data(tmp_path / "data")["problems"] if problem["kind"] == "exchanged bands"
    ]
    assert problem["severity"] == "warning" and "slope and thermal look exchanged" in problem["message"]


def test_the_correlation_is_that_of_numpy(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "mmls_v1", train=4, val=0, test=0, size=32)
    tiles = load(Dataset.open(tmp_path / "data"))
    assert 0 < (~tiles.valid).sum() < tiles.valid.size
    dem = tiles.images[..., 3].astype(np.float64) * 12822 / 232
    degrees = np.degrees(np.arctan(np.hypot(np.gradient(dem, axis=1), np.gradient(dem, axis=2))))[tiles.valid]
    expected = {
        band: np.corrcoef(tiles.images[..., i][tiles.valid], degrees)[0, 1]
        for i, band in enumerate(tiles.bands)
        if band != "dem"
    }
    assert slope_correlations(tiles) == pytest.approx(expected, abs=1e-4)


def test_when_nothing_follows_the_gradient_nothing_is_said() -> None:
    assert (
        slope_problems({})
        == slope_problems({"slope": 0.1, "thermal": 0.2})
        == slope_problems({"slope": 0.9, "thermal": 0.95})
        == []
    )


def test_a_slope_that_follows_only_in_part_is_told() -> None:
    for slope in (0.49, -0.6):  # half of the tiles exchanged; another band in its place
        (problem,) = slope_problems({"slope": slope, "thermal": 0.45})
        assert (
            problem.severity == "warning"
            and f"r = {slope:.2f}" in problem.message
            and "order of their release" in problem.message
        )


def test_earth_without_heights_is_not_compared(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data", "nepal", train=2, val=0, test=0, size=32)
    assert check_data(tmp_path / "data")["slope"] == {}
