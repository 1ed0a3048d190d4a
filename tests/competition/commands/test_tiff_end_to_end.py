"""`check` and `train` on TIFFs whose tags change the meaning of their values."""

from pathlib import Path

import numpy as np
import pytest
import tifffile
from helpers.tiffs import write_gdal

from competition.commands.check import check_data
from competition.commands.train import TrainRequest, train
from marsls_keras.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")


def test_check_names_masks_and_images_that_are_not_what_they_seem(data_root):
    root = data_root(train=6, val=0, test=0)
    masks, images = (sorted((root / "train" / kind).iterdir()) for kind in ("masks", "images"))
    label = tifffile.imread(masks[0])
    tifffile.imwrite(masks[0], label, photometric="miniswhite", metadata=None)
    tifffile.imwrite(masks[1], label, photometric="palette", colormap=np.zeros((3, 256), np.uint16), metadata=None)
    write_gdal(masks[2], label * 255, nodata=255)
    turned = {
        "photometric": "minisblack",
        "planarconfig": "contig",
        "extratags": [(274, 3, 1, 6, True)],
        "metadata": None,
    }
    tifffile.imwrite(images[3], tifffile.imread(images[3]), **turned)
    image = tifffile.imread(images[4])
    image[:4] = -9999
    write_gdal(images[4], image, nodata=-9999)
    found = check_data(root)
    said = {
        Path(problem["message"].split(":")[0]): (problem["severity"], problem["message"])
        for problem in found["problems"]
    }
    for path, reason in {
        masks[0]: "MINISWHITE",
        masks[1]: "palette",
        masks[2]: "no data",
        images[3]: "Orientation is 6",
    }.items():
        assert said[path][0] == "error" and reason in said[path][1]
    assert said[images[4]] == ("warning", f"{images[4]}: 128 pixels without data in some band, filled from the nearest")
    assert found["release"] == "mmls_v2" and len(said) == 5 and found["splits"]["train"]["tiles"] == 2


def barren_folder(root: Path) -> Path:
    """Empty all masks of training and validation."""
    for split in ("train", "val"):
        for mask in (root / split / "masks").iterdir():
            tifffile.imwrite(mask, np.zeros((32, 32), np.uint8), photometric="minisblack", metadata=None)
    return root


def test_check_warns_where_no_label_of_the_pool_holds_landslide(data_root):
    root = data_root()
    assert check_data(root)["problems"] == []
    first = sorted((barren_folder(root) / "train" / "images").iterdir())[0]
    (problem,) = check_data(root)["problems"]
    what = f"none of the 10 labelled tiles holds any landslide, such as {first}. Are the masks right?"
    assert problem == {"kind": "no landslide", "message": what, "severity": "warning"}


def test_train_warns_where_no_label_of_the_pool_holds_landslide(data_root, tmp_path, caplog):
    root = barren_folder(data_root())
    with pytest.raises(InputError, match="64"):  # so that nothing is trained here
        train(TrainRequest("demo", ["data.folds=2"], root, "0", tmp_path / "runs", devices=64))
    (line,) = [line for line in caplog.messages if line.startswith("Warning")]
    assert line.startswith("Warning: none of the 10 labelled tiles holds any landslide")
