"""Expansion of a list of band names."""

import pytest

from marsls_keras.bands.names import BANDS, expand_bands
from marsls_keras.errors import InputError


def test_all_stands_for_the_bands_that_tiles_hold():
    assert expand_bands(["all"], ("red", "dem")) == ("red", "dem")
    assert expand_bands(["dem", "all"], ("red", "dem", "gray")) == ("dem", "red", "gray")
    assert expand_bands(["gray", "red"], BANDS) == ("gray", "red")


def test_a_band_that_the_tiles_lack_is_named():
    with pytest.raises(InputError, match=r"data.bands: the tiles have no band slope, gray. They have red, dem."):
        expand_bands(["slope", "red", "gray"], ("red", "dem"))
