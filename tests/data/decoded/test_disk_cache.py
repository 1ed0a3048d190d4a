"""Disk cache: same content and batches as in memory, reused, rebuilt when files change, complete or absent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.tiffs import write_gdal

from marsls_keras.config import Augmentation, Data, Normalization
from marsls_keras.data.decoded import disk_cache as store
from marsls_keras.data.decoded import load as loading
from marsls_keras.data.decoded.disk_cache import DiskImages, chunks, take_pixels
from marsls_keras.data.decoded.load import examine, load
from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.fingerprint import band_statistics, fingerprint
from marsls_keras.data.grid.tile_grid import TileGrid
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.normalization import Inputs, Normalizer, moments
from marsls_keras.data.pipeline.batches import TrainingBatches, evaluation_batches
from marsls_keras.errors import RunError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the cache folder for a test."""
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def root(data_root: Callable[..., Path]) -> Path:
    return data_root(train=10, val=3, test=2)


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the chunk size to two tiles of 32 x 32 x 7."""
    monkeypatch.setattr(store, "_CHUNK", 2 * 32 * 32 * 7 * 4)


def both(root: Path) -> tuple[Tiles, Tiles]:
    """Return the tiles of a folder in memory and on disk."""
    dataset = Dataset.open(root)
    return load(dataset, cache="memory"), load(dataset, cache="disk")


def entries(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}


# Content


def test_disk_has_what_memory_has(root: Path, cache: Path) -> None:
    held, stored = both(root)
    assert isinstance(held.images, np.ndarray) and isinstance(stored.images, DiskImages)
    assert stored.images.shape == held.images.shape and stored.images.dtype == np.float32 and len(stored.images) == 15
    np.testing.assert_array_equal(stored.images[:], held.images)
    for name in ("refs", "hashes", "geo", "release", "bands"):
        assert getattr(stored, name) == getattr(held, name)
    for name in ("masks", "valid"):
        np.testing.assert_array_equal(getattr(stored, name), getattr(held, name))
    assert len(entries(cache)) == 1
    chosen = np.array([7, 2, 2, 14])
    some = stored.subset(chosen).subset([3, 0])
    assert isinstance(some.images, DiskImages)
    np.testing.assert_array_equal(some.images[:], held.images[[14, 7]])
    np.testing.assert_array_equal(some.images[1], held.images[7])
    np.testing.assert_array_equal(some.images[np.array([1, 1])], held.images[[7, 7]])
    np.testing.assert_array_equal(
        take_pixels(some.images, np.array([5, 1030])), held.images[[14, 7]].reshape(-1, 7)[[5, 1030]]
    )
    with pytest.raises(TypeError, match="2 tiles on disk are not to be read at once"):
        np.asarray(some.images)


def test_auto_keeps_small_sets_in_memory(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(root)
    assert isinstance(load(dataset, cache="auto").images, np.ndarray) and not cache.exists()
    monkeypatch.setattr(loading, "LARGE", 15 * 32 * 32 * 7 * 4)
    assert isinstance(load(dataset, cache="auto").images, np.ndarray)
    monkeypatch.setattr(loading, "LARGE", 15 * 32 * 32 * 7 * 4 - 1)
    assert isinstance(load(dataset, cache="auto").images, DiskImages)


def test_problems_are_the_same(root: Path) -> None:
    images = sorted((root / "train" / "images").iterdir())
    images[0].write_bytes(b"no TIFF")
    shutil.copy(images[1], images[2])
    refs = Dataset.open(root).tiles
    found = [examine(refs, cache=cache) for cache in ("memory", "disk", "disk")]
    assert len(found[0][1]) == 2
    for tiles, problems in found[1:]:
        assert problems == found[0][1] and tiles.refs == found[0][0].refs
    for image in images:
        image.write_bytes(b"no TIFF")
    tiles, problems = examine(refs[:10], cache="disk")
    assert tiles is None and len(problems) == 10


# Numbers


def test_statistics_in_parts(root: Path, small_chunks: None) -> None:
    held, stored = both(root)
    assert [part.stop - part.start for part in chunks(stored.images)] == [2] * 7 + [1]
    assert [part.stop - part.start for part in chunks(stored.images, 5)] == [5, 5, 5]
    assert band_statistics(stored.images, stored.bands) == band_statistics(held.images, held.bands)
    assert fingerprint(stored, root) == fingerprint(held, root)
    for percentiles in (None, (1, 99)):
        config = Data(normalization=Normalization(percentiles=percentiles), bands=("dem", "red", "slope"))
        normalizer = Normalizer.fit(stored.images, config)
        assert normalizer == Normalizer.fit(held.images, config)
        values = Normalizer(normalizer.bands, percentiles, None, None).apply(held.images).astype(np.float64)
        np.testing.assert_allclose(normalizer.mean, values.mean((0, 1, 2)), rtol=1e-6)
        np.testing.assert_allclose(normalizer.std, values.std((0, 1, 2)), rtol=1e-6)
        inputs = normalizer.inputs(stored.images)
        assert isinstance(inputs, Inputs) and inputs.shape == (15, 32, 32, 3)
        np.testing.assert_array_equal(inputs[np.array([3, 1])], normalizer.inputs(held.images)[[3, 1]])


def test_moments_far_from_zero() -> None:
    values = np.random.default_rng(0).normal(1e4, 0.5, (9, 8, 8, 2)).astype(np.float32)
    mean, std = moments(values[i : i + 2] for i in range(0, 9, 2))
    exact = values.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean((0, 1, 2)), rtol=1e-12)
    np.testing.assert_allclose(std, exact.std((0, 1, 2)), rtol=1e-9)


def test_percentiles_of_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).normal(size=(40, 64, 64, 2)).astype(np.float32)
    exact = band_statistics(images, ("a", "b"))
    monkeypatch.setattr("marsls_keras.data.fingerprint._EXACT", 1000)
    monkeypatch.setattr("marsls_keras.data.fingerprint._SAMPLE", 100_000)
    about = band_statistics(images, ("a", "b"))
    for band in ("a", "b"):
        assert {k: v for k, v in about[band].items() if k[0] != "p"} == {
            k: v for k, v in exact[band].items() if k[0] != "p"
        }
        assert about[band]["p1"] != exact[band]["p1"] and abs(about[band]["p1"] - exact[band]["p1"]) < 0.05


# Batches


@pytest.mark.parametrize(("windows", "percentiles"), [(False, (1, 99)), (True, None)])
def test_batches_are_the_same(root: Path, windows: bool, percentiles: tuple[float, float] | None) -> None:
    held, stored = (tiles.subset(range(10)) for tiles in both(root))
    # Bands in another order, or in the original one.
    bands = ("gray", "slope", "red") if percentiles else ("all",)
    normalizer = Normalizer.fit(held.images, Data(bands=bands, normalization=Normalization(percentiles=percentiles)))
    mosaic, sizes = (TileGrid.of(held.refs, 32, 32, 48), (24, 48)) if windows else (None, ())

    def batches(tiles: Tiles) -> list[tuple[np.ndarray, ...]]:
        made = TrainingBatches(
            normalizer.inputs(tiles.images),
            tiles.masks,
            batch_size=4,
            augmentation=Augmentation(preset="flips", cutmix=0.5),
            bands=normalizer.bands,
            units=normalizer.units,
            seed=3,
            epochs=2,
            grid=mosaic,
            sizes=sizes,
        )
        return list(made.dataset(1).as_numpy_iterator())

    expected, found = batches(held), batches(stored)
    assert len(found) == len(expected) > 2
    for one, other in zip(expected, found, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype == np.float32
            np.testing.assert_array_equal(a, b)


def test_weights_and_evaluation_batches_are_the_same(root: Path) -> None:
    held, stored = both(root)
    normalizer = Normalizer.fit(held.images, Data())
    weights = np.random.default_rng(0).random(held.masks.shape, np.float32)
    options = {
        "batch_size": 4,
        "augmentation": Augmentation(preset="none"),
        "bands": normalizer.bands,
        "units": normalizer.units,
    }
    pairs = []
    for tiles in (held, stored):
        inputs = normalizer.inputs(tiles.images)
        training = TrainingBatches(inputs, tiles.masks, seed=0, epochs=1, weights=weights, **options)
        evaluation = evaluation_batches(inputs, tiles.masks, batch_size=4)
        assert evaluation.element_spec[0].shape == (4, 32, 32, 7)
        pairs.append([*training.dataset().as_numpy_iterator(), *evaluation.as_numpy_iterator()])
    assert len(pairs[0]) == len(pairs[1]) == 8
    for one, other in zip(*pairs, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.slow
def test_a_pipeline_that_is_given_up_does_not_hang(root: Path) -> None:
    # If Python read the tiles, stopping a pipeline would wait for steps that wait for the interpreter.
    code = """
