"""Groups of bands, each of which has an encoder of its own: their checks, and their part of the images."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from keras import ops


def bands_of(image: Any, bands: Sequence[str], members: Sequence[str]) -> Any:
    """Return the channels of a group of bands, in the order of the group.

    Args:
        image: Symbolic images (B, H, W, bands).
        bands: Names of the channels.
        members: Names of the group's bands.

    Returns:
        (B, H, W, members).

    Example:
        >>> import keras
        >>> bands_of(keras.Input((None, None, 3)), ["red", "dem", "gray"], ["gray", "red"]).shape
        (None, None, None, 2)
    """
    places = [bands.index(band) for band in members]
    return image if places == list(range(len(bands))) else ops.take(image, places, axis=-1)


def require_groups(bands: Sequence[str], groups: Mapping[str, Sequence[str]]) -> None:
    """Check that groups name every input band, each once.

    Args:
        bands: Names of the input bands.
        groups: Names of bands by group.

    Raises:
        ValueError: If a group has another form, or groups and bands do not fit together.

    Example:
        >>> require_groups(["red", "dem"], {"rgb": ["red"]})
        Traceback (most recent call last):
        ...
        ValueError: groups leaves out input bands: dem. The input bands are red, dem (data.bands). Received: ...
    """
    listed = all(isinstance(members, list | tuple) and members for members in groups.values())
    if (
        not groups
        or not listed
        or not all(isinstance(name, str) and re.fullmatch("[A-Za-z0-9_]*", name) for name in groups)
    ):
        raise ValueError(
            "groups must be one or more names of letters, digits and _, each with a list of bands, "
            f"such as {{rgb: [red, green, blue]}}. Received: {groups}"
        )
    named = [band for members in groups.values() for band in members]
    problems = {
        "names bands that are not among the input": [band for band in named if band not in bands],
        "names bands more than once": [band for band in dict.fromkeys(named) if named.count(band) > 1],
        "leaves out input bands": [band for band in bands if band not in named],
    }
    if found := [f"{what}: {', '.join(map(str, which))}" for what, which in problems.items() if which]:
        raise ValueError(
            f"groups {'; '.join(found)}. The input bands are {', '.join(bands)} (data.bands). "
            f"Received: { ({name: list(members) for name, members in groups.items()}) }"
        )
