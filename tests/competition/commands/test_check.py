"""`marsls check` on folders with known content."""

import json

import matplotlib.image
import numpy as np
import pytest
from scipy.stats import ks_2samp

from competition.cli import main
from competition.commands.check import check_data
from marsls_keras.bands.names import BANDS
from marsls_keras.data.decoded import disk_cache
from marsls_keras.data.decoded import load as decoding
from marsls_keras.data.distribution_shift import mean_differences
from marsls_keras.data.synthetic.mars import write_dataset
from marsls_keras.errors import InputError

SIZE = 32
# The grid, as (row, column): train is an L and a lone tile, val and test lie around it.
TRAIN = [(0, 0), (0, 1), (0, 2), (1, 0), (5, 5)]
VAL = [(1, 1), (2, 2), (5, 6)]  # touches two tiles of train; none but across a corner; one
TEST = [(3, 0), (2, 0), (9, 9), (1, 2)]  # none; one of train; none; one of train


@pytest.fixture
def folder(tmp_path, write_image, write_mask):
    """Return a function that writes cells of a split as tiles, with given pixels, and returns what it wrote."""
    rng = np.random.default_rng(0)

    def write(split, cells, images=None, masks=True, size=SIZE):
        images = rng.uniform(0.1, 0.9, (len(cells), size, size, 7)).astype(np.float32) if images is None else images
        truth = (rng.random((len(cells), size, size)) < np.linspace(0.1, 0.7, len(cells))[:, None, None]).astype(
            np.uint8
        )
        for (row, col), image, mask in zip(cells, images, truth, strict=True):
            name = f"col{col:05d}_row{row:05d}.tif"
            write_image(tmp_path / split / "images" / name, image)
            if masks:
                write_mask(tmp_path / split / "masks" / name, mask)
        return images, truth

    return write


def test_counts_and_statistics_of_every_split(tmp_path, folder):
    written = {"train": folder("train", TRAIN), "val": folder("val", VAL), "test": folder("test", TEST, masks=False)}
    result = check_data(tmp_path)
    assert json.loads(json.dumps(result)) == result
    assert (result["root"], result["release"], result["size"], result["problems"]) == (
        str(tmp_path),
        "mmls_v2",
        [SIZE, SIZE],
        [],
    )
    assert list(result["splits"]) == ["train", "val", "test"]
    for name, (images, masks) in written.items():
        split, ratio = result["splits"][name], masks.mean(axis=(1, 2))
        assert split["tiles"] == len(images) and split["labelled"] == (0 if name == "test" else len(images))
        expected = None if name == "test" else {"min": ratio.min(), "mean": ratio.mean(), "max": ratio.max()}
        assert split["foreground"] == (expected and pytest.approx(expected))
        assert split["no_data_pixels"] == 0
        assert list(split["bands"]) == list(BANDS)
        for i, band in enumerate(BANDS):
            values = images[..., i].astype(np.float64)
            quantiles = np.quantile(values, [0, 0.01, 0.99, 1])
            assert [split["bands"][band][k] for k in ("min", "p1", "p99", "max")] == pytest.approx(quantiles, abs=2e-6)
            assert [split["bands"][band][k] for k in ("mean", "std")] == pytest.approx(
                [values.mean(), values.std()], abs=2e-6
            )


def test_neighbours_and_touching_tiles_counted_by_hand(tmp_path, folder):
    folder("train", TRAIN)
    folder("val", VAL)
    folder("test", TEST, masks=False)
    result = check_data(tmp_path)
    # In train: (0, 0) has two neighbours, (0, 1) two, (0, 2) one, (1, 0) one, (5, 5) none; in val none; in test (3, 0)
    # and (2, 0).
    assert {name: split["neighbours"] for name, split in result["splits"].items()} == {
        "train": 6 / 5,
        "val": 0,
        "test": 2 / 4,
    }
    assert result["touching"] == {"train-val": 2, "train-test": 2}


def test_tiles_of_another_raster_touch_nothing(tmp_path, folder):
    folder("train", TRAIN)
    folder("test", [(0, 0), (0, 3), (1, 1)], masks=False)  # (0, 0) is in train as well, so test is a picture of its own
    result = check_data(tmp_path)
    assert result["touching"] == {"train-test": 0} and result["problems"] == []
    assert result["splits"]["test"]["neighbours"] == 0


