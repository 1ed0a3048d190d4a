"""Bands with a direction: rotating a tile commutes with deriving its bands, if vectors are rotated, too."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.bands.derived import DERIVED, LATE
from marsls_keras.bands.directions import Directions
from marsls_keras.bands.names import BANDS
from marsls_keras.config import Augmentation, Data
from marsls_keras.data.augmentation.geometric import Geometric, affine_matrix, resample
from marsls_keras.data.augmentation.photometric import ChannelDropout
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.derived.derive import derive
from marsls_keras.data.derived.terrain import terrain_bands
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.tile_ref import TileRef
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches, evaluation_batches
from marsls_keras.inference.tta import apply_view, view_turn
from marsls_keras.view_sets import VIEWS

SIZE = 32
MARS = [name for name in DERIVED if set(DERIVED[name].sources) <= set(BANDS)]
EVERYTHING = ("all", *MARS)


def mars(images: np.ndarray) -> Tiles:
    """Return tiles that have no neighbours."""
    number = len(images)
    refs = tuple(TileRef(f"train/{i}", Path(f"{i}.tif"), None, "train", "base", None) for i in range(number))
    masks = (images[..., 0] > 0.5).astype(np.uint8)
    return Tiles(refs, images, masks, masks == masks, ("",) * number, ((),) * number, "mmls_v2")


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    """Return six tiles with smooth heights, since Canny edges are not rotation invariant between equal gradients."""
    rng = np.random.default_rng(0)
    images = rng.uniform(0.1, 0.9, (6, SIZE, SIZE, 7)).astype(np.float32)
    images[..., 3] = 0.5 + tf.image.resize(rng.normal(0, 0.1, (6, 5, 5, 1)), (SIZE, SIZE), "bicubic").numpy()[..., 0]
    return images


def network_input(images: np.ndarray, names, normalizer=None, view: str = "identity") -> np.ndarray:
    """Return the network's input for tiles that are rotated after their bands were derived, as in prediction."""
    tiles = derive(mars(images), names)
    normalizer = normalizer or Normalizer.fit(tiles.images, Data(bands=names), tiles.bands)
    values = normalizer.directions.turn(apply_view(normalizer.apply(tiles.images, tiles.bands), view), view_turn(view))
    return normalizer.assemble(values)


@pytest.mark.parametrize("zscore,percentiles", [(True, None), (False, None), (True, (1, 99))])
@pytest.mark.parametrize("view", VIEWS)
def test_bands_of_a_turned_tile_are_the_turned_bands(images, view, zscore, percentiles):
    config = Data(bands=EVERYTHING, normalization={"zscore": zscore, "percentiles": percentiles})
    tiles = derive(mars(images), EVERYTHING)
    normalizer = Normalizer.fit(tiles.images, config, tiles.bands)
    assert normalizer.bands[-1] == "hillshade" and len(normalizer.bands) == 7 + len(MARS)
    expected = network_input(np.ascontiguousarray(apply_view(images, view)), EVERYTHING, normalizer)
    found = network_input(images, EVERYTHING, normalizer, view)
    for i, band in enumerate(normalizer.bands):
        np.testing.assert_allclose(found[..., i], expected[..., i], atol=2e-4, err_msg=band)
    moved = {
        "aspect_sin",
        "aspect_cos",
        "gradient_rows",
        "gradient_columns",
        "normal_rows",
        "normal_columns",
        "hillshade",
    }
    if view != "identity":  # what would be wrong without turning
        wrong = normalizer.assemble(apply_view(normalizer.apply(tiles.images, tiles.bands), view))
        differ = {
            band for i, band in enumerate(normalizer.bands) if np.abs(wrong[..., i] - expected[..., i]).max() > 0.05
        }
        # Light from the north-west lies on the diagonal that a transposition mirrors at.
        assert ("hillshade" in differ) == (view != "transpose") and differ and differ <= moved


@pytest.mark.parametrize(
    "names",
    [EVERYTHING, ("aspect_sin", "dem"), ("hillshade",), ("gray", "gradient_columns", "hillshade", "aspect_cos")],
)
def test_training_sees_the_bands_of_the_turned_tile(images, names):
    tiles = derive(mars(images), names)
    normalizer = Normalizer.fit(tiles.images, Data(bands=names), tiles.bands)
    forms = {view: network_input(np.ascontiguousarray(apply_view(images, view)), names, normalizer) for view in VIEWS}
    options = {"batch_size": 3, "augmentation": Augmentation(), "seed": 1, "epochs": 12, "finish": normalizer.assemble}
    batches = TrainingBatches(
        normalizer.apply(tiles.images, tiles.bands),
        tiles.masks,
        bands=normalizer.directions.carried,
        units=normalizer.units,
        **options,
    )
    seen = set()
    for image, _, _ in batches.dataset().as_numpy_iterator():
        assert image.shape == (3, SIZE, SIZE, len(normalizer.bands)) and image.dtype == np.float32
        for one in image:
            errors = {
                (view, i): np.abs(form[i] - one).max() for view, form in forms.items() for i in range(len(images))
            }
            best = min(errors, key=errors.get)
            assert errors[best] < 2e-4
            seen.add(best[0])
    assert seen == set(VIEWS)


