"""Components found strip by strip, against SciPy's on the whole raster."""

import numpy as np
import pytest
from scipy import ndimage

from marsls_keras.inference.postprocess import HOLE, LANDSLIDE, fill_holes, remove_components
from marsls_keras.mapping.components import ArrayStrips, Components, FilledStrips, SievedStrips, Strips


def field(seed: int, shape: tuple[int, int] = (61, 43), sigma: float = 1.2) -> np.ndarray:
    return ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), sigma)


def spiral(turns: int) -> np.ndarray:
    """Return one landslide that crosses each row many times: its parts are joined in far strips only."""
    size = 4 * turns + 1
    mask = np.zeros((size, size), bool)
    for i in range(0, 2 * turns, 2):
        mask[i, i : size - i] = mask[size - 1 - i, i : size - i] = True
        mask[i : size - i, i] = mask[i : size - i, size - 1 - i] = True
        mask[i + 1, i] = False  # opens the ring
        mask[i + 2, i + 1] = True  # and leads inwards
    return mask


def whole(strips: Strips) -> np.ndarray:
    return np.concatenate([strips.read(i).mask for i in range(len(strips))])


CASES = [field(0) > 0, field(1, sigma=0.5) > 0.3, field(2, sigma=3) > -0.05, spiral(5)]
CASES += [np.zeros((9, 4), bool), np.ones((9, 4), bool), np.eye(17, dtype=bool)[:, ::-1], np.ones((1, 1), bool)]


@pytest.mark.parametrize("rows", [1, 2, 7, 100])
@pytest.mark.parametrize("neighbourhood", [LANDSLIDE, HOLE], ids=["landslide", "hole"])
@pytest.mark.parametrize("case", range(len(CASES)))
def test_numbers_and_areas_are_those_of_scipy_on_the_whole(case: int, neighbourhood: np.ndarray, rows: int) -> None:
    mask = CASES[case]
    expected, count = ndimage.label(~mask if neighbourhood is HOLE else mask, neighbourhood[1])
    components = Components(ArrayStrips(mask, rows), neighbourhood)
    assert components.count == count
    strips = [components.read(i) for i in range(len(components.strips))]
    assert np.array_equal(np.concatenate([strip.number[strip.labels] for strip in strips]), expected)
    areas = np.bincount(expected.ravel(), minlength=count + 1)
    areas[0] = 0
    assert np.array_equal(np.concatenate([strip.area[strip.labels] for strip in strips]), areas[expected])


@pytest.mark.parametrize("rows", [1, 3, 16, 100])
@pytest.mark.parametrize("seed", range(4))
def test_filling_and_sieving_equal_those_in_memory(seed: int, rows: int) -> None:
    mask = field(seed, sigma=0.8) > 0.1
    known = field(seed + 50, sigma=4) > -0.1  # the raster has gaps, at whose edges nothing may be changed
    mask &= known
    assert 0.2 < known.mean() < 1
    strips = ArrayStrips(mask, rows, known)
    filled = FilledStrips(strips, 4)
    expected = fill_holes(mask, 4, known) & known
    assert not np.array_equal(expected, mask)
    assert np.array_equal(whole(filled), expected)
    sieved = remove_components(expected, 9, known)
    assert not np.array_equal(sieved, expected)
    assert np.array_equal(whole(SievedStrips(filled, 9)), sieved)
