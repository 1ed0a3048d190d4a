"""`predict --mosaic`: the predictions of a folder as one raster."""

import numpy as np
import rasterio

from competition.commands.predict import PredictRequest, predict
from marsls_keras.data.decoded.load import load
from marsls_keras.data.index.dataset import Dataset
from marsls_keras.inference.ensemble import predict_ensemble
from marsls_keras.inference.prediction_inputs import PredictionInputs
from marsls_keras.runs.run import Run


def test_predictions_of_a_folder_are_joined_as_their_images_lie(tiny_run, tmp_path):
    """The whole way: images with GeoTIFF tags, predictions with the same, one raster of each kind."""
    images = tiny_run.data / "test" / "images"
    result = predict(PredictRequest([tiny_run.name], images, tmp_path, tiny_run.runs, mosaic=True))
    files = sorted(images.iterdir())
    tiles = load(Dataset.from_images(images))
    probability, *_ = predict_ensemble([Run.open(tiny_run.path)], [0, 1], PredictionInputs.alone(tiles), ["identity"])
    assert (
        result["mosaics"] == [str(tmp_path / "probability.tif"), str(tmp_path / "mask.tif")]
        and result["tiles"] == len(files) == 4
    )
    assert result["foreground_ratio"] == (probability >= 0.5).mean()
    with rasterio.open(tmp_path / "probability.tif") as raster, rasterio.open(tmp_path / "mask.tif") as mask:
        joined, joined_mask = raster.read(1), mask.read(1)
        covered = np.zeros(joined.shape, bool)
        for file, values in zip(files, probability, strict=True):
            with rasterio.open(file) as image, rasterio.open(tmp_path / "probability" / file.name) as tile:
                assert tile.crs == image.crs == raster.crs == mask.crs and tile.transform == image.transform
                assert np.array_equal(tile.read(1), values)
                row, col = raster.index(*(image.transform * (0.5, 0.5)))
            window = np.s_[row : row + 32, col : col + 32]
            assert np.array_equal(joined[window], values) and np.array_equal(joined_mask[window], values >= 0.5)
            with rasterio.open(tmp_path / "mask" / file.name) as tile:
                assert tile.dtypes == ("uint8",) and np.array_equal(tile.read(1), values >= 0.5)
            covered[window] = True
        assert np.array_equal(np.isnan(joined), ~covered) and np.array_equal(joined_mask == 255, ~covered)