def test_shift_between_splits_is_the_statistic_of_scipy(tmp_path, folder):
    rng = np.random.default_rng(1)
    train = rng.uniform(0.1, 0.9, (25, SIZE, SIZE, 7)).astype(np.float32)  # more pixels than are sampled
    val = rng.uniform(0.1, 0.9, (25, SIZE, SIZE, 7)).astype(np.float32)
    val[..., 1] = val[..., 1] * 0.8 + 0.1  # narrower
    val[..., 3] = val[..., 3] * 0.1 + 0.9  # disjoint
    val[..., 5] += 0.02
    test = train[:3] * 0.5
    folder("train", [(0, i) for i in range(25)], train)
    folder("val", [(5, i) for i in range(25)], val)
    folder("test", [(9, i) for i in range(3)], test, masks=False)
    shift = check_data(tmp_path)["shift"]
    assert list(shift) == ["train-val", "train-test"]
    for i, band in enumerate(BANDS):
        exact = ks_2samp(train[..., i].ravel(), val[..., i].ravel()).statistic
        assert shift["train-val"][band] == pytest.approx(exact, abs=0.015), band
        exact = ks_2samp(train[..., i].ravel(), test[..., i].ravel()).statistic
        assert shift["train-test"][band] == pytest.approx(exact, abs=0.015), band
    assert shift["train-val"]["dem"] == 1 and shift["train-val"]["red"] < 0.03 and shift["train-val"]["green"] > 0.07


def test_the_shift_of_few_pixels_is_exact(tmp_path, folder):
    train, val = folder("train", TRAIN)[0], folder("val", VAL)[0]
    shift = check_data(tmp_path)["shift"]["train-val"]
    exact = {band: ks_2samp(train[..., i].ravel(), val[..., i].ravel()).statistic for i, band in enumerate(BANDS)}
    assert shift == pytest.approx(exact, abs=5.1e-5)  # four digits are kept


def test_all_problems_appear_errors_before_warnings(tmp_path, folder, write_mask):
    images, _ = folder("train", TRAIN)
    images = images.copy()
    images[1, ..., 3] = 0.25
    images[2, :2, :3, 4] = np.nan
    folder("train", TRAIN, images)
    folder("val", VAL[:1], images[:1], masks=False)  # a tile of train again
    masks = tmp_path / "train" / "masks"
    (masks / "col00000_row00000.tif").unlink()
    (tmp_path / "train" / "images" / "col00005_row00005.tif").write_bytes(b"no tiff")
    write_mask(masks / "col00000_row00001.tif", np.full((SIZE, SIZE), 7))
    write_mask(masks / "col00040_row00040.tif", np.zeros((SIZE, SIZE)))
    result = check_data(tmp_path)
    found = [(problem["severity"], problem["kind"]) for problem in result["problems"]]
    assert found == [
        ("error", "missing image"),
        ("error", "missing mask"),
        ("error", "overlap"),
        ("error", "unreadable image"),
        ("error", "unreadable mask"),
        ("warning", "constant band"),
        ("warning", "no-data"),
    ]
    named = [
        "col00040_row00040",
        "col00000_row00000",
        "train and val",
        "col00005_row00005",
        "col00000_row00001",
        "dem has one value",
        "6 pixels",
    ]
    for problem, part in zip(result["problems"], named, strict=True):
        assert part in problem["message"]
    # What can be read is described all the same.
    assert result["splits"]["train"]["tiles"] == 3 and result["splits"]["train"]["labelled"] == 2
    assert result["splits"]["train"]["no_data_pixels"] == 6 and result["splits"]["val"]["labelled"] == 0


def test_nothing_that_can_be_read(tmp_path):
    (tmp_path / "train" / "images").mkdir(parents=True)
    (tmp_path / "train" / "images" / "col00000_row00000.tif").write_bytes(b"")
    result = check_data(tmp_path)
    assert (
        result["release"] is result["size"] is None and result["splits"] == result["shift"] == result["touching"] == {}
    )
    assert {problem["kind"] for problem in result["problems"]} == {"missing mask", "unreadable image"}


