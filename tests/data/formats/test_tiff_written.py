"""Files that GDAL could not write to the end are noticed, whatever their layout."""

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from helpers.georeferenced import RNG, write

from marsls_keras.data.formats.tiff_chunks import require_written

LAYOUTS = {
    "strips": {},
    "LZW": {"compress": "lzw", "interleave": "pixel"},
    "tiles": {"tiled": True, "blockxsize": 16, "blockysize": 16, "compress": "deflate"},
    "BigTIFF": {"BIGTIFF": "YES", "compress": "deflate"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_anywhere_is_not_whole(tmp_path, layout):
    path = write(tmp_path / "a.tif", RNG.random((3, 40, 48), dtype=np.float32), **LAYOUTS[layout])
    require_written(path)
    data = path.read_bytes()
    for size in (0, 5, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(OSError, match="not all of it could be written"):
            require_written(path)


def test_overviews_count(tmp_path):
    plain = write(tmp_path / "plain.tif", RNG.integers(0, 255, (1, 600, 700)).astype(np.uint8))
    rasterio.shutil.copy(plain, tmp_path / "cog.tif", driver="COG", blocksize=128)
    require_written(tmp_path / "cog.tif")
    data = (tmp_path / "cog.tif").read_bytes()
    (tmp_path / "cog.tif").write_bytes(data[:-100])
    with pytest.raises(OSError, match="not all of it could be written"):
        require_written(tmp_path / "cog.tif")
