"""Synthetic tiles of Mars: their images and masks, and their files."""

from __future__ import annotations

import errno
import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from scipy import ndimage

from marsls_keras.bands.names import BANDS
from marsls_keras.data.synthetic import mars as synth
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError, RunError

SIZE = 32
RED, GREEN, BLUE, DEM, SLOPE, THERMAL, GRAY = range(7)
COUNTS = {"train": 20, "val": 5, "test": 10}
MARS = ("mmls_v1", "mmls_v2", "challenge")


def hashes(root: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder."""
    return {
        str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(root.rglob("*"))
        if p.is_file()
    }


def cells(folder: Path) -> dict[tuple[int, int], np.ndarray]:
    """Return the tiles of an mmls_v2 folder by (row, col)."""
    found = {p: re.fullmatch(r"col(\d{5})_row(\d{5})\.tif", p.name) for p in folder.iterdir()}
    return {(int(m[2]), int(m[1])): tifffile.imread(p) for p, m in found.items() if m}


@pytest.fixture(scope="module")
def mosaic() -> tuple[np.ndarray, np.ndarray]:
    """Return one mosaic of 5 × 5 tiles of 64 pixels."""
    return synth.make_mosaic(5, 5, size=64, seed=3)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a small dataset of every release, all with the same seed."""
    root = tmp_path_factory.mktemp("synth")
    for release in MARS:
        assert synth.write_dataset(root / release, release, **COUNTS, size=SIZE, seed=4) == COUNTS
    return {release: root / release for release in MARS}


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, dict]:
    """Return the images and masks of 200 tiles by cell."""
    root = tmp_path_factory.mktemp("many") / "set"
    synth.write_dataset(root, train=200, val=0, test=0, size=SIZE, seed=1)
    return cells(root / "train" / "images"), cells(root / "train" / "masks")


def auc(score: np.ndarray, mask: np.ndarray) -> float:
    """Return the AUC of a score for landslide against the rest, in either direction: 0.5 is chance."""
    ranks = score.ravel().argsort().argsort()
    inside = mask.ravel() > 0
    positives, negatives = int(inside.sum()), int((~inside).sum())
    area = (ranks[inside].sum() - positives * (positives - 1) / 2) / (positives * negatives)
    return max(area, 1 - area)


def texture(band: np.ndarray) -> np.ndarray:
    """Return the local roughness of a band: pixel-to-pixel variation, averaged over a few pixels."""
    return ndimage.gaussian_filter(np.abs(ndimage.laplace(band)), 3)


# --- The mosaic -------------------------------------------------------------------------------------------------------


def test_mosaic_has_the_promised_form(mosaic):
    image, mask = mosaic
    assert image.shape == (320, 320, 7) and image.dtype == np.float32
    assert mask.shape == (320, 320) and mask.dtype == np.uint8
    assert image.min() >= 0 and image.max() <= 1 and np.isfinite(image).all()
    assert set(np.unique(mask)) == {0, 1}
    assert (image.std(axis=(0, 1)) > 0.03).all(), "a band is nearly constant"


def test_slope_is_that_of_the_dem(mosaic):
    image, _ = mosaic
    height = image[..., DEM].astype(np.float64) * 12822 - 5834
    down, right = np.gradient(height, 29_696 / 64)
    degrees = np.degrees(np.arctan(np.hypot(down, right)))
    np.testing.assert_allclose(image[..., SLOPE], np.clip(degrees / 62.8026087, 0, 1), atol=2e-4)
    assert (synth.DEM_METRES, synth.DEM_LOWEST, synth.SLOPE_DEGREES, synth.TILE_METRES) == (
        12822,
        -5834,
        62.8026087,
        29_696,
    )
    assert 5 < degrees.mean() < 20 and np.quantile(degrees, 0.98) > 30, "no canyon has such walls"


