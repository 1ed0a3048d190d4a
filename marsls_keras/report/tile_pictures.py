"""Pictures of single tiles: RGB, hillshade, slope, truth, probability and error map."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LightSource, to_rgb
from matplotlib.image import imsave

from marsls_keras.bands.names import RGB
from marsls_keras.report.plots import SKY, VERMILION, YELLOW

ERROR_COLOURS = {"found (TP)": SKY, "false alarm (FP)": VERMILION, "missed (FN)": YELLOW}
"""Colours of the error map; they differ in hue and lightness, also under colour blindness."""

PROBABILITY_COLOURS = "viridis"
SLOPE_COLOURS = "cividis"


@dataclass(frozen=True)
class Picture:
    """A captioned PNG image with alternative text.

    Attributes:
        label: Caption.
        alt: Alternative text, a description of the image.
        png: The picture as PNG.

    Example:
        >>> picture("slope", "Slope in tile a", np.zeros((4, 4, 3))).label
        'slope'
    """

    label: str
    alt: str
    png: bytes


def tile_pictures(
    name: str, image: np.ndarray, bands: Sequence[str], mask: np.ndarray, probability: np.ndarray, predicted: np.ndarray
) -> list[Picture]:
    """Draw the pictures of a tile at its own resolution.

    They are RGB, hillshade and slope, if the tile has the bands, then truth, probability and errors.

    Args:
        name: The tile's name.
        image: float32 (H, W, C), canonical.
        bands: Names of the C bands.
        mask: uint8 (H, W) of {0, 1}.
        probability: float32 (H, W).
        predicted: uint8 (H, W) of {0, 1}.

    Example:
        >>> mask = np.eye(8, dtype="uint8")
        >>> pictures = tile_pictures("a", np.zeros((8, 8, 1), "float32"), ("dem",), mask, 0.9 * mask, mask)
        >>> [shown.label for shown in pictures]
        ['DEM, hillshade', 'truth', 'probability', 'errors']
    """
    layers = {band: image[..., i] for i, band in enumerate(bands)}
    colours = stretch(np.stack([layers[band] for band in RGB], -1)) if all(band in layers for band in RGB) else None
    relief = (
        hillshade(layers["dem"]) if "dem" in layers else stretch(image[..., 0] if colours is None else colours.mean(-1))
    )
    pictures = [] if colours is None else [picture("RGB", f"Tile {name} in red, green and blue", colours)]
    if "dem" in layers:
        shaded = np.repeat(relief[..., None], 3, -1)
        pictures.append(picture("DEM, hillshade", f"Shaded relief of tile {name}, lit from the north-west", shaded))
    if "slope" in layers:
        slope = colormaps[SLOPE_COLOURS](stretch(layers["slope"]))[..., :3]
        pictures.append(picture("slope", f"Slope in tile {name}", slope))
    truth = np.where(mask[..., None] != 0, 1.0, 0.12) * np.ones(3)
    return [
        *pictures,
        picture("truth", f"True landslide in tile {name}, {mask.mean():.1%} of it", truth),
        picture(
            "probability",
            f"Predicted probability in tile {name}, {predicted.mean():.1%} of it taken for landslide",
            colormaps[PROBABILITY_COLOURS](probability)[..., :3],
        ),
        picture(
            "errors",
            f"Where prediction and truth of tile {name} agree and differ",
            error_map(mask != 0, predicted != 0, relief),
        ),
    ]


def stretch(values: np.ndarray) -> np.ndarray:
    """Stretch values (H, W, …) linearly from their 1st and 99th percentiles to [0, 1], and clip them.

    All bands are stretched alike, so that colours keep their hue.

    Example:
        >>> stretched = stretch(np.arange(100.0).reshape(10, 10))
        >>> float(stretched.min()), float(stretched.max())
        (0.0, 1.0)
    """
    low, high = limits(values)
    return np.clip((values - low) / (high - low), 0, 1)


def limits(values: np.ndarray) -> tuple[float, float]:
    """Return the 1st and 99th percentiles, the latter at least 1e-6 larger.

    Example:
        >>> limits(np.arange(101.0))
        (1.0, 99.0)
    """
    low, high = np.percentile(values, (1, 99))
    return float(low), float(max(high, low + 1e-6))


def hillshade(dem: np.ndarray, steepness: float | None = None) -> np.ndarray:
    """Return the hillshade of heights (H, W), in [0, 1], lit from the north-west at 45°.

    Heights are scaled, since the releases have different units, and a flat tile would show nothing.

    Args:
        dem: The heights.
        steepness: Step in height between neighbouring pixels that is drawn as 35°; that of this picture by default (see
            `steepness_of`).

    Example:
        >>> hillshade(np.zeros((4, 4))).shape
        (4, 4)
    """
    if min(dem.shape) < 2:
        return np.full(dem.shape, 0.5)
    dem = dem.astype(np.float64)
    steepness = steepness_of(dem) if steepness is None else steepness
    return LightSource(azdeg=315, altdeg=45).hillshade(dem, vert_exag=0.7 / max(steepness, 1e-9))


def steepness_of(dem: np.ndarray) -> float:
    """Return the 95th percentile of the steps in height between neighbouring pixels.

    With it the steepest twentieth stands at 35° or more in a hillshade: clear relief without black shadows.

    Example:
        >>> steepness_of(np.arange(9.0).reshape(3, 3) / 10) < 0.35
        True
    """
    return float(np.percentile(np.hypot(*np.gradient(dem.astype(np.float64))), 95))


def error_map(truth: np.ndarray, prediction: np.ndarray, relief: np.ndarray) -> np.ndarray:
    """Colour true positives, false positives and false negatives over a faint relief; return (H, W, 3) in [0, 1].

    Args:
        truth: bool (H, W).
        prediction: bool (H, W).
        relief: float (H, W) in [0, 1].

    Example:
        >>> colours = error_map(np.array([[True]]), np.array([[False]]), np.array([[0.5]]))
        >>> bool(np.allclose(colours[0, 0], to_rgb(YELLOW)))  # missed
        True
    """
    picture = np.repeat((0.2 + 0.35 * relief)[..., None], 3, axis=-1)
    areas = (truth & prediction, ~truth & prediction, truth & ~prediction)
    for area, colour in zip(areas, ERROR_COLOURS.values(), strict=True):
        picture[area] = to_rgb(colour)
    return picture


def gradient(name: str) -> str:
    """Convert a Matplotlib colour map to a CSS gradient, for the legend.

    Example:
        >>> gradient("viridis")[:40]
        'linear-gradient(to right, rgb(68,1,84), '
    """
    stops = (colormaps[name](np.linspace(0, 1, 9))[:, :3] * 255).round().astype(int)
    return f"linear-gradient(to right, {', '.join(f'rgb({r},{g},{b})' for r, g, b in stops)})"


def picture(label: str, alt: str, colours: np.ndarray) -> Picture:
    r"""Encode colours (H, W, 3), clipped to [0, 1], as a PNG with caption and alternative text.

    Example:
        >>> picture("slope", "Slope in tile a", np.zeros((4, 4, 3))).png[:4]
        b'\x89PNG'
    """
    buffer = io.BytesIO()
    imsave(buffer, (np.clip(colours, 0, 1) * 255).round().astype(np.uint8), format="png")
    return Picture(label, alt, buffer.getvalue())
