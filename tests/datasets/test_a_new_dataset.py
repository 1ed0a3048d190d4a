"""A new dataset is one file: once registered, it works from synthetic tiles to training."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from helpers.alps import ALPS

from marsls_keras.config import Data
from marsls_keras.data.decoded.load import load
from marsls_keras.data.formats.tile import read_tile
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.normalization import Normalizer
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.datasets import RELEASES, known_bands, register
from marsls_keras.errors import InputError

TESTS = Path(__file__).parents[1]

RECIPE = """
model: {name: unet, options: {base_filters: 2, depth: 2}}
data: {bands: [all, hillshade]}
training: {epochs: 1, batch_size: 4, warmup_epochs: 0}
"""

RUNNER = """
import json, sys
sys.path.insert(0, sys.argv[1])
from helpers.alps import ALPS
from marsls_keras.datasets import register
register(ALPS)
from competition.cli import main
for arguments in json.loads(sys.argv[2]):
    if code := main(arguments):
        sys.exit(code)
"""


@pytest.fixture
def alps() -> Iterator[None]:
    register(ALPS)
    yield
    del RELEASES["alps"]


@pytest.mark.slow
def test_from_generated_tiles_to_a_trained_fold_through_the_commands(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(RECIPE)
    commands = [
        ["synth", "data", "--release", "alps", "--train", "10", "--val", "2", "--test", "2", "--size", "32"],
        ["check", "data", "--json"],
        ["train", "--config", "tiny.yaml", "--fold", "0"],
    ]
    command = [sys.executable, "-c", RUNNER, str(TESTS), json.dumps(commands)]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fingerprint = json.loads((tmp_path / "runs" / "tiny" / "fingerprint.json").read_text())
    assert fingerprint["release"] == "alps" and fingerprint["tiles"] == {"train": 10, "val": 2}
    assert list(fingerprint["bands"])[:4] == ["dem", "red", "nir", "coherence"]
    assert fingerprint["no_data_pixels"] == 12 * 4
    metrics = json.loads((tmp_path / "runs" / "tiny" / "fold_0" / "metrics.json").read_text())
    folds = [tile["fold"] for tile in json.loads((tmp_path / "runs" / "tiny" / "splits.json").read_text())["tiles"]]
    assert len(folds) == 12 and metrics["tiles"] == folds.count(0) and metrics["trouble"] == []
    assert '"alps"' in done.stdout  # what check tells


def test_read_index_and_normalise(tmp_path: Path, alps: None) -> None:
    write_dataset(tmp_path / "data", "alps", train=4, val=1, test=0, size=32, seed=3)
    dataset = Dataset.open(tmp_path / "data")
    assert [ref.release for ref in dataset.tiles] == ["alps"] * 5 and dataset.tiles[0].mask is not None
    tiles = load(dataset)
    for ref, image, mask in zip(tiles.refs, tiles.images, tiles.masks, strict=True):
        with h5py.File(ref.image) as file, h5py.File(ref.mask) as truth:
            stored = file["pixels"][:].astype(np.float64)
            np.testing.assert_array_equal(mask, truth["truth"][:])
        np.testing.assert_allclose(image[..., 0], (stored[..., 3] - 200) / 4000, atol=1e-6)  # dem
        np.testing.assert_allclose(image[..., 2], (stored[..., 2] - 100) / 10_000, atol=1e-6)  # nir
        np.testing.assert_allclose(image[2:, 2:, 3], stored[2:, 2:, 0] / 1000, atol=1e-6)  # coherence
        assert np.isin(
            image[:2, :2, 3], image[:3, :3, 3][~np.pad(np.ones((2, 2), bool), ((0, 1), (0, 1)))]
        ).all()  # from beside
    assert (~tiles.valid).sum() == 5 * 4
    normalizer = Normalizer.fit(tiles.images, Data(release="alps"), tiles.bands, tiles.valid)
    known = normalizer.apply(tiles.images, tiles.bands)[tiles.valid]
    np.testing.assert_allclose(known.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(known.std(0), 1, atol=1e-3)


def test_a_single_file_tells_by_its_container_and_what_it_holds(tmp_path: Path, alps: None) -> None:
    for name in ("alps", "landslide4sense"):
        write_dataset(tmp_path / name, name, train=1, val=0, test=0, size=32)
    assert read_tile(tmp_path / "alps/alps-train/x/pixels-0.h5").release == "alps"
    assert read_tile(tmp_path / "landslide4sense/TrainData/img/image_1.h5").release == "landslide4sense"


def test_it_is_known_while_it_is_registered_and_no_longer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="'auto', .*'nepal'.*"):
        Data(release="alps")
    register(ALPS)
    try:
        assert Data(release="alps", bands=("coherence",)).release == "alps" and "coherence" in known_bands()
    finally:
        del RELEASES["alps"]
    with pytest.raises(ValueError, match="coherence is unknown"):
        Data(bands=("coherence",))
    with pytest.raises(InputError, match="Unknown release 'alps'"):
        read_tile(tmp_path / "x.h5", release="alps")


def test_two_layouts_in_one_folder_are_refused(tmp_path: Path, alps: None) -> None:
    write_dataset(tmp_path / "data", "alps", train=1, val=0, test=0, size=32)
    (tmp_path / "data" / "train" / "images").mkdir(parents=True)
    with pytest.raises(InputError, match=r"holds folders of mars and of alps"):
        Dataset.open(tmp_path / "data")


@pytest.mark.parametrize(
    "change",
    [{"name": "bijie"}, {"name": "auto"}, {"order": ("red", "dem")}, {"scale": (1.0,)}, {"bands": ("red",) * 4}],
)
def test_what_does_not_fit_together_is_refused(change: dict) -> None:
    with pytest.raises(ValueError, match="already|bands|scale"):
        register(replace(ALPS, **change))
    assert "alps" not in RELEASES