def test_windows_and_evaluation_see_them_too(images):
    names = ("dem", "aspect_cos", "hillshade")
    tiles = derive(mars(images), names)
    normalizer = Normalizer.fit(tiles.images, Data(bands=names), tiles.bands)
    carried, expected = normalizer.apply(tiles.images, tiles.bands), network_input(images, names, normalizer)
    still = Augmentation(horizontal_flip=0, vertical_flip=0, rot90=0)
    options = {"batch_size": 6, "augmentation": still, "seed": 0, "epochs": 1, "finish": normalizer.assemble}
    refs = [replace(ref, cell=(i, 0)) for i, ref in enumerate(tiles.refs)]
    batches = TrainingBatches(
        carried,
        tiles.masks,
        bands=normalizer.directions.carried,
        units=normalizer.units,
        grid=TileGrid.of(refs, SIZE, SIZE, 16),
        sizes=(16,),
        **options,
    )
    (image, _, weight), *_ = batches.dataset().as_numpy_iterator()
    column = expected.reshape(-1, SIZE, 3)
    shade = {pixel[:2].tobytes(): pixel[2] for pixel in column.reshape(-1, 3)}
    assert all(abs(shade[pixel[:2].tobytes()] - pixel[2]) < 1e-4 for pixel in image[weight[..., 0] > 0])
    held_out = evaluation_batches(carried, tiles.masks, batch_size=4, finish=normalizer.assemble)
    found = np.concatenate([image for image, _, _ in held_out.as_numpy_iterator()])[: len(images)]
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_bands_without_a_direction_are_left_alone(images):
    plain = Directions((*BANDS, "ndvi", "tpi_small", "canny"))
    assert plain.carried == (*BANDS, "ndvi", "tpi_small", "canny") and not (plain.vectors or plain.late or plain.fixed)
    normalizer = Normalizer.fit(images, Data())
    values = normalizer.apply(images)
    assert normalizer.assemble(values) is values


def test_a_vector_is_normalised_alike_in_both_components(images):
    tiles = derive(mars(images), ("red", "normal_rows", "hillshade"))
    normalizer = Normalizer.fit(tiles.images, Data(bands=("red", "normal_rows", "hillshade")), tiles.bands)
    assert normalizer.directions.carried == ("red", "normal_rows", "normal_columns", "normal_up")
    mean, std = (
        dict(zip((*normalizer.directions.carried, "hillshade"), values, strict=True))
        for values in (normalizer.mean, normalizer.std)
    )
    rows, columns, up = (
        tiles.images[..., tiles.bands.index(f"normal_{name}")].astype(np.float64) for name in ("rows", "columns", "up")
    )
    assert mean["normal_rows"] == mean["normal_columns"] == 0
    assert (
        std["normal_rows"]
        == std["normal_columns"]
        == pytest.approx(np.sqrt((rows**2 + columns**2).mean() / 2), rel=1e-6)
    )
    assert (mean["normal_up"], std["normal_up"]) == pytest.approx((up.mean(), up.std()), rel=1e-5)
    shade = np.maximum(-0.5 * rows - 0.5 * columns + np.sqrt(0.5) * up, 0)
    assert (mean["hillshade"], std["hillshade"]) == pytest.approx((shade.mean(), shade.std()), rel=1e-4)
    found = normalizer.assemble(normalizer.apply(tiles.images, tiles.bands))
    np.testing.assert_allclose(found[..., 2], (shade - shade.mean()) / shade.std(), atol=1e-4)
    np.testing.assert_allclose(normalizer.restore(found)[..., 2], shade, atol=1e-5)
    assert Normalizer.from_json(json.loads(json.dumps(normalizer.to_json()))) == normalizer


def test_slopes_that_face_the_light_are_brightest():
    y, x = np.meshgrid(np.arange(SIZE), np.arange(SIZE), indexing="ij")
    images = np.zeros((2, SIZE, SIZE, 7), np.float32)
    # Rising, falling to the south-east; about 18°.
    images[0, ..., 3], images[1, ..., 3] = (y + x) * 0.0128, -(y + x) * 0.0128
    config = Data(bands=("hillshade",), normalization={"zscore": False})
    tiles = derive(mars(images), config.bands)
    normalizer = Normalizer.fit(tiles.images, config, tiles.bands)
    shade = normalizer.assemble(normalizer.apply(tiles.images, tiles.bands))[..., 0]
    steepness = np.arctan(0.0128 * 12822 / 232 * np.sqrt(2))
    np.testing.assert_allclose(shade[0, 1:-1, 1:-1], np.cos(steepness - np.pi / 4), atol=1e-5)
    np.testing.assert_allclose(shade[1, 1:-1, 1:-1], max(0, np.cos(steepness + np.pi / 4)), atol=1e-5)


