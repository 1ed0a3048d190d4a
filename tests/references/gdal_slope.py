"""Write gdal_slope.npz: a DEM, and the slope that GDAL computes of it (`gdaldem slope`), by rasterio's own GDAL.

The wheel of rasterio has the function, but not the program, so it is called in the library. Run it anew with

    python tests/references/gdal_slope.py
"""

import ctypes
import tempfile
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import Affine

MARS = "+proj=eqc +R=3396190 +units=m +no_defs"


def gdaldem_slope(source: Path, target: Path) -> None:
    folder = Path(rasterio.__file__).parent
    gdal = ctypes.CDLL(str(next((folder.parent / "rasterio.libs").glob("libgdal-*"))))
    gdal.GDALAllRegister()
    for function in ("GDALOpen", "GDALDEMProcessing", "GDALDEMProcessingOptionsNew"):
        getattr(gdal, function).restype = ctypes.c_void_p
    data = ctypes.c_void_p(gdal.GDALOpen(str(source).encode(), 0))
    options = ctypes.c_void_p(gdal.GDALDEMProcessingOptionsNew((ctypes.c_char_p * 2)(b"-q", None), None))
    failed = ctypes.c_int()
    made = gdal.GDALDEMProcessing(str(target).encode(), data, b"slope", None, options, ctypes.byref(failed))
    assert made and not failed.value
    gdal.GDALClose(ctypes.c_void_p(made))
    gdal.GDALClose(data)


def main() -> None:
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:48, :40]
    heights = 900 * np.sin(x / 6) * np.cos(y / 9) - 4000 + 60 * rng.standard_normal((48, 40))
    heights = heights.astype(np.float32)
    heights[20:22, 30] = -9999
    pixel = (232.0, 200.0)
    with tempfile.TemporaryDirectory() as folder:
        dem, slope = Path(folder, "dem.tif"), Path(folder, "slope.tif")
        profile = {"driver": "GTiff", "height": 48, "width": 40, "count": 1, "dtype": "float32", "nodata": -9999}
        place = {"crs": MARS, "transform": Affine(pixel[0], 0, 0, 0, -pixel[1], 0)}
        with rasterio.open(dem, "w", **profile, **place) as file:
            file.write(heights, 1)
        gdaldem_slope(dem, slope)
        with rasterio.open(slope) as file:
            degrees = file.read(1, masked=True).filled(np.nan)
    target = Path(__file__).with_suffix(".npz")
    np.savez_compressed(target, heights=heights, pixel=pixel, slope=degrees, gdal=rasterio.__gdal_version__)


if __name__ == "__main__":
    main()
