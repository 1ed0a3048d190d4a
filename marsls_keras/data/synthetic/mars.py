"""Generate synthetic tiles of Valles Marineris and write them in the file format of each dataset.

The terrain is generated first: fractal relief, canyon walls with spurs and gullies, and landslides that cut the wall
and are deposited below it. Slope and gray follow from the terrain; colours and temperature depend little on the
landslides. A network can learn the masks from relief and texture, but no threshold on one band finds them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from math import ceil, sqrt
from pathlib import Path

import numpy as np
from scipy import fft, ndimage

from marsls_keras.data.synthetic.write_file import write_file
from marsls_keras.datasets import RELEASES
from marsls_keras.datasets.mars import SLOPE_DEGREES, TILE_METRES
from marsls_keras.datasets.release import SyntheticTile
from marsls_keras.errors import InputError
from marsls_keras.files import atomic_folder
from marsls_keras.progress import tracked
from marsls_keras.suggestions import did_you_mean

_RAW = RELEASES["challenge"]
DEM_METRES = _RAW.scale[_RAW.order.index("dem")]
"""Scale of heights in metres: height = canonical DEM × DEM_METRES + DEM_LOWEST."""
DEM_LOWEST = _RAW.offset[_RAW.order.index("dem")]

_PANEL = 1536  # pixels per side; generating a panel takes less than 800 MB, however many tiles are requested
_PUBLISHED = 0.7  # approximate share of tiles in a panel that hold landslide
_VISIBLE = 0.1  # degree of failure, in [0, 1], from which ground is labelled as landslide

Cell = tuple[int, int]


def make_mosaic(rows: int, cols: int, size: int = 128, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Generate one continuous image of rows × cols tiles and its landslide mask.

    Args:
        rows: Height in tiles.
        cols: Width in tiles.
        size: Pixels per side of a tile, at least 32.
        seed: Random seed; equal arguments give equal results.

    Returns:
        The image, float32 (rows × size, cols × size, 7) in canonical order and [0, 1], and the mask, uint8 {0, 1}
        (rows × size, cols × size).

    Raises:
        InputError: If a number is out of range.

    Example:
        >>> image, mask = make_mosaic(1, 2, size=32)
        >>> image.shape, mask.shape
        ((32, 64, 7), (32, 64))
    """
    _check_numbers(size, seed, rows=(rows, 1), cols=(cols, 1))
    return _mosaic(rows, cols, size, np.random.default_rng(seed))


def write_dataset(
    out: str | Path,
    release: str = "mmls_v2",
    train: int = 40,
    val: int = 8,
    test: int = 12,
    size: int = 128,
    seed: int = 0,
) -> dict[str, int]:
    """Write a dataset of synthetic tiles; the folder appears whole or not at all.

    Train and val are cut from one raster, of which val has the last rows, and test from another. As in the real data,
    tiles without landslide are not published, and tiles that are adjacent in the grid are continuous. Datasets of Earth
    also hold tiles without landslide. Bijie has no splits, so all its tiles are training tiles.

    Args:
        out: Folder to write; it must not exist or must be empty.
        release: Name of the release whose files are imitated.
        train: Number of training tiles.
        val: Number of validation tiles; may be 0.
        test: Number of test tiles; may be 0.
        size: Pixels per side of a tile, at least 32.
        seed: Equal arguments give byte-identical files.

    Returns:
        Number of tiles written per split.

    Raises:
        InputError: If the folder is not empty, the release is unknown or a number is out of range.
        RunError: If the files cannot be written.

    Example:
        >>> write_dataset("data", "landslide4sense", train=10, val=2, test=2, size=32)  # doctest: +SKIP
        {'train': 10, 'val': 2, 'test': 2}
    """
    if release not in RELEASES:
        raise InputError(
            f"Unknown release {release!r}.{did_you_mean(release, RELEASES)} Known releases: {', '.join(RELEASES)}."
        )
    _check_numbers(size, seed, train=(train, 1), val=(val, 0), test=(test, 0))
    form = RELEASES[release].synthetic
    with atomic_folder(out) as temporary:
        for raster, wanted in enumerate(({"train": train, "val": val}, {"test": test})):
            corner = (7, 61) if raster and not form.own_grid else (7, 1)
            tiles = _published(sum(wanted.values()), size, seed, raster, corner, form.empty)
            for split, number in wanted.items():
                for index in tracked(f"Making tiles of {split}", range(number)):
                    for file in form.files(SyntheticTile(split, index, *next(tiles))):
                        write_file(temporary, file)
    return {"train": train, "val": val, "test": test} if form.splits else {"train": train + val + test}


