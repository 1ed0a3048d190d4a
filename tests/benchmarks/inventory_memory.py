"""Measure time and peak memory of the mask and the polygons of a raster.

    python tests/benchmarks/inventory_memory.py --side 20000

A raster of probability is made of one smooth random field, shifted from block to block, so that landslides cross the
borders of blocks and strips. The raster stands for the mapped one, too.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import rasterio
from affine import Affine
from scipy import ndimage

from marsls_keras.inference.decision import Decision
from marsls_keras.mapping.inventory import write_inventory, write_mask

BLOCK = 1024


def write_probability(path: Path, side: int) -> None:
    """Write a square raster of probability whose blocks continue each other."""
    field = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=(BLOCK, BLOCK)), 8, mode="wrap")
    field = ((field - field.min()) / np.ptp(field)).astype(np.float32)
    profile = {"driver": "GTiff", "count": 1, "width": side, "height": side, "dtype": "float32", "nodata": float("nan")}
    place = {"crs": "+proj=eqc +R=3396190 +units=m", "transform": Affine(232, 0, -2e6, 0, -232, 2e6)}
    options = {"tiled": True, "blockxsize": 512, "blockysize": 512, "compress": "deflate", "bigtiff": "if_safer"}
    with rasterio.open(path, "w", **profile, **place, **options) as target:
        for top in range(0, side, BLOCK):
            rows = np.tile(field, (1, -(-side // BLOCK)))[: min(BLOCK, side - top), :side]
            target.write(rows, 1, window=((top, top + len(rows)), (0, side)))


def peak() -> float:
    """Return the largest memory of this process so far, in GB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=20_000, help="rows and columns")
    side = parser.parse_args().side
    with tempfile.TemporaryDirectory() as folder:
        probability, mask = Path(folder) / "p.tif", Path(folder) / "mask.tif"
        write_probability(probability, side)
        print(f"{side} x {side} pixels; {peak():.2f} GB before")
        start = time.process_time()
        write_mask(probability, mask, Decision(threshold=0.6, min_area=64, max_hole=32))
        print(f"mask: {time.process_time() - start:.0f} CPU seconds, peak {peak():.2f} GB")
        start = time.process_time()
        found = write_inventory(mask, probability, probability, Path(folder) / "a.gpkg", ("dem",))
        seconds = time.process_time() - start
        print(f"{found.landslides} polygons: {seconds:.0f} CPU seconds, peak {peak():.2f} GB")


if __name__ == "__main__":
    main()
