"""Tell which bands of which rasters are the bands of a composite: by description, colour, or the file's name."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from rasterio.enums import ColorInterp

from marsls_keras.bands.names import BANDS
from marsls_keras.errors import InputError, listing
from marsls_keras.mapping.grid import open_raster
from marsls_keras.suggestions import did_you_mean

_WORDS = {"dtm": "dem", "grey": "gray"}
"""Other words for bands in descriptions and file names."""

_COLOURS = {ColorInterp.red: "red", ColorInterp.green: "green", ColorInterp.blue: "blue"}


class BandSource(NamedTuple):
    """A band of a composite and where it comes from.

    Attributes:
        name: Name of the band, one of `BANDS`.
        path: Raster file, or what else GDAL opens.
        band: Number of the band in the file, from 1 on.

    Example:
        >>> str(BandSource("dem", "hrsc.tif", 1))
        'dem from hrsc.tif'
    """

    name: str
    path: str
    band: int

    def __str__(self) -> str:
        return f"{self.name} from {self.path}" + (f", band {self.band}" if self.band > 1 else "")


def parse_band(text: str) -> BandSource:
    """Parse NAME=FILE or NAME=FILE:NUMBER.

    Raises:
        InputError: If the text has another form, the name is no band, or the file has several bands and no number is
            given.

    Example:
        >>> parse_band("red=viking.tif:1")
        BandSource(name='red', path='viking.tif', band=1)
    """
    name, equals, place = text.partition("=")
    if not equals or not place:
        raise InputError(f"--band {text}: expected NAME=FILE, such as dem=hrsc.tif, or NAME=FILE:2 for its band 2.")
    if name not in BANDS:
        raise InputError(f"--band {text}: there is no band {name}.{did_you_mean(name, BANDS)} Bands: {_listed()}.")
    path, colon, number = place.rpartition(":")
    if colon and number.isdigit():
        return BandSource(name, path, int(number))
    with open_raster(place) as raster:
        if raster.count > 1:
            raise InputError(f"--band {text}: {place} has {raster.count} bands. Say which one: {name}={place}:1.")
    return BandSource(name, place, 1)


def find_bands(files: Sequence[str | Path], given: Sequence[BandSource] = ()) -> list[BandSource]:
    """Return the bands that rasters hold, each once, in the order of `BANDS`.

    A band is named by its description, its colour interpretation, or, alone in its file, by a word of the file's name.
    Alpha bands are left out.

    Args:
        files: Rasters whose bands are to be named.
        given: Bands whose source is known; they are not looked for.

    Raises:
        InputError: If a band has no known name, or two have the same one.

    Example:
        >>> find_bands(["viking.tif", "dem.tif"])[-1]  # doctest: +SKIP
        BandSource(name='dem', path='dem.tif', band=1)
    """
    found = list(given)
    unknown = []
    for file in map(str, files):
        with open_raster(file) as raster:
            kinds, descriptions = raster.colorinterp, raster.descriptions
        for number in (i for i, kind in enumerate(kinds, 1) if kind != ColorInterp.alpha):
            if any((known.path, known.band) == (file, number) for known in given):
                continue
            name = _word(descriptions[number - 1] or "") or (_COLOURS.get(kinds[number - 1]) if len(kinds) > 2 else "")
            name = name or (_word(Path(file).stem) if len(kinds) == 1 else "")
            if name in [known.name for known in given]:
                continue  # the user wants another file for it
            if name:
                found.append(BandSource(name, file, number))
            else:
                unknown.append(f"--band NAME={file}:{number}")
    if unknown:
        raise InputError(
            f"Neither description nor file name tells which bands these are; say it, with NAME one of {_listed()}:"
            + listing(unknown)
        )
    for name in BANDS:
        several = [str(source) for source in found if source.name == name]
        if len(several) > 1:
            raise InputError(
                f"The band {name} is there {len(several)} times:{listing(several)}\n"
                f"Leave one out, or say which with --band {name}=FILE."
            )
    return sorted(found, key=lambda source: BANDS.index(source.name))


def _word(text: str) -> str:
    """Return the band that a text names by one of its words; "" if none or several do."""
    words = {_WORDS.get(word, word) for word in re.split(r"[\W_]+", text.lower())}
    named = words & set(BANDS)
    return named.pop() if len(named) == 1 else ""


def _listed() -> str:
    return ", ".join(BANDS)