def test_a_split_that_is_empty_is_a_problem_and_left_out(tmp_path, folder):
    folder("train", TRAIN)
    (tmp_path / "val" / "images").mkdir(parents=True)
    result = check_data(tmp_path)
    assert list(result["splits"]) == ["train"] and result["shift"] == {}
    assert [problem["kind"] for problem in result["problems"]] == ["empty split"]


def test_a_folder_that_is_missing_or_holds_no_split_is_refused(tmp_path):
    with pytest.raises(InputError, match="There is no data folder .*none"):
        check_data(tmp_path / "none")
    with pytest.raises(InputError, match="holds none of the folders train, val, test"):
        check_data(tmp_path)


def test_images_of_another_folder_are_compared_with_the_data(tmp_path, folder):
    """The images are the same tiles, one band raised by half its deviation; references are by NumPy and SciPy."""
    train, _ = folder("train", TRAIN)
    moved = train.copy()
    moved[..., 2] += 0.5 * moved[..., 2].std()
    folder("other/test", TEST[:1], train[:1])
    folder("target/test", [(20 + row, col) for row, col in TRAIN], moved, masks=False)
    result = check_data(tmp_path, images=tmp_path / "target" / "test")
    assert (
        list(result["splits"]) == ["train", "images"]
        and result["splits"]["images"]["tiles"] == 5
        and not result["problems"]
    )
    assert result["difference"]["train-images"] == pytest.approx(
        {band: 0.5 if band == "blue" else 0 for band in BANDS}, abs=2e-3
    )
    for i, band in enumerate(BANDS):
        exact = ks_2samp(train[..., i].ravel(), moved[..., i].ravel()).statistic
        assert result["shift"]["train-images"][band] == pytest.approx(exact, abs=5.1e-5)
    assert result["touching"] == {}  # whether they touch is not known
    again = check_data(tmp_path, images=tmp_path / "train" / "images")
    (problem,) = again["problems"]
    assert (
        problem["severity"] == "warning" and "5 images" in problem["message"] and "labelled tiles" in problem["message"]
    )


def test_mean_differences_by_hand():
    first = {"a": {"mean": 1.0, "std": 3.0}, "b": {"mean": 2.0, "std": 0.0}}
    second = {"a": {"mean": 6.0, "std": 4.0}, "b": {"mean": 2.0, "std": 0.0}}
    assert mean_differences(first, second) == {"a": round(5 / np.sqrt(12.5), 4), "b": None}


def test_images_of_another_kind_are_a_problem_and_not_compared(tmp_path, folder):
    folder("train", TRAIN)
    write_dataset(tmp_path / "earth", "landslide4sense", train=2, val=0, test=0, size=SIZE)
    result = check_data(tmp_path, images=tmp_path / "earth" / "TrainData" / "img")
    assert list(result["splits"]) == ["train"] and [problem["kind"] for problem in result["problems"]] == ["other kind"]


@pytest.mark.parametrize("name", ["shift.png", "shift.svg"])
def test_the_distributions_are_drawn(tmp_path, folder, name):
    folder("train", TRAIN)
    folder("val", VAL)
    path = tmp_path / "pictures" / name
    assert main(["check", str(tmp_path), "--plot", str(path)]) == 0
    if name.endswith("png"):
        height, width, _ = matplotlib.image.imread(path).shape
        assert 400 < height < 1500 and 1000 < width < 2500
    else:
        text = path.read_text()
        assert text.startswith("<?xml") and all(f"<!-- {word} -->" in text for word in (*BANDS, "train", "val"))


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nowhere"), "--plot", "shift.jpg"]) == 2
    assert "ending in .png or .svg" in capsys.readouterr().err


def test_tiles_on_disk_are_told_the_same_of_as_tiles_in_memory(data_root, tmp_path, monkeypatch):
    monkeypatch.setenv("MARSLS_CACHE", str(tmp_path / "cache"))
    root = data_root(train=10, val=3, test=2)
    expected = check_data(root)
    monkeypatch.setattr(disk_cache, "_CHUNK", 2 * 32 * 32 * 7 * 4)
    monkeypatch.setattr(decoding, "LARGE", 0)
    assert check_data(root) == expected
