"""Register the releases by name, and look up bands, layouts and grid cells over all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable

from marsls_keras.bands.derived import DERIVED
from marsls_keras.bands.names import ALL
from marsls_keras.datasets import bijie, challenge, landslide4sense, mmls_v1, mmls_v2, nepal
from marsls_keras.datasets.layout import Layout
from marsls_keras.datasets.release import Release

RELEASES: dict[str, Release] = {}
"""The releases by name, in the order in which they are listed and tried for a file."""


def register(release: Release) -> None:
    """Add a release, which configuration, command line, readers, index and synthetic data can then use.

    Raises:
        ValueError: If its name is taken, or its bands, scale and offset do not fit together.

    Example:
        >>> from dataclasses import replace
        >>> register(replace(RELEASES["nepal"], name="alps", title="Alps"))
        >>> RELEASES.pop("alps").title
        'Alps'
    """
    if release.name in RELEASES or release.name == "auto":
        raise ValueError(f"There is a release {release.name!r} already.")
    if sorted(release.order) != sorted(release.bands) or len(set(release.bands)) != len(release.bands):
        raise ValueError(
            f"order and bands of {release.name} should hold the same bands, each once. Received: {release.order}"
        )
    if any(len(values) not in (0, len(release.order)) for values in (release.scale, release.offset)):
        raise ValueError(
            f"scale and offset of {release.name} should have one number a band, or none. Received: {release.scale}"
        )
    RELEASES[release.name] = release


for _module in (mmls_v1, mmls_v2, challenge, landslide4sense, bijie, nepal):
    register(_module.RELEASE)


def layouts() -> list[Layout]:
    """Return the folder layouts of all releases, each once.

    Example:
        >>> [layout.name for layout in layouts()]
        ['mars', 'landslide4sense', 'bijie', 'nepal']
    """
    return list({release.layout.name: release.layout for release in RELEASES.values()}.values())


def releases_of(layout: Layout) -> list[str]:
    """Return the names of the releases that use a folder layout.

    Example:
        >>> releases_of(RELEASES["challenge"].layout)
        ['mmls_v1', 'mmls_v2', 'challenge']
    """
    return [release.name for release in RELEASES.values() if release.layout.name == layout.name]


def known_bands() -> tuple[str, ...]:
    """Return the bands of all releases, each once.

    Example:
        >>> known_bands()[:4]
        ('red', 'green', 'blue', 'dem')
    """
    return tuple(dict.fromkeys(band for release in RELEASES.values() for band in release.bands))


def unknown_bands(names: Iterable[str]) -> list[str]:
    """Return the names that are neither a band of a release, nor a derived band, nor `ALL`.

    Example:
        >>> unknown_bands(["red", "hillshade", "all", "elevation"])
        ['elevation']
    """
    known = (ALL, *known_bands(), *DERIVED)
    return [name for name in names if name not in known]


def grid_key(stem: str) -> tuple[int, int] | None:
    """Parse the grid cell (row, column) from the stem of a file, in the form of any release; None if there is none.

    Example:
        >>> grid_key("Image_patch_3_12"), grid_key("siteA_col00001_row00002"), grid_key("10001")
        ((3, 12), (2, 1), None)
    """
    match = cell_match(stem)
    return None if match is None else (int(match["row"]), int(match["col"]))


def cell_match(stem: str) -> re.Match[str] | None:
    """Return the match of the grid cell in the stem of a file; None if there is none.

    Example:
        >>> match = cell_match("siteA_col00001_row00002")
        >>> match.start(), match["row"]
        (6, '00002')
    """
    patterns = dict.fromkeys(release.cell for release in RELEASES.values() if release.cell is not None)
    return next((match for pattern in patterns if (match := pattern.search(stem))), None)