def _check_numbers(size: int, seed: int, **least: tuple[int, int]) -> None:
    """Raise an InputError if a number is too small; `least` are (value, lowest allowed) by name."""
    for name, (value, lowest) in (least | {"size": (size, 32), "seed": (seed, 0)}).items():
        if value < lowest:
            raise InputError(f"{name} must be at least {lowest}. Received: {value}.")


def _published(
    number: int, size: int, seed: int, raster: int, corner: Cell, empty: bool
) -> Iterator[tuple[Cell, np.ndarray, np.ndarray]]:
    """Yield `number` tiles with landslide (with `empty`, any tiles) in grid order, as (cell, image, mask).

    A raster is a column of panels separated by an empty row of cells, so that only one panel is in memory.
    """
    top, left = corner
    for panel in count():
        if number <= 0:
            return
        side = max(3, min(_PANEL // size, ceil(sqrt(number / _PUBLISHED))))
        image, mask = _mosaic(side, side, size, np.random.default_rng([seed, raster, panel]))
        for row, col in np.ndindex(side, side):
            window = np.s_[row * size : (row + 1) * size, col * size : (col + 1) * size]
            if number and (empty or mask[window].any()):
                number -= 1
                yield (top + row, left + col), image[window], mask[window]
        top += side + 1


# --- Terrain ----------------------------------------------------------------------------------------------------------


def _mosaic(rows: int, cols: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Generate image and mask of one panel; lengths are in tiles, heights in metres."""
    shape = (rows * size, cols * size)
    v, u = np.meshgrid(*(np.arange(n, dtype=np.float32) / size for n in shape), indexing="ij")

    # Troughs run roughly east-west and are warped into embayments; distance > 0 on the plateau, < 0 inside a trough.
    tilt, width, period = rng.uniform(-0.2, 0.2), rng.uniform(1.7, 2.3), rng.uniform(4.0, 4.8)
    across = v - rows / 2 + (u - cols / 2) * tilt + 0.34 * _fractal(rng, shape, size, 3.6, 0.35, 4.0)
    # One wall passes near the middle of any picture, however small.
    across += rng.choice((-1, 1)) * width / 2 + rng.uniform(-0.4, 0.4)
    distance = np.abs((across + period / 2) % period - period / 2) - width / 2

    # Gullies: noise stretched along the fall line, with sharp ridges.
    gullies = 0.8 - np.abs(_fractal(rng, shape, size, 3.6, 1.6, size / 8, stretch=2.2))
    gullies += 0.35 * (0.8 - np.abs(_fractal(rng, shape, size, 3.0, 5.0, size / 6, stretch=2.2)))
    drop = 5600.0 + 700.0 * _fractal(rng, shape, size, 4.0, 0.2, 1.0)
    retreat, lobes, cover = _landslides(distance, _activity(rng, shape, size), size, rng)
    # The wall has moved back into the plateau: an amphitheatre without gullies.
    failed = _wall(distance - retreat, drop)
    eroded = _wall(distance + 0.14 * gullies * np.exp(-(((distance + 0.2) / 0.33) ** 2)), drop)

    unevenness = np.exp(0.7 * _fractal(rng, shape, size, 3.0, 0.5, 4.0))
    relief = 220.0 * _fractal(rng, shape, size, 3.6, 0.3, size / 4) + 9.0 * unevenness * _fractal(
        rng, shape, size, 2.0, 6.0, size / 3
    )
    hummocks = 0.8 - np.abs(_fractal(rng, shape, size, 2.2, 5.0, size / 5))
    height = 3300.0 + relief + eroded + (failed - eroded) * cover + lobes
    height += (50.0 + 80.0 * np.clip(lobes / 250.0, 0, 1)) * cover * hummocks
    height += _craters(shape, size, rng) * (1 - cover)
    height = ndimage.gaussian_filter(height, max(0.5, size / 110))
    dem = np.clip((height - DEM_LOWEST) / DEM_METRES, 0, 1).astype(np.float32)
    mask = (cover > _VISIBLE).astype(np.uint8)
    return _bands(dem, cover, size, rng), mask


def _wall(distance: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """Return the height relative to the plateau: steepest below the sharp rim, flattening towards the floor."""
    return -drop * np.tanh(np.maximum(-distance, 0) / 0.42)


def _fractal(
    rng: np.random.Generator,
    shape: tuple[int, int],
    size: int,
    beta: float,
    low: float,
    high: float,
    stretch: float = 1.0,
) -> np.ndarray:
    """Return a random field of mean 0 and standard deviation 1 with a power-law spectrum.

    Power is proportional to 1/f^beta between `low` and `high` cycles per tile, constant below `low`, and 0 above
    `high`. Features are stretched along y by `stretch`.
    """
    # The synthesis is periodic, so it is made larger and the repeating part is cut off.
    padded = tuple(fft.next_fast_len(n + size, real=True) for n in shape)
    frequency = np.hypot(fft.fftfreq(padded[0], 1 / size)[:, None] * stretch, fft.rfftfreq(padded[1], 1 / size)).astype(
        np.float32
    )
    gain = np.maximum(frequency, low) ** (-beta / 2) * (frequency < high)
    gain[0, 0] = 0
    spectrum = fft.rfft2(rng.standard_normal(padded, dtype=np.float32)) * gain
    field = fft.irfft2(spectrum, padded)[: shape[0], : shape[1]]
    return (field / sqrt(float((gain**2).mean()))).astype(np.float32)


def _activity(rng: np.random.Generator, shape: tuple[int, int], size: int) -> np.ndarray:
    """Return the relative probability of landslides at each pixel; it is low along whole stretches of wall."""
    return 1 / (1 + np.exp(-5 * _fractal(rng, shape, size, 3.0, 0.3, 1.5)))


def _landslides(
    distance: np.ndarray, activity: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Generate landslides.

    Returns:
        Retreat of the wall in tiles, thickness of the deposits in metres, and degree of failure in [0, 1], each of
        the shape of `distance`.
    """
    retreat, lobes, cover = (np.zeros_like(distance) for _ in range(3))
    bend = 0.045 * np.stack([_fractal(rng, distance.shape, size, 3.4, 1.2, size / 8) for _ in range(2)])
    slope_y, slope_x = np.gradient(ndimage.gaussian_filter(distance, 0.08 * size))
    rim = np.flatnonzero(np.abs(distance) < 0.02)
    if not rim.size:
        rim = np.array([np.abs(distance).argmin()])
    length_of_rim = rim.size / (0.04 * size**2)
    weight = activity.ravel()[rim].astype(np.float64)
    for place in rng.choice(rim, size=max(1, round(3.6 * length_of_rim)), p=weight / weight.sum()):
        y, x = divmod(int(place), distance.shape[1])
        half = float(np.exp(rng.uniform(np.log(0.06), np.log(0.6))))
        length = min(1.5, half * rng.uniform(1.8, 3.2) + 0.2)
        down = np.array([-slope_y[y, x], -slope_x[y, x]]) / max(float(np.hypot(slope_y[y, x], slope_x[y, x])), 1e-6)

        window, dy, dx = _around(distance.shape, y, x, int((length + 0.3) * size))
        dy, dx = dy / size + bend[0][window], dx / size + bend[1][window]
        run = (dy * down[0] + dx * down[1]) / length + 0.15  # 0 at the crown, 1 at the toe
        spread = half * (0.75 + 0.45 * np.clip(run, 0, 1))
        # Both ends are rounded, an amphitheatre at the crown and a lobe at the toe.
        spread *= np.sqrt(
            np.clip(1 - np.clip(1 - run / 0.3, 0, None) ** 2, 0, 1)
            * np.clip(1 - np.clip((run - 0.7) / 0.3, 0, None) ** 2, 0, 1)
        )
        inside = np.clip(1 - np.abs(dy * down[1] - dx * down[0]) / np.maximum(spread, 1e-6), 0, 1).astype(np.float32)
        edge = np.tanh(inside / 0.35)
        thick = min(600.0, 1600.0 * half) * rng.uniform(0.5, 1.1)
        retreat[window] = np.maximum(retreat[window], 0.16 * length * edge * np.exp(-(((run - 0.15) / 0.25) ** 2)))
        lobes[window] = np.maximum(lobes[window], thick * edge * np.exp(-(((run - 0.85) / 0.25) ** 2)))
        cover[window] = np.maximum(cover[window], edge)
    cover *= np.clip((retreat - distance) / 0.03, 0, 1)  # the remaining plateau has not failed
    return retreat, lobes * (cover > 0), cover


def _around(shape: tuple[int, ...], y: int, x: int, reach: int) -> tuple[tuple[slice, slice], np.ndarray, np.ndarray]:
    """Return the window of an image within reach of a pixel, and the row and column offsets from that pixel."""
    rows, cols = (
        slice(max(0, y - reach), min(shape[0], y + reach + 1)),
        slice(max(0, x - reach), min(shape[1], x + reach + 1)),
    )
    return (rows, cols), np.arange(rows.start, rows.stop)[:, None] - y, np.arange(cols.start, cols.stop)[None, :] - x


def _craters(shape: tuple[int, int], size: int, rng: np.random.Generator) -> np.ndarray:
    """Return the relief of small impact craters in metres: steep, rough places that are no landslides."""
    relief = np.zeros(shape, dtype=np.float32)
    for _ in range(round(0.8 * shape[0] * shape[1] / size**2)):
        y, x = int(rng.integers(0, shape[0])), int(rng.integers(0, shape[1]))
        radius = float(0.02 * size / np.sqrt(rng.uniform(0.03, 1)))
        window, dy, dx = _around(shape, y, x, ceil(2.2 * radius))
        away = np.hypot(dy, dx) / radius
        depth = 0.16 * radius * TILE_METRES / size
        relief[window] += depth * (0.35 * np.exp(-(((away - 1) / 0.3) ** 2)) - np.clip(1 - away**2, 0, 1))
    return relief


# --- Bands ------------------------------------------------------------------------------------------------------------


def _bands(dem: np.ndarray, cover: np.ndarray, size: int, rng: np.random.Generator) -> np.ndarray:
    """Compute the seven canonical bands from a DEM and the landslides' degree of failure."""
    # In metres per metre, down the rows and along the columns.
    fall = np.array(np.gradient(dem * np.float32(DEM_METRES), TILE_METRES / size))
    slope = np.degrees(np.arctan(np.hypot(*fall))) / SLOPE_DEGREES

    grain = _fractal(rng, dem.shape, size, 1.6, 8.0, size / 2)
    gray = 0.52 + 0.95 * (_hillshade(fall, azimuth=280.0) - 0.7) + (0.02 + 0.016 * cover) * grain

    # The colour mosaic is coarse, taken under another sun azimuth, and shows dust more than relief.
    dust = _fractal(rng, dem.shape, size, 3.0, 0.3, size / 8)
    light = ndimage.gaussian_filter(_hillshade(fall, azimuth=60.0) - 0.7, size / 50)
    colour = 1.3 * light + 0.07 * dust
    tints = [tint * _fractal(rng, dem.shape, size, 3.0, 0.3, size / 8) for tint in (0.009, 0.022)]
    red, green, blue = 0.36 + 1.15 * colour, 0.37 + colour + tints[0], 0.46 + 0.8 * colour + tints[1]

    # Low, dusty ground stays warm, and so does, less, the rock of fresh deposits.
    thermal = 0.47 - 0.2 * (dem - 0.5) + 0.11 * _fractal(rng, dem.shape, size, 3.8, 0.4, size / 10)
    thermal += 0.05 * ndimage.gaussian_filter(cover, size / 20)
    return np.clip(np.stack([red, green, blue, dem, slope, thermal, gray], axis=-1), 0, 1).astype(np.float32)


def _hillshade(fall: np.ndarray, azimuth: float) -> np.ndarray:
    """Return the brightness of the ground under a sun 45° high; azimuth clockwise from the top of the image."""
    toward_y, toward_x = -np.cos(np.radians(azimuth)), np.sin(np.radians(azimuth))
    return np.clip((1 - fall[0] * toward_y - fall[1] * toward_x) / np.sqrt(2 * (1 + (fall**2).sum(axis=0))), 0, 1)