import gc, sys
from marsls_keras.config import Augmentation, Data
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.decoded.load import load
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches
tiles = load(Dataset.open(sys.argv[1]), cache="disk")
normalizer = Normalizer.fit(tiles.images, Data())
options = {"bands": normalizer.bands, "units": normalizer.units, "seed": 0}
options["augmentation"] = Augmentation(preset="flips")
batches = TrainingBatches(normalizer.inputs(tiles.images), tiles.masks, batch_size=4, epochs=1000, **options).dataset()
for _ in range(8):
    batch = next(iter(batches))
    gc.collect()
kept = iter(batches)
print(next(kept)[0].shape)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, root], capture_output=True, text=True, env=environment(), timeout=120
    )
    assert (run.returncode, run.stdout) == (0, "(4, 32, 32, 7)\n"), run.stderr


# Entries


def test_a_second_command_finds_the_tiles(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = Dataset.open(root)
    first = load(dataset, cache="disk")
    monkeypatch.setattr(loading, "read_tile", None)  # decoding again would fail
    again = load(dataset, cache="disk")
    assert again.hashes == first.hashes and again.geo == first.geo
    np.testing.assert_array_equal(again.images[:], first.images[:])


def test_changed_files_are_decoded_again(root: Path, cache: Path) -> None:
    dataset = Dataset.open(root)
    before = load(dataset, cache="disk")
    earlier = entries(cache)
    path = dataset.tiles[4].image
    stat = path.stat()
    image = tifffile.imread(path)
    image[0, 0, 0] += 0.125  # the file keeps its size
    tifffile.imwrite(path, image, photometric="minisblack", planarconfig="contig", compression="lzw", metadata=None)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    after = load(dataset, cache="disk")
    assert [a == b for a, b in zip(after.hashes, before.hashes, strict=True)] == [i != 4 for i in range(15)]
    assert after.images[4][0, 0, 0] == image[0, 0, 0] and len(entries(cache)) == 1 and entries(cache) != earlier
    part = Dataset(root, dataset.split("val"))  # other splits have an entry of their own
    np.testing.assert_array_equal(load(part, cache="disk").images[:], after.images[10:13])
    assert load(dataset, resize=16, cache="disk").images.shape == (15, 16, 16, 7)
    assert len(entries(cache)) == 3


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_mask_beside_an_image_is_one_of_its_files(root: Path, cache: Path) -> None:
    dataset = Dataset.open(root)
    assert load(dataset, cache="disk").valid[0].all()
    valid = np.zeros((32, 32), np.uint8)
    valid[5:] = 255
    write_gdal(Path(f"{dataset.tiles[0].image}.msk"), valid)
    np.testing.assert_array_equal(load(dataset, cache="disk").valid[0], valid > 0)


def test_a_damaged_entry_is_made_anew(root: Path, cache: Path) -> None:
    dataset = Dataset.open(root)
    expected = load(dataset, cache="disk").images[:]
    (name,) = entries(cache)
    with open(cache / name / "7.bin", "r+b") as file:
        file.truncate(1000)
    np.testing.assert_array_equal(load(dataset, cache="disk").images[:], expected)
    for file in ("facts.json", "masks.npy", "14.bin"):
        (cache / name / file).unlink()
        np.testing.assert_array_equal(load(dataset, cache="disk").images[:], expected)


def test_an_interrupted_decoding_leaves_nothing(root: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loading, "suspicious", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load(Dataset.open(root), cache="disk")
    assert [path.name[-5:] for path in cache.iterdir()] == [".lock"]
    assert len(load(Dataset.open(root), cache="disk")) == 15


def test_processes_at_once(root: Path, cache: Path) -> None:
    code = """
import sys
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.decoded.load import load
tiles = load(Dataset.open(sys.argv[1]), cache="disk")
print(tiles.hashes[3], float(tiles.images[:].sum()))
"""
    processes = [
        subprocess.Popen([sys.executable, "-c", code, root], stdout=subprocess.PIPE, text=True, env=environment())
        for _ in range(3)
    ]
    found = {process.communicate(timeout=60)[0] for process in processes}
    expected = load(Dataset.open(root))
    assert found == {f"{expected.hashes[3]} {float(expected.images.sum())}\n"} and len(entries(cache)) == 1


def test_a_full_disk(root: Path, cache: Path) -> None:
    # A limit on file sizes makes a write fail half-way, as a full disk does.
    code = """
import resource, sys
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.decoded.load import load
from marsls_keras.errors import RunError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
try:
    load(Dataset.open(sys.argv[1]), cache="disk")
except RunError as error:
    print(error)
"""
    run = subprocess.run(
        [sys.executable, "-c", code, root], capture_output=True, text=True, check=True, env=environment()
    )
    assert (
        f"Could not keep decoded tiles in {cache}: File too large." in run.stdout and "data.cache=memory" in run.stdout
    )
    assert entries(cache) == []


def test_a_folder_that_cannot_be_written(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARSLS_CACHE", str(root / "train" / "images" / "col00000_row00000.tif"))
    with pytest.raises(RunError, match="Could not keep decoded tiles in .*MARSLS_CACHE"):
        load(Dataset.open(root), cache="disk")


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert store.cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("MARSLS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.cache_folder() == tmp_path / "xdg" / "marsls"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert store.cache_folder() == Path.home() / ".cache" / "marsls"
