"""The bands, their one canonical order, and how each release of the dataset differs from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from marsls_keras.bands.derived import DERIVED
from marsls_keras.errors import InputError
from marsls_keras.suggestions import did_you_mean

BANDS = ("red", "green", "blue", "dem", "slope", "thermal", "gray")
"""Canonical order of the bands of a Mars tile in every array of this package."""

SENTINEL = (
    *("coastal", "blue", "green", "red", "red_edge1", "red_edge2", "red_edge3", "nir", "water_vapour", "cirrus", "swir1", "swir2"),
    *("slope", "dem"),
)
"""Bands of a Landslide4Sense tile: B1 to B12 by what Sentinel-2 measures there (RMAU-Net, Table I), slope (B13) and height (B14)."""

ALL = "all"
"""In a list of bands: all those that the tiles hold, in their order."""

RGB = ("red", "green", "blue")
"""The bands that photometric augmentation may touch; the others are physical quantities."""


@dataclass(frozen=True)
class Release:
    """How a release stores its tiles.

    Attributes:
        name: Name of the release.
        order: Band names in the order of the file.
        scale: Per band in file order; canonical value = (stored value - offset) / scale.
        offset: See scale.
        family: Releases of one family have the same canonical values, so that a run trained on one predicts the other.
        description: One line for tables and messages.
        bands: Band names in canonical order.
        layout: Name of the folder layout that its tiles lie in (see marsls_keras/data/index/folder_layouts.py).
        relief: Metres of height that 1 of the band dem stands for.
        pixel: Side of a pixel in metres.
        limit: Beyond this, up or down, a stored value is of no band: the file is damaged, or marks no-data in an unknown way.
        no_data: Per band the stored value that stands for no data; bands without one are not in it.
        reading: Version of how its files are read, raised when pixels come to mean something else: a run that was trained on another
            version is refused.
    """

    name: str
    order: tuple[str, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    family: str
    description: str
    bands: tuple[str, ...] = BANDS
    layout: str = "mars"
    relief: float = 12822.0
    pixel: float = 232.0
    limit: float = 1e6  # metres of height are the largest
    no_data: Mapping[str, float] = field(default_factory=dict)
    reading: int = 1

    def missing(self, image: np.ndarray) -> np.ndarray:
        """Return where a stored image (H, W, C) holds what stands for no data in its band, bool (H, W, C)."""
        # A band without such a value is compared with NaN, which nothing equals.
        return image == np.array([self.no_data.get(band, np.nan) for band in self.order], np.float32)

    def to_canonical(self, image: np.ndarray) -> np.ndarray:
        """Return a stored image (H, W, C) as float32 (H, W, C) in canonical order and scale."""
        values = (image.astype(np.float64) - self.offset) / self.scale
        return values[..., [self.order.index(band) for band in self.bands]].astype(np.float32)

    def from_canonical(self, image: np.ndarray) -> np.ndarray:
        """Return a canonical image (H, W, C) as float32 (H, W, C) in the order and scale of the file."""
        values = image[..., [self.bands.index(band) for band in self.order]].astype(np.float64)
        return (values * self.scale + self.offset).astype(np.float32)


RELEASES = {
    release.name: release
    for release in (
        Release(
            "mmls_v1",
            ("red", "green", "blue", "dem", "thermal", "slope", "gray"),
            (1.0,) * 7,
            (0.0,) * 7,
            "mmls_v1",
            "MarsLS-Net's dataset: values in [0, 1], Image_patch_<row>_<col>.tif",
            no_data={"thermal": 0.0},
            reading=2,  # 1 took the names of thermal and slope as documented, and the gaps of thermal for values
        ),
        Release("mmls_v2", BANDS, (1.0,) * 7, (0.0,) * 7, "mmls_v2", "public MMLSv2: values in [0, 1], col<col>_row<row>.tif"),
        Release(
            "challenge",
            ("thermal", "slope", "dem", "gray", "red", "green", "blue"),
            (254.0, 62.8026087, 12822.0, 254.0, 189.0, 213.0, 237.0),
            (0.0, 0.0, -5834.0, 0.0, 18.0, 18.0, 18.0),
            "mmls_v2",
            "Mars-LS challenge: the tiles of MMLSv2 with raw values and another band order",
        ),
        Release(
            "landslide4sense",
            SENTINEL,
            (1.0,) * 14,
            (0.0,) * 14,
            "landslide4sense",
            "Landslide4Sense: 14 bands of Sentinel-2 and ALOS PALSAR, image_<n>.h5",
            bands=SENTINEL,
            layout="landslide4sense",
            relief=1000.0,
            pixel=10.0,
            limit=1e5,  # published scaled to about 1; counts of Sentinel-2 and metres of height would still pass
        ),
        Release("bijie", RGB, (255.0,) * 3, (0.0,) * 3, "rgb", "Bijie: RGB of TripleSat, PNG", bands=RGB, layout="bijie", limit=255),
        Release("nepal", RGB, (255.0,) * 3, (0.0,) * 3, "rgb", "Nepal: RGB of Landsat 8, TIFF", bands=RGB, layout="nepal", limit=255),
    )
}
"""The releases by name. The challenge's scale and offset per band are those that turn its raw values into MMLSv2's. RGB of eight bits is
brought to [0, 1], whatever satellite took it. The documentation of mmls_v1 says slope, thermal; its files hold thermal, slope, as Figure 3
of the MarsLS-Net paper has them: the sixth band follows the gradient of the DEM (r = 0.96 over all tiles; in degrees, at the relief of
MMLSv2, it is 63.7 times that band), the fifth does not (r = 0.22). The fifth is 0, no data, along a seam through six tiles, and above 0.87
elsewhere. Heights of Landslide4Sense were published scaled, how is unknown: 1 km is assumed, which decides how steep a hillshade looks,
and not where a slope faces."""

KNOWN_BANDS = tuple(dict.fromkeys(band for release in RELEASES.values() for band in release.bands))
"""Every band that tiles of some release hold."""


def unknown_bands(names: Iterable[str]) -> list[str]:
    """Return those of the names that no release knows, that are no derived bands, and that are not `ALL`."""
    return [name for name in names if name not in (ALL, *KNOWN_BANDS, *DERIVED)]


def expand_bands(names: Sequence[str], stored: Sequence[str]) -> tuple[str, ...]:
    """Return names of bands with `ALL` replaced by the bands that tiles hold, each once.

    Args:
        names: Names, as in the configuration's `data.bands`.
        stored: The bands that the tiles hold, perhaps with derived ones, which `ALL` leaves out.

    Raises:
        InputError: If the tiles do not hold one of them, or what it is derived from.
    """
    own = [band for band in stored if band not in DERIVED]
    found = tuple(dict.fromkeys(band for name in names for band in (own if name == ALL else (name,))))
    absent = [band for band in found if band not in own and band not in DERIVED]
    if absent:
        raise InputError(
            f"data.bands: the tiles have no band {', '.join(absent)}.{did_you_mean(absent[0], own)} They have {', '.join(own)}."
        )
    for band in found:
        if band in DERIVED and (lacking := [source for source in DERIVED[band].sources if source not in own]):
            raise InputError(f"data.bands: {band} is derived from {', '.join(lacking)}, and the tiles have {', '.join(own)}.")
    return found