def test_colours_go_together_and_are_smooth(mosaic):
    image, _ = mosaic
    correlation = np.corrcoef(image[..., [RED, GREEN, BLUE]].reshape(-1, 3).T)
    assert correlation.min() > 0.8
    assert correlation[RED, BLUE] < 0.999, "the colours are copies of each other"

    def roughness(band: int) -> float:
        return float(np.abs(np.diff(image[..., band], 2, axis=1)).mean() / image[..., band].std())

    assert roughness(RED) < 0.5 * roughness(GRAY)
    assert roughness(THERMAL) < 0.5 * roughness(GRAY)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_landslides_show_in_texture_more_than_in_colour_and_in_no_band_alone(seed):
    image, mask = synth.make_mosaic(5, 5, size=64, seed=seed)
    for band in (SLOPE, GRAY):
        values = texture(image[..., band])
        assert auc(values, mask) > 0.62, f"landslides are no rougher than the rest in {BANDS[band]}"
        assert auc(values, mask) > auc(image[..., RED], mask) + 0.05
    for band, name in enumerate(BANDS):
        assert auc(image[..., band], mask) < 0.9, f"a threshold on {name} is enough"


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_deposits_are_rougher_than_the_floor_they_lie_on(seed):
    image, mask = synth.make_mosaic(5, 5, size=64, seed=seed)
    floor = (image[..., DEM] < 0.5) & (ndimage.gaussian_filter(image[..., SLOPE], 2) < 0.2)
    for band in (SLOPE, GRAY):
        assert auc(texture(image[..., band])[floor], mask[floor]) > 0.8


def test_foreground_ratios_spread_as_in_the_real_tiles(many):
    _, masks = many
    ratios = np.array([mask.mean() for mask in masks.values()])
    assert ratios.size == 200
    assert ratios.min() > 0, "a tile without landslide was published"
    assert ratios.min() < 0.02 and ratios.max() > 0.9
    assert 0.2 < ratios.mean() < 0.5


def test_neighbouring_tiles_continue_each_other_and_some_are_missing(many):
    images, masks = many
    across, inside, pairs = [], [], 0
    for (row, col), image in images.items():
        right, below = images.get((row, col + 1)), images.get((row + 1, col))
        inside += [np.abs(np.diff(image, axis=1)).mean(), np.abs(np.diff(image, axis=0)).mean()]
        across += [np.abs(right[:, 0] - image[:, -1]).mean()] if right is not None else []
        across += [np.abs(below[0] - image[-1]).mean()] if below is not None else []
        pairs += (right is not None) + (below is not None)
        if right is not None:
            assert (masks[row, col + 1][:, 0] != masks[row, col][:, -1]).mean() < 0.5
    tiles = list(images.values())
    strangers = np.mean([np.abs(a[:, -1] - b[:, 0]).mean() for a, b in zip(tiles[:100], tiles[100:], strict=True)])
    assert np.mean(across) == pytest.approx(np.mean(inside), rel=0.1)
    assert strangers > 2.5 * np.mean(across)
    assert 2.2 < 2 * pairs / len(images) < 3.7, "neighbours per tile; 3.2 in the real data"


def test_mosaic_follows_its_seed():
    first, again, other = (synth.make_mosaic(1, 2, size=SIZE, seed=seed) for seed in (7, 7, 8))
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert np.abs(first[0] - other[0]).mean() > 0.01


# --- The files --------------------------------------------------------------------------------------------------------


def test_equal_arguments_give_identical_files(roots, tmp_path):
    for release, root in roots.items():
        synth.write_dataset(tmp_path / release, release, **COUNTS, size=SIZE, seed=4)
        assert hashes(tmp_path / release) == hashes(root)
    synth.write_dataset(tmp_path / "other", **COUNTS, size=SIZE, seed=5)
    assert not set(hashes(tmp_path / "other").values()) & set(hashes(roots["mmls_v2"]).values())


def test_mmls_v1_files_are_as_the_authors_publish_them(roots):
    for folder, letter, number in (
        ("train_partition", "", 20),
        ("validation_partition", "", 5),
        ("test_partition", "T", 10),
    ):
        images = sorted((roots["mmls_v1"] / folder / "images").iterdir())
        masks = sorted((roots["mmls_v1"] / folder / "masks").iterdir())
        assert len(images) == number
        assert all(re.fullmatch(rf"Image{letter}_patch_\d+_\d+\.tif", path.name) for path in images)
        assert [path.name.replace("Image", "Mask") for path in images] == [path.name for path in masks]
        for image_path, mask_path in zip(images, masks, strict=True):
            with tifffile.TiffFile(image_path) as file:
                assert (file.series[0].axes, file.series[0].shape, len(file.pages)) == ("QYX", (SIZE, SIZE, 7), SIZE)
                image = file.asarray()
            mask = tifffile.imread(mask_path)
            assert image.dtype == np.float32 and mask.dtype == np.float32 and mask.shape == (SIZE, SIZE)
            assert set(np.unique(mask)) <= {0.0, 1.0} and mask.any()
            assert image[..., [0, 1, 2, 3, 5, 6]].max() <= 1


