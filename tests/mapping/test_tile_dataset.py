"""Datasets cut from a raster: pixels, places, names and splits; and that they are read as MMLSv2 is."""

import json

import numpy as np
import pytest
import rasterio
from helpers.cli import marsls, snapshot, strict_json, succeed
from helpers.georeferenced import MARS, write
from rasterio.crs import CRS
from rasterio.transform import Affine

from marsls_keras.bands.names import BANDS
from marsls_keras.data.formats.tile import read_mask, read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.synthetic.mars import make_mosaic
from marsls_keras.datasets import RELEASES
from marsls_keras.errors import InputError
from marsls_keras.mapping import tile_dataset as tile_dataset_module
from marsls_keras.mapping.grid import NO_DATA
from marsls_keras.mapping.stack import ORDER
from marsls_keras.mapping.tile_dataset import TileCutting, tile_dataset

PLACE = Affine(232, 0, -4_500_000, 0, -232, -200_000)
HEIGHT, WIDTH, SIZE = 52, 86, 16
"""Three tiles and a quarter down, five and three eighths across."""

ROWS, COLUMNS = [0, 16, 32, 36], [0, 16, 32, 48, 64, 70]
"""First pixels of the tiles."""


HALVES = {"train": 0.5, "val": 0.5}


@pytest.fixture(autouse=True)
def no_picture(request, monkeypatch):
    """Leave out the histogram, which takes longer than all else, where it is not looked at."""
    if "record" not in request.node.name:
        monkeypatch.setattr(tile_dataset_module, "plot_histogram", lambda ratios, path: None)


@pytest.fixture(scope="module")
def ground():
    """Raw bands (7, H, W) in the challenge's order, and a mask (H, W)."""
    image, mask = make_mosaic(2, 3, 32, seed=2)
    raw = np.moveaxis(RELEASES["challenge"].from_canonical(image), -1, 0)
    return raw[:, :HEIGHT, :WIDTH], mask[:HEIGHT, :WIDTH]


def composite(path, bands, order=ORDER, transform=PLACE, crs=MARS, **options):
    write(path, bands, transform, crs, **{"nodata": NO_DATA, **options})
    with rasterio.open(path, "r+") as file:
        file.descriptions = order
    return path


@pytest.fixture
def files(tmp_path, ground):
    raw, mask = ground
    return composite(tmp_path / "composite.tif", raw), write(tmp_path / "mask.tif", mask[None], PLACE)


def cut(files, out, **options):
    return tile_dataset(*files, out, TileCutting(**{"size": SIZE, "keep_empty": True, **options}))


def tiles(root, kind="images"):
    """Return every tile by split and name: its array, and (row, column) of its corner by its own georeferencing."""
    found = {}
    for path in sorted(root.glob(f"*/{kind}/*.tif")):
        with rasterio.open(path) as file:
            assert file.crs == CRS.from_string(MARS) and (file.transform.a, file.transform.e) == (232, -232)
            corner = round((file.transform.f - PLACE.f) / -232), round((file.transform.c - PLACE.c) / 232)
            found[path.parts[-3], path.stem] = file.read(), corner
    return found


