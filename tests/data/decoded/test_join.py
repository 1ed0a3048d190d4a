"""Joined tiles, with images in memory, on disk, or one set in each."""

from dataclasses import replace

import numpy as np
import pytest

from marsls_keras.config import Augmentation, Data
from marsls_keras.data.decoded.disk_cache import DiskImages
from marsls_keras.data.decoded.join import join, require_alike
from marsls_keras.data.decoded.load import load
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.pipeline.batches import TrainingBatches
from marsls_keras.errors import InputError


@pytest.fixture
def root(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    return data_root(train=5, val=1, test=3)


@pytest.mark.parametrize("places", [("memory", "memory"), ("disk", "disk"), ("memory", "disk"), ("disk", "memory")])
def test_the_tiles_of_the_second_follow_those_of_the_first(root, places):
    tiles, others = (
        load(dataset, cache=place)
        for dataset, place in zip((Dataset.open(root), Dataset.from_images(root / "test")), places, strict=True)
    )
    others = others.subset([2, 0])
    joined = join(tiles, others)
    assert isinstance(joined.images, DiskImages) == ("disk" in places)
    assert np.array_equal(joined.images[:], np.concatenate([tiles.images[:], others.images[:]]))
    assert np.array_equal(joined.masks[9:], others.masks) and np.array_equal(joined.valid, np.ones((11, 32, 32), bool))
    assert (
        joined.refs == (*tiles.refs, *others.refs)
        and joined.hashes == (*tiles.hashes, *others.hashes)
        and len(joined.geo) == 11
    )
    # What the pipeline reads, also with TensorFlow's own readers.
    normalizer = Normalizer.fit(tiles.images, Data())
    batches = TrainingBatches(
        normalizer.inputs(joined.images),
        joined.masks,
        batch_size=11,
        augmentation=Augmentation(preset="none"),
        bands=normalizer.bands,
        units=normalizer.units,
        seed=0,
        epochs=1,
    )
    ((image, _, _),) = batches.dataset()
    found = {tile.tobytes() for tile in np.asarray(image)}
    assert found == {tile.tobytes() for tile in normalizer.apply(joined.images[:])}


def test_tiles_of_another_size_or_other_bands_are_refused(root):
    tiles = load(Dataset.open(root))
    small = replace(tiles, images=tiles.images[:, :16])
    with pytest.raises(InputError, match="new holds tiles of 16 x 32 pixels, but the labelled ones have 32 x 32"):
        require_alike(tiles, small, "new")
    with pytest.raises(InputError, match="new holds tiles of the bands .*, roughness"):
        require_alike(tiles, replace(tiles, derived=("roughness",)), "new")