@pytest.mark.parametrize("degrees", [30, 90, -75, 180])
@pytest.mark.parametrize("scale", [1.0, 1.3])
def test_any_rotation_turns_the_vectors_of_a_cone(degrees, scale):
    middle = (SIZE - 1) / 2
    y, x = np.meshgrid(np.arange(SIZE) - middle, np.arange(SIZE) - middle, indexing="ij")
    radius = np.maximum(np.hypot(y, x), 1e-9)
    bands = ("dem", "aspect_cos", "aspect_sin", "normal_columns", "normal_rows")
    # A cone faces away from its top wherever it is turned to; a vector that is not turned with it would not.
    image = np.stack([-radius, -y / radius, x / radius, 0.3 * x / radius, 0.3 * y / radius], -1).astype(np.float32)
    matrix = affine_matrix(*(tf.constant([float(v)]) for v in (scale, np.radians(degrees), 0, 0)), SIZE, SIZE)[0]
    zeros = tf.zeros((SIZE, SIZE, 1))
    moved = resample(tf.constant(image), zeros, zeros, matrix)
    warp = Geometric(Augmentation(affine={"probability": 1}), bands)
    turned = warp._turned(warp._resample(tf.constant(image), zeros, zeros, matrix), matrix)[0].numpy()
    ring = (radius > 5) & (radius < 11)
    np.testing.assert_allclose(turned[ring][:, 1:], image[ring][:, 1:], atol=0.02)
    assert np.abs(moved[0].numpy()[ring][:, 1:] - image[ring][:, 1:]).max() > 0.1


def test_what_lies_mirrored_beyond_a_border_faces_the_other_way(images):
    bands = ("dem", "aspect_cos", "aspect_sin", "normal_rows", "normal_columns", "normal_up")
    tiles = derive(mars(images), bands)
    image = np.stack([tiles.images[0, ..., tiles.bands.index(band)] for band in bands], -1)
    shift, zeros = (tf.constant([float(v)]) for v in (6 / SIZE, 0)), tf.zeros((SIZE, SIZE, 1))
    down, still = shift
    matrix = affine_matrix(tf.constant([1.0]), still, down, -down, SIZE, SIZE)[
        0
    ]  # a strip above and one at the right are mirrored
    moved = resample(tf.constant(image), zeros, zeros, matrix, directions=Directions(bands))[0].numpy()
    expected = terrain_bands(moved[..., 0].astype(np.float64) * 12822, 232.0, bands[1:])
    away = np.ones((SIZE, SIZE), bool)
    away[:, [0, SIZE - 8, SIZE - 7, SIZE - 6, SIZE - 5, -1]] = away[[0, 4, 5, 6, 7, -1]] = (
        False  # seams, and where the array ends
    )
    for i, band in enumerate(bands[1:], 1):
        np.testing.assert_allclose(moved[..., i][away], expected[band][away], atol=2e-3, err_msg=band)


def test_a_pipeline_that_warps_keeps_vectors_of_unit_length(images):
    names = ("dem", "aspect_sin", "aspect_cos")
    tiles = derive(mars(images), names)
    config = Data(bands=names, normalization={"zscore": False})
    normalizer = Normalizer.fit(tiles.images, config, tiles.bands)
    augmentation = Augmentation(affine={"probability": 1, "rotation": 180, "scale": (1, 1), "shift": 0})
    batches = TrainingBatches(
        normalizer.apply(tiles.images, tiles.bands),
        tiles.masks,
        batch_size=6,
        augmentation=augmentation,
        bands=normalizer.directions.carried,
        units=normalizer.units,
        seed=0,
        epochs=2,
        finish=normalizer.assemble,
    )
    for image, _, _ in batches.dataset().as_numpy_iterator():
        east, north, dem = image[..., 1], image[..., 2], image[..., 0]
        assert np.hypot(east, north).max() < 1 + 1e-4
        # Downhill is where the heights fall.
        fall = -np.gradient(dem, axis=2) * east + np.gradient(dem, axis=1) * north
        assert (fall[:, 8:-8, 8:-8] > -1e-3).mean() > 0.97


def test_derived_bands_go_missing_with_their_sources():
    bands = ("red", "gray", "canny", "dem", "aspect_sin", "aspect_cos", "thermal")
    dropout = ChannelDropout(1.0, bands)
    _, lost = dropout.draw(tf.constant(200), 4, 4, tf.constant([0, 1]))
    groups = {tuple(band for band, gone in zip(bands, row, strict=True) if gone) for row in lost.numpy()}
    assert groups == {("red", "canny"), ("dem", "aspect_sin", "aspect_cos"), ("thermal",), ("gray",)}
    assert not ChannelDropout(1.0, ("dem", "tpi_small", "hillshade")).active


def test_late_bands_hang_on_bands_that_are_derived():
    for name, terms in LATE.items():
        assert set(Directions((name,)).carried) == set(terms)
