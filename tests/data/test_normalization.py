"""Normalisation compared with NumPy."""

from __future__ import annotations

import json

import numpy as np
import pytest

from marsls_keras.config import Data, Normalization
from marsls_keras.data.normalization import Normalizer

RED, GREEN, BLUE, DEM, SLOPE, THERMAL, GRAY = range(7)


@pytest.fixture
def images() -> np.ndarray:
    """Return tiles whose bands have clearly different means and ranges."""
    noise = np.random.default_rng(0).normal(size=(9, 12, 10, 7))
    return (noise * [0.1, 0.2, 0.3, 0.4, 0.05, 2, 1] + [0, 1, -1, 0.5, 0.9, 10, 3]).astype(np.float32)


def config(percentiles: tuple[float, float] | None = None, zscore: bool = True, **options) -> Data:
    return Data(normalization=Normalization(percentiles=percentiles, zscore=zscore), **options)


def test_z_score_has_the_statistics_of_the_given_tiles_only(images: np.ndarray) -> None:
    training = images[:6].astype(np.float64)
    normalizer = Normalizer.fit(images[:6], config())
    np.testing.assert_allclose(normalizer.mean, training.mean((0, 1, 2)), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, training.std((0, 1, 2)), rtol=1e-6)
    result = normalizer.apply(images)
    assert result.dtype == np.float32
    np.testing.assert_allclose(result, (images - training.mean((0, 1, 2))) / training.std((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(result[:6].mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(result[:6].std((0, 1, 2)), 1, atol=1e-5)
    assert np.abs(result[6:].mean((0, 1, 2))).max() > 1e-3


def test_percentiles_per_tile_and_band(images: np.ndarray) -> None:
    normalizer = Normalizer.fit(images[:6], config((2, 97), zscore=False))
    assert normalizer.mean is None and normalizer.std is None
    result = normalizer.apply(images)
    for tile in range(9):
        for band in range(7):
            low, high = np.percentile(images[tile, ..., band].astype(np.float64), (2, 97))
            expected = np.clip((images[tile, ..., band] - low) / (high - low), 0, 1)
            np.testing.assert_allclose(result[tile, ..., band], expected, atol=1e-5)
    assert result.min() == 0 and result.max() == 1


def test_percentiles_then_z_score(images: np.ndarray) -> None:
    stretched = Normalizer.fit(images, config((1, 99), zscore=False)).apply(images).astype(np.float64)
    normalizer = Normalizer.fit(images[:6], config((1, 99)))
    mean, std = stretched[:6].mean((0, 1, 2)), stretched[:6].std((0, 1, 2))
    np.testing.assert_allclose(normalizer.apply(images), (stretched - mean) / std, atol=1e-4)


@pytest.mark.parametrize("percentiles", [None, (1, 99)])
def test_only_valid_pixels_count(images: np.ndarray, percentiles: tuple[float, float] | None) -> None:
    valid = np.random.default_rng(1).random((9, 12, 10)) < 0.8
    valid[2] = False
    plain = Normalizer.fit(images, config(percentiles, zscore=False)).apply(images).astype(np.float64)
    normalizer = Normalizer.fit(images, config(percentiles), valid=valid)
    np.testing.assert_allclose(normalizer.mean, plain[valid].mean(0), rtol=1e-6)
    np.testing.assert_allclose(normalizer.std, plain[valid].std(0), rtol=1e-6)
    assert Normalizer.fit(images, config(percentiles), valid=valid & False) == Normalizer.fit(
        images, config(percentiles)
    )


def test_neither(images: np.ndarray) -> None:
    np.testing.assert_array_equal(Normalizer.fit(images, config(zscore=False)).apply(images), images)


@pytest.mark.parametrize("percentiles", [None, (1, 99)])
def test_choice_and_order_of_bands(images: np.ndarray, percentiles: tuple[float, float] | None) -> None:
    everything = Normalizer.fit(images, config(percentiles)).apply(images)
    some = Normalizer.fit(images, config(percentiles, bands=("slope", "red", "gray"))).apply(images)
    assert some.shape == (9, 12, 10, 3)
    np.testing.assert_allclose(some, everything[..., [SLOPE, RED, GRAY]], atol=1e-6)


def test_a_constant_band_becomes_zero_and_is_not_blown_up_elsewhere(images: np.ndarray) -> None:
    images[:6, ..., DEM] = 0.5
    for percentiles in (None, (1, 99)):
        normalizer = Normalizer.fit(images[:6], config(percentiles))
        assert normalizer.std is not None and normalizer.std[DEM] == 1
        result = normalizer.apply(images)
        np.testing.assert_array_equal(result[:6, ..., DEM], 0)
        assert np.isfinite(result).all() and np.abs(result[6:, ..., DEM]).max() < 5


def test_statistics_of_large_values_are_exact() -> None:
    """Check the precision: float32 sums over many pixels would lose the mean of heights in metres."""
    images = np.full((40, 128, 128, 7), 4000.1, np.float32)
    images[::2] += 0.5
    normalizer = Normalizer.fit(images, config(bands=("dem",)))
    np.testing.assert_allclose(normalizer.mean, [4000.35], rtol=1e-7)
    np.testing.assert_allclose(normalizer.std, [0.25], rtol=1e-3)


@pytest.mark.parametrize("percentiles", [None, (1.0, 99.0)])
@pytest.mark.parametrize("zscore", [True, False])
def test_json_round_trip(images: np.ndarray, percentiles: tuple[float, float] | None, zscore: bool) -> None:
    normalizer = Normalizer.fit(images, config(percentiles, zscore, bands=("dem", "red")))
    again = Normalizer.from_json(json.loads(json.dumps(normalizer.to_json())))
    assert again == normalizer
    np.testing.assert_array_equal(again.apply(images), normalizer.apply(images))


@pytest.mark.parametrize("percentiles", [None, (1.0, 99.0)])
@pytest.mark.parametrize("zscore", [True, False])
def test_units_tell_how_far_a_step_of_1_carries(
    images: np.ndarray, percentiles: tuple[float, float] | None, zscore: bool
) -> None:
    normalizer = Normalizer.fit(images, config(percentiles, zscore, bands=("slope", "red")))
    assert len(normalizer.units) == 2
    if percentiles is None:
        raised = normalizer.apply(images + np.float32(1)) - normalizer.apply(images)
    else:  # the z-score follows the percentile stretch
        scaled = Normalizer.fit(images, config(percentiles, False, bands=("slope", "red"))).apply(images)
        mean, std = (scaled.mean((0, 1, 2)), scaled.std((0, 1, 2))) if zscore else (0, 1)
        raised = (scaled + 1 - mean) / std - normalizer.apply(images)
    np.testing.assert_allclose(raised, np.broadcast_to(normalizer.units, raised.shape), rtol=1e-3, atol=1e-3)


def test_a_constant_band_has_the_unit_of_a_tile(images: np.ndarray) -> None:
    images[..., RED] = 0.25
    assert Normalizer.fit(images, config(bands=("red",))).units == (1.0,)