def test_tiles_cover_the_raster_and_have_its_pixels_and_places(files, ground, tmp_path):
    raw, mask = ground
    result = cut(files, tmp_path / "data")
    assert result["release"] == "challenge" and result["labels"] == "The mask has the grid of the composite."
    images, masks = tiles(tmp_path / "data"), tiles(tmp_path / "data", "masks")
    assert images.keys() == masks.keys() and len(images) == 4 * 6
    assert {corner for _, corner in images.values()} == {(row, column) for row in ROWS for column in COLUMNS}
    joined = np.zeros_like(raw)
    for key, (image, (row, column)) in images.items():
        assert np.array_equal(image, raw[:, row : row + 16, column : column + 16])
        assert np.array_equal(masks[key][0][0], mask[row : row + 16, column : column + 16]) and masks[key][1] == (
            row,
            column,
        )
        joined[:, row : row + 16, column : column + 16] = image
        # The last tiles overlap those before, so their cell is not the next one.
        cell = (4 if row == 36 else row // 16, 6 if column == 70 else column // 16)
        assert key[1] == f"col{cell[1]:05d}_row{cell[0]:05d}"
    assert np.array_equal(joined, raw)
    cut(files, tmp_path / "again")
    assert snapshot(tmp_path / "again") == snapshot(tmp_path / "data")


def test_blocks_are_not_divided_nor_tiles_that_overlap(files, tmp_path):
    cut(files, tmp_path / "data")
    splits = {corner: split for (split, _), (_, corner) in tiles(tmp_path / "data").items()}
    assert set(splits.values()) == {"train", "val", "test"}
    for (row, column), split in splits.items():
        for other, its in splits.items():
            if abs(row - other[0]) < 16 and abs(column - other[1]) < 16:
                assert split == its
            if (row // 32, column // 32) == (other[0] // 32, other[1] // 32):
                assert split == its


def test_the_table_and_the_record_are_those_of_the_tiles(files, tmp_path):
    result = cut(files, tmp_path / "data", shares=HALVES)
    masks = tiles(tmp_path / "data", "masks")
    record = json.loads((tmp_path / "data" / "partition.json").read_text())
    for split, row in result["splits"].items():
        ratios = [100 * array.mean() for (own, _), (array, _) in masks.items() if own == split]
        assert row["images"] == len(ratios) and row["avg"] == pytest.approx(np.mean(ratios), abs=1e-3)
        assert row["max"] == pytest.approx(max(ratios), abs=1e-3) and row["std"] == pytest.approx(
            np.std(ratios), abs=1e-3
        )
        for name, tile in record["tiles"][split].items():
            array, corner = masks[split, name]
            assert corner == (tile["row"], tile["column"]) and tile["landslide"] == array.mean()
    assert record["shares"] == HALVES and record["size"] == 16
    assert (tmp_path / "data" / "foreground.png").stat().st_size > 5000


def test_the_isolated_region_lies_east_of_the_boundary_and_has_a_grid_of_its_own(files, ground, tmp_path):
    boundary = PLACE.c + 232 * 40.3
    result = cut(files, tmp_path / "data", isolated_east_of=boundary, shares=HALVES)
    images = tiles(tmp_path / "data")
    east = [corner[1] for (split, _), (_, corner) in images.items() if split == "isolated"]
    west = [corner[1] for (split, _), (_, corner) in images.items() if split != "isolated"]
    assert set(east) == {40, 56, 70} and set(west) == {0, 16, 24}
    assert result["splits"]["isolated"]["images"] == len(east) == 4 * 3
    names = [name for _, name in images]
    assert len(set(names)) == len(names)
    cells = {int(name[3:8]) for split, name in images if split == "isolated"}
    assert min(cells) > 1 + max(int(name[3:8]) for split, name in images if split != "isolated")
    assert {ref.image.parts[-3] for ref in Dataset.open(tmp_path / "data").tiles} == {"train", "val"}


def test_south_up_and_mirrored_rasters_keep_their_orientation_and_their_east(files, ground, tmp_path):
    raw, mask = ground
    mirrored = Affine(-232, 0, PLACE.c + 232 * WIDTH, 0, 232, PLACE.f - 232 * HEIGHT)
    turned = (
        composite(tmp_path / "turned.tif", raw[:, ::-1, ::-1], transform=mirrored),
        files[1],  # north-up, so it has to be turned
    )
    boundary = PLACE.c + 232 * 40
    cut(turned, tmp_path / "data", isolated_east_of=boundary, shares=HALVES)
    for path in (tmp_path / "data").glob("*/images/*.tif"):
        with rasterio.open(path) as image, rasterio.open(path.parents[1] / "masks" / path.name) as drawn:
            assert image.transform == drawn.transform and (image.transform.a, image.transform.e) == (-232, 232)
            left, right = sorted((image.bounds.left, image.bounds.right))
            top = max(image.bounds.top, image.bounds.bottom)
            assert left >= boundary - 1e-6 if "isolated" in str(path) else right <= boundary + 1e-6
            column, row = round((left - PLACE.c) / 232), round((PLACE.f - top) / 232)
            window = np.s_[row : row + 16, column : column + 16]
            assert np.array_equal(image.read()[:, ::-1, ::-1], raw[(slice(None), *window)])
            assert np.array_equal(drawn.read(1)[::-1, ::-1], mask[window])


def test_a_rotated_raster_is_cut_in_place(ground, tmp_path):
    raw, mask = ground
    rotated = Affine(200, 120, -4_500_000, 120, -200, -200_000)
    files = composite(tmp_path / "c.tif", raw, transform=rotated), write(tmp_path / "m.tif", mask[None], rotated)
    cut(files, tmp_path / "data")
    for path in (tmp_path / "data").glob("*/images/*.tif"):
        with rasterio.open(path) as image:
            column, row = (round(value) for value in (~rotated) * (image.transform.c, image.transform.f))
            assert np.array_equal(image.read(), raw[:, row : row + 16, column : column + 16])
    with pytest.raises(InputError, match="the composite is rotated, so no column is a boundary"):
        cut(files, tmp_path / "other", isolated_east_of=-4_490_000.0)


def test_no_data_stays_no_data_and_tiles_without_any_are_left_out(files, ground, tmp_path):
    raw, mask = (part.copy() for part in ground)
    raw[:, :16, :32] = NO_DATA
    raw[1, 20:24, 40:48] = NO_DATA
    files = composite(tmp_path / "composite.tif", raw), files[1]
    result = cut(files, tmp_path / "data")
    assert result["without_data"] == 2
    images = {corner: image for image, corner in tiles(tmp_path / "data").values()}
    assert (0, 0) not in images and (0, 16) not in images and (0, 32) in images
    assert np.array_equal(images[16, 32], raw[:, 16:32, 32:48]) and (images[16, 32][1] == NO_DATA).sum() == 32
    path = next((tmp_path / "data").glob("*/images/col00002_row00001.tif"))
    valid = read_tile(path).valid
    assert np.array_equal(valid, raw[1, 16:32, 32:48] != NO_DATA)


def test_tiles_without_landslide_are_left_out_unless_asked_for(files, tmp_path):
    mask = np.zeros((1, HEIGHT, WIDTH), np.uint8)
    mask[0, 5:30, 18:50] = 1
    files = files[0], write(tmp_path / "half.tif", mask, PLACE)
    result = cut(files, tmp_path / "data", keep_empty=False, shares=HALVES)
    assert result["empty"] == 24 - 2 * 3 and len(tiles(tmp_path / "data")) == 2 * 3


@pytest.mark.parametrize("form", ["challenge", "mmls_v2"])
def test_tiles_are_read_as_those_of_the_release(ground, tmp_path, form):
    """Whatever the order of the bands in the file, which their descriptions tell."""
    raw, mask = ground
    canonical = RELEASES["challenge"].to_canonical(np.moveaxis(raw, 0, -1))
    stored = np.moveaxis(RELEASES[form].from_canonical(canonical), -1, 0)
    shuffled = [4, 2, 6, 0, 5, 1, 3]
    order = [RELEASES[form].order[i] for i in shuffled]
    files = composite(tmp_path / "c.tif", stored[shuffled], order), write(tmp_path / "m.tif", mask[None], PLACE)
    assert cut(files, tmp_path / "data")["release"] == form
    dataset = Dataset.open(tmp_path / "data")
    assert len(dataset.tiles) == 24 and all(ref.labelled for ref in dataset.tiles)
    for ref in dataset.tiles[::5]:
        tile = read_tile(ref.image)
        with rasterio.open(ref.image) as file:
            column, row = round((file.transform.c - PLACE.c) / 232), round((PLACE.f - file.transform.f) / 232)
        window = np.s_[row : row + 16, column : column + 16]
        assert tile.release == form and tile.valid.all() and tile.image.shape == (16, 16, len(BANDS))
        assert np.allclose(tile.image, canonical[window], atol=1e-6)
        assert np.array_equal(read_mask(ref.mask), mask[window])


def test_wrong_input_leaves_nothing(files, ground, tmp_path):
    raw, mask = ground
    zero = write(tmp_path / "zero.tif", np.where(mask, 255, 0).astype(np.uint8)[None], PLACE)
    few = write(tmp_path / "few.tif", raw[:5], PLACE)
    named = composite(tmp_path / "named.tif", raw, ("red", "green", "blue", "elevation", "slope", "thermal", "gray"))
    bare = composite(tmp_path / "bare.tif", raw, crs=None)
    broken = composite(tmp_path / "broken.tif", raw)
    broken.write_bytes(broken.read_bytes()[:40_000])
    cases = [
        ((files[0], zero), {}, "zero.tif marks no landslide on the composite.*has the value 1"),
        ((few, files[1]), {}, "few.tif: 5 bands; .* has 7"),
        ((named, files[1]), {}, "named.tif: its bands are named .*elevation.*expected each of dem"),
        ((bare, files[1]), {}, "bare.tif has no coordinate system"),
        ((broken, files[1]), {}, "broken.tif cannot be read"),
        (files, {"size": 64}, "The base region has 86 x 52 pixels, less than a tile of 64 x 64"),
        (files, {"isolated_east_of": 0.0}, "--isolated-east-of 0 lies outside the composite: 86 x 52 pixels"),
        (files, {"isolated_east_of": PLACE.c + 232 * 76}, "The isolated region has 10 x 52 pixels"),
        (files, {"size": 48}, r"4 tiles in 1 block\(s\) cannot be divided"),
    ]
    for given, options, message in cases:
        with pytest.raises(InputError, match=message):
            cut(given, tmp_path / "data", **options)
        assert not (tmp_path / "data").exists()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "mine.txt").write_text("kept")
    with pytest.raises(InputError, match="is not an empty folder"):
        cut(files, tmp_path / "data")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["mine.txt"]


def test_the_command_and_check(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shown = succeed("tile", "composite.tif", "--labels", "mask.tif", "-o", "data", "--size", 16, "--seed", 4).out
    assert "Avg_FG (%)" in shown and "The mask has the grid of the composite." in shown
    assert "Next: marsls check data" in shown
    found = strict_json(succeed("check", "data", "--json").out)
    assert found["release"] == "challenge" and found["size"] == [16, 16]
    assert all(problem["severity"] == "warning" for problem in found["problems"])
    record = json.loads((tmp_path / "data" / "partition.json").read_text())
    assert {split: found["splits"][split]["tiles"] for split in ("train", "val", "test")} == {
        split: len(record["tiles"][split]) for split in ("train", "val", "test")
    }
    result = marsls("tile", "composite.tif", "--labels", "mask.tif", "-o", "more", "--shares", "70,20")
    assert result.code == 2 and "--shares 70,20: expected percent of train, val and test" in result.err


def test_real_tiles_joined_to_a_raster_are_cut_again_with_identical_pixels(real_data, tmp_path):
    """Twelve tiles of the western area of MMLS v1, which lie on one grid."""
    known = {ref.cell: ref for ref in Dataset.open(real_data / "mmls_v1").tiles}
    origin = next(
        cell for cell in sorted(known) if all((cell[0] + i, cell[1] + k) in known for i in range(3) for k in range(3))
    )
    raster, mask = np.zeros((7, 384, 384), np.float32), np.zeros((1, 384, 384), np.uint8)
    for i in range(3):
        for k in range(3):
            ref = known[origin[0] + i, origin[1] + k]
            place = (slice(None), slice(128 * i, 128 * i + 128), slice(128 * k, 128 * k + 128))
            raster[place] = np.moveaxis(read_tile(ref.image).image, -1, 0)
            mask[place] = read_mask(ref.mask)
    files = composite(tmp_path / "c.tif", raster, BANDS), write(tmp_path / "m.tif", mask, PLACE)
    assert tile_dataset(*files, tmp_path / "data", TileCutting())["release"] == "mmls_v2"
    found = Dataset.open(tmp_path / "data").tiles
    assert len(found) == 9
    for ref in found:
        stored = known[origin[0] + ref.cell[0], origin[1] + ref.cell[1]]
        tile, expected = read_tile(ref.image), read_tile(stored.image)
        assert np.array_equal(tile.image, expected.image) and tile.valid.all()
        assert np.array_equal(read_mask(ref.mask), read_mask(stored.mask))