def test_mmls_v1_has_thermal_with_gaps_before_slope(roots):
    files = sorted(
        (roots["mmls_v1"] / "train_partition" / "images").iterdir(),
        key=lambda path: [*map(int, re.findall(r"\d+", path.name))],
    )
    images = np.stack([tifffile.imread(path) for path in files])
    thermal, slope = images[..., 4], images[..., 5]
    gaps = (thermal == 0).mean((1, 2))
    assert np.flatnonzero(gaps).tolist() == [1, 9, 17] and 0.05 < gaps[1] < 0.2
    known = thermal[thermal != 0]
    assert 0.85 <= known.min() and known.max() < 0.95 and known.std() == pytest.approx(0.010, abs=0.005)
    public = cells(roots["mmls_v2"] / "train" / "images")
    for path, image in zip(files, images, strict=True):
        row, col = map(int, re.findall(r"\d+", path.name))
        degrees = public[row, col][..., SLOPE] * 62.8026087
        border = degrees == 0  # no data in mmls_v2
        np.testing.assert_allclose(image[..., 5][~border] * 63.7, degrees[~border], atol=1e-3)
    assert slope.mean() < 0.5


@pytest.mark.parametrize("size", [32, 64, 128])
def test_mmls_v1_layout_holds_at_every_size(size, tmp_path):
    synth.write_dataset(tmp_path / "set", "mmls_v1", train=1, val=0, test=0, size=size)
    with tifffile.TiffFile(next((tmp_path / "set" / "train_partition" / "images").iterdir())) as file:
        assert (file.series[0].axes, file.series[0].shape) == ("QYX", (size, size, 7))


@pytest.mark.parametrize("release", ["mmls_v2", "challenge"])
def test_geotiff_files_are_as_the_releases_have_them(roots, release):
    for split, number in COUNTS.items():
        images = sorted((roots[release] / split / "images").iterdir())
        masks = sorted((roots[release] / split / "masks").iterdir())
        assert len(images) == number and [path.name for path in images] == [path.name for path in masks]
        for path in images + masks:
            name = re.fullmatch(r"col(\d{5})_row(\d{5})\.tif", path.name)
            assert name
            with tifffile.TiffFile(path) as file:
                tags = file.pages[0].tags
                kind = ("YX", np.uint8) if path in masks else ("YXS", np.float32)
                assert (file.series[0].axes, file.series[0].dtype) == kind and len(file.pages) == 1
                assert (
                    tags["Compression"].value == tifffile.COMPRESSION.LZW
                    and tags.valueof("PlanarConfiguration", 1) == 1
                )
                pixel = 29_696 / SIZE
                assert tags["ModelPixelScaleTag"].value == (pixel, pixel, 0)
                corner = (-4_500_000 + int(name[1]) * 29_696, -200_000 - int(name[2]) * 29_696)
                assert tags["ModelTiepointTag"].value == (0, 0, 0, *corner, 0)
                assert file.pages[0].geotiff_tags["GTCitationGeoKey"] == "Mars_Equidistant_Cylindrical"
                assert file.pages[0].geotiff_tags["GeogSemiMajorAxisGeoKey"] == 3396190.0
                assert (42113 in tags) == (release == "challenge" and path in images)
                if 42113 in tags:
                    assert b"-3.4028234663852886e+38" in path.read_bytes()
                if path in masks:
                    assert set(np.unique(file.asarray())) <= {0, 1} and file.asarray().any()


def test_challenge_brought_back_is_mmls_v2(roots):
    touched = 0
    for split in COUNTS:
        raw, public = (cells(roots[release] / split / "images") for release in ("challenge", "mmls_v2"))
        assert raw.keys() == public.keys()
        for cell, image in raw.items():
            missing = image < -1e30
            assert not np.delete(missing, RELEASES["challenge"].order.index("slope"), axis=-1).any()
            missing = missing.any(axis=-1)
            back = RELEASES["challenge"].to_canonical(image)
            np.testing.assert_allclose(back[~missing], public[cell][~missing], atol=1e-4)
            assert (public[cell][missing][:, SLOPE] == 0).all()
            touched += missing.any()
            if missing.any():
                edges = missing.all(axis=0).sum(), missing.all(axis=1).sum()
                assert sorted(edges)[0] == 0 and 1 <= sorted(edges)[1] <= 3 and missing.sum() == sorted(edges)[1] * SIZE
                assert image.dtype == np.float32 and image[missing].min() == np.finfo(np.float32).min
    assert 2 <= touched <= 8


