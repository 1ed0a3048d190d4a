"""Views of test-time augmentation: their names, named and joined sets of them, and the syntax of views of windows."""

from __future__ import annotations

import re
from collections.abc import Sequence

from marsls_keras.errors import InputError
from marsls_keras.suggestions import did_you_mean

# Each view is a number of quarter turns (counter-clockwise), after an optional mirroring of the columns.
SYMMETRIES: dict[str, tuple[int, bool]] = {
    "identity": (0, False),
    "horizontal_flip": (0, True),
    "vertical_flip": (2, True),
    "rot90": (1, False),
    "rot180": (2, False),
    "rot270": (3, False),
    "transpose": (1, True),
    "antitranspose": (3, True),
}


VIEWS = tuple(SYMMETRIES)
"""Names of the symmetries."""


GRAIN = 32
"""Views that change the size of images keep its sides multiples of this, since encoders halve them five times."""


VIEW_SETS: dict[str, tuple[str, ...]] = {
    "identity": ("identity",),
    "flips": ("identity", "horizontal_flip", "vertical_flip", "rot180"),
    "paper": ("identity", "horizontal_flip", "vertical_flip", "rot90"),
    "rotations": ("identity", "rot90", "rot180", "rot270"),
    "d4": VIEWS,
    "shifts": ("identity", "shift_8", "shift_16", "shift_24"),
    "scales": ("identity", "scale_0.75", "scale_1.25"),
    "d4_scales": (*VIEWS, "scale_0.75", "scale_1.25"),
}
"""Named sets of views whose predictions are averaged; "paper" is the set of DualSwinFusionSeg (PBVS 2026)."""


def split_view(view: str) -> tuple[str, int | None, int | None]:
    """Parse the name of a view, "<view>" or "<view>@<window>/<stride>".

    Returns:
        Name of the view of an image, and side and stride of windows in pixels, None for a view of single tiles.

    Example:
        >>> split_view("rot90@256/128")
        ('rot90', 256, 128)
    """
    plain, at, sizes = view.partition("@")
    if not at:
        return plain, None, None
    window, stride = sizes.split("/")
    return plain, int(window), int(stride)


def of_windows(name: str) -> bool:
    """Return whether a set has views of windows across tile borders instead of single tiles.

    Example:
        >>> of_windows("d4@256")
        True
    """
    return "@" in name


def views_of(name: str) -> Sequence[str]:
    """Return the names of the views of a set.

    "<name>+<name>" joins sets and single views, such as "horizontal_flip+vertical_flip", each view once.

    "<set>@<window>" has the views of the set on overlapping windows of the raster that the tiles were cut from, instead
    of single tiles, with a stride of half a window. "<set>@<window>/<stride>" sets the stride.

    Raises:
        InputError: If there is no such set or view, or windows are smaller than 32 pixels or leave gaps.

    Example:
        >>> views_of("scales@64")
        ('identity@64/32', 'scale_0.75@64/32', 'scale_1.25@64/32')
        >>> views_of("identity+horizontal_flip")
        ('identity', 'horizontal_flip')
    """
    plain, at, sizes = name.partition("@")
    known = {**{view: (view,) for view in VIEWS}, **VIEW_SETS}
    for part in plain.split("+"):
        if part not in known:
            raise InputError(
                f"There is no set of views {name!r}.{did_you_mean(part, known)} "
                f"Known: {', '.join(VIEW_SETS)}, and the views {', '.join(VIEWS)}; joined by +, such as "
                "identity+horizontal_flip; each also as <set>@<window>."
            )
    views = tuple(dict.fromkeys(view for part in plain.split("+") for view in known[part]))
    if not at:
        return views
    match = re.fullmatch(r"(\d+)(?:/(\d+))?", sizes)
    window = int(match[1]) if match else 0
    stride = int(match[2] or window // 2) if match else 0
    if window < GRAIN or not 0 < stride <= window:
        raise InputError(
            f"Views {name!r}: expected the side of windows in pixels, {GRAIN} or more, and, if not half of it, "
            f"how far apart they are, at most that side, such as {plain}@256 or {plain}@256/64."
        )
    return tuple(f"{view}@{window}/{stride}" for view in views)
