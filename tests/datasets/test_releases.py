"""The canonical order of the bands, and the table of releases against the numbers of data/README.md."""

from __future__ import annotations

import numpy as np
import pytest

from marsls_keras.bands.names import BANDS, RGB
from marsls_keras.datasets import RELEASES
from marsls_keras.datasets.landslide4sense import SENTINEL

# Challenge value = MMLSv2 value x scale + offset, in the order of the challenge's files.
CHALLENGE = {
    "thermal": (254, 0),
    "slope": (62.8026087, 0),
    "dem": (12822, -5834),
    "gray": (254, 0),
    "red": (189, 18),
    "green": (213, 18),
    "blue": (237, 18),
}


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(0).random((6, 5, 7), np.float32)


def test_canonical_order() -> None:
    assert BANDS == ("red", "green", "blue", "dem", "slope", "thermal", "gray")
    assert BANDS[:3] == RGB


def test_every_release_has_each_band_once() -> None:
    bands = {
        "mmls_v1": BANDS,
        "mmls_v2": BANDS,
        "challenge": BANDS,
        "landslide4sense": SENTINEL,
        "bijie": RGB,
        "nepal": RGB,
    }
    assert list(RELEASES) == list(bands)
    for name, release in RELEASES.items():
        assert release.name == name and release.bands == bands[name]
        assert sorted(release.order) == sorted(release.bands)
        assert [len(values) for values in release.scales] == [len(set(release.bands))] * 2
    assert (len(SENTINEL), SENTINEL.index("nir"), SENTINEL[-2:]) == (14, 7, ("slope", "dem"))  # B8, B13, B14


def test_challenge_is_the_same_picture_as_mmls_v2_and_v1_is_not() -> None:
    assert RELEASES["challenge"].family == RELEASES["mmls_v2"].family != RELEASES["mmls_v1"].family


def test_challenge_values_band_by_band(image: np.ndarray) -> None:
    stored = RELEASES["challenge"].from_canonical(image)
    assert stored.dtype == np.float32
    for position, (band, (scale, offset)) in enumerate(CHALLENGE.items()):
        np.testing.assert_allclose(
            stored[..., position], image[..., BANDS.index(band)] * scale + offset, rtol=1e-6, err_msg=band
        )


def test_mmls_v2_is_stored_as_it_is(image: np.ndarray) -> None:
    np.testing.assert_array_equal(RELEASES["mmls_v2"].to_canonical(image), image)
    np.testing.assert_array_equal(RELEASES["mmls_v2"].from_canonical(image), image)


def test_mmls_v1_has_slope_and_thermal_exchanged(image: np.ndarray) -> None:
    exchanged = image[..., [0, 1, 2, 3, 5, 4, 6]]
    np.testing.assert_array_equal(RELEASES["mmls_v1"].to_canonical(exchanged), image)
    np.testing.assert_array_equal(RELEASES["mmls_v1"].from_canonical(image), exchanged)


def test_only_thermal_of_mmls_v1_has_a_value_for_no_data() -> None:
    stored = np.zeros((2, 3, 7), np.float32)
    assert RELEASES["mmls_v1"].missing(stored).all((0, 1)).tolist() == [
        band == "thermal" for band in RELEASES["mmls_v1"].order
    ]
    assert not RELEASES["mmls_v1"].missing(stored + 0.5).any()
    for name in ("mmls_v2", "challenge"):
        assert not RELEASES[name].missing(stored).any()


def test_there_and_back(image: np.ndarray) -> None:
    release = RELEASES["challenge"]
    back = release.to_canonical(release.from_canonical(image))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, image, atol=1e-6)


def test_integers_are_not_scaled_as_integers() -> None:
    stored = np.full((2, 2, 7), 100, np.uint8)
    red = RELEASES["challenge"].to_canonical(stored)[..., 0]
    np.testing.assert_allclose(red, (100 - 18) / 189, rtol=1e-6)