def test_val_is_the_end_of_the_training_raster_and_test_is_another_place(roots):
    train, val, test = (sorted(cells(roots["mmls_v2"] / split / "masks")) for split in COUNTS)
    assert max(train) < min(val)
    assert not set(train + val) & set(test)


def test_more_tiles_than_one_panel_holds(tmp_path, monkeypatch):
    monkeypatch.setattr(synth, "_PANEL", 3 * SIZE)
    assert synth.write_dataset(tmp_path / "set", train=30, val=4, test=0, size=SIZE)["train"] == 30
    masks = cells(tmp_path / "set" / "train" / "masks") | cells(tmp_path / "set" / "val" / "masks")
    rows = {row for row, _ in masks}
    assert len(masks) == 34 and max(rows) - min(rows) >= 15
    assert not {row for row in rows if (row - 7) % 4 == 3}, "panels touch, so that strangers look like neighbours"


# --- Errors -----------------------------------------------------------------------------------------------------------


def test_existing_folder_is_refused_and_untouched(tmp_path):
    out = tmp_path / "data"
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    before = hashes(tmp_path)
    with pytest.raises(InputError, match=rf"{re.escape(str(out))} .*choose another folder or remove it"):
        synth.write_dataset(out, train=1, val=0, test=0, size=SIZE)
    with pytest.raises(InputError, match="not an empty folder"):
        synth.write_dataset(out / "thesis.txt", train=1, val=0, test=0, size=SIZE)
    assert hashes(tmp_path) == before


def test_empty_folder_is_filled_even_when_standing_in_it(tmp_path, monkeypatch):
    out = tmp_path / "data"
    out.mkdir()
    inode = out.stat().st_ino
    monkeypatch.chdir(out)
    synth.write_dataset(".", train=2, val=0, test=1, size=SIZE)
    assert sorted(path.name for path in out.iterdir()) == ["test", "train"] and out.stat().st_ino == inode
    synth.write_dataset(tmp_path / "deep" / "down", train=2, val=0, test=1, size=SIZE)
    assert hashes(tmp_path / "deep" / "down") == hashes(out)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"release": "mmls_v3"}, r"mmls_v3.*mmls_v1, mmls_v2, challenge"),
        ({"train": 0}, r"train must be at least 1\. Received: 0"),
        ({"val": -1}, r"val must be at least 0"),
        ({"test": -1}, r"test must be at least 0"),
        ({"size": 16}, r"size must be at least 32"),
        ({"seed": -1}, r"seed must be at least 0"),
    ],
)
def test_wrong_input_is_named_and_leaves_nothing(wrong, message, tmp_path):
    with pytest.raises(InputError, match=message):
        synth.write_dataset(tmp_path / "set", **({"train": 1, "val": 0, "test": 0, "size": SIZE} | wrong))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("exists", [False, True])
@pytest.mark.parametrize("cause", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_nothing_half_written_remains(cause, exists, tmp_path, monkeypatch):
    written, imwrite = [], tifffile.imwrite

    def fails_at_the_ninth(path, *args, **kwargs):
        written.append(path)
        imwrite(path, *args, **kwargs)
        if len(written) == 9:
            raise cause

    monkeypatch.setattr(tifffile, "imwrite", fails_at_the_ninth)
    out = tmp_path / "set"
    if exists:
        out.mkdir()
    expected, message = (
        (RunError, "No space left on device") if isinstance(cause, OSError) else (KeyboardInterrupt, None)
    )
    with pytest.raises(expected, match=message):
        synth.write_dataset(out, train=8, val=0, test=0, size=SIZE)
    assert len(written) == 9
    assert list(tmp_path.iterdir()) == ([out] if exists else []) and not list(tmp_path.rglob("*.tif"))
    assert not exists or not list(out.iterdir())


def test_a_place_that_cannot_be_written_is_a_clear_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="Could not write"):
        synth.write_dataset(tmp_path / "file" / "set", train=1, val=0, test=0, size=SIZE)
