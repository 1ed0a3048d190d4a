"""Packages that only polygons need, as the extra `geo`."""

from __future__ import annotations

from importlib.util import find_spec

from marsls_keras.errors import InputError

GEO = ("shapely", "pyogrio", "pyproj")
"""Packages of the extra `geo`."""


def require_geo(purpose: str) -> None:
    """Check that the packages of the extra `geo` are installed.

    Args:
        purpose: What needs them, the subject of the message's first sentence.

    Raises:
        InputError: If one is not; the message says how to install it.

    Example:
        >>> require_geo("An inventory of polygons")
    """
    missing = [name for name in GEO if find_spec(name) is None]
    if missing:
        raise InputError(f'{purpose} needs {", ".join(missing)}: pip install "marsls-keras[geo]"')
