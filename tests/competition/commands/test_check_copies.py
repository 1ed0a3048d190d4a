"""`marsls check` and copies of tiles in other splits."""

import numpy as np
import pytest
from helpers.copies import turned_copy

from competition.commands.check import check_data
from marsls_keras.config import Data
from marsls_keras.data.decoded.load import load
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.data.splits import make_splits
from marsls_keras.errors import InputError


def test_copies_of_train_in_val_and_test(data_root):
    root = data_root(train=8, val=2, test=2)
    turned_copy(root, "col00001_row00002.tif", "val/col00090_row00090.tif")
    tiles = load(Dataset.open(root))
    with pytest.raises(
        InputError,
        match=r"official: 1 tile\(s\) of val are copies .*val/images/col00090_row00090.tif \(with .*row00002",
    ):
        make_splits(tiles, Data(cv="official"), 0)
    turned_copy(root, "col00000_row00003.tif", "test/col00070_row00090.tif", 6)
    errors = [p for p in check_data(root)["problems"] if p["severity"] == "error"]
    assert [p["kind"] for p in errors] == ["overlap"] and "turned or mirrored, is in test and train" in errors[0][
        "message"
    ]
    assert "col00070_row00090" in errors[0]["message"] and "col00000_row00003" in errors[0]["message"]


def test_tiles_of_one_value_are_no_copies(data_root, write_image, write_mask):
    root = data_root(train=4, val=2, test=2)
    for split in ("train", "test"):
        write_image(root / split / "images" / "col00050_row00050.tif", np.zeros((32, 32, 7)))
        write_mask(root / split / "masks" / "col00050_row00050.tif", np.zeros((32, 32)))
    assert not [p for p in check_data(root)["problems"] if p["severity"] == "error"]
