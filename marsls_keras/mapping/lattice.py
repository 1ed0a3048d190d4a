"""Positions of the overlapping windows in which a raster is predicted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marsls_keras.errors import InputError
from marsls_keras.inference.sliding_window import require_whole_picture
from marsls_keras.inference.tta import viewed_size
from marsls_keras.mapping.raster import Box
from marsls_keras.models import require_size
from marsls_keras.runs.run import Run
from marsls_keras.view_sets import split_view, views_of


@dataclass(frozen=True)
class Lattice:
    """Windows of one size at regular positions over a raster.

    Attributes:
        tile: Side in pixels of the tiles that the networks were trained on.
        window: Side of a window in pixels.
        stride: Spacing of windows in pixels.
        alone: Whether each window is predicted like a tile by itself, so that none reaches beyond the raster. Else the
            windows lie as `marsls predict` puts them over tiles that are cut from the raster's upper left corner on.

    Example:
        >>> Lattice(tile=128, window=128, stride=64, alone=True).starts(0, 100, size=300)
        [0, 64]
    """

    tile: int
    window: int
    stride: int
    alone: bool

    def starts(self, first: int, end: int, size: int) -> list[int]:
        """Return the first pixels, along one axis, of the windows that overlap the pixels from `first` to before `end`.

        Windows that are alone begin at multiples of the stride; one more ends with the raster. Others lie on the
        lattice of `marsls_keras.inference.sliding_window.corners`, and the outermost reach beyond the raster.

        Args:
            first: First pixel.
            end: Pixel after the last one.
            size: Pixels of the raster along this axis.
        """
        if self.alone:
            last = max(size - self.window, 0)
            found = [*range(0, last, self.stride), last]
            return [start for start in found if first - self.window < start < end]
        # The plane of `TileGrid` begins so many cells before the first tile, and the lattice is anchored there.
        ahead = -(-self.window // self.tile) + 1
        anchor = -((self.window - self.tile) // 2) - ahead * self.tile
        lowest = (first - self.window - anchor) // self.stride + 1
        return [anchor + k * self.stride for k in range(lowest, (end - 1 - anchor) // self.stride + 1)]

    def span(self, box: Box, height: int, width: int) -> Box:
        """Return the box of all windows that overlap a box of a raster of this height and width."""
        rows = self.starts(box.top, box.top + box.height, height)
        columns = self.starts(box.left, box.left + box.width, width)
        return Box(rows[0], columns[0], rows[-1] - rows[0] + self.window, columns[-1] - columns[0] + self.window)

    def places(self, box: Box, height: int, width: int) -> list[tuple[int, int]]:
        """Return (top, left) of the windows that overlap a box, in reading order; args as in `span`."""
        rows = self.starts(box.top, box.top + box.height, height)
        columns = self.starts(box.left, box.left + box.width, width)
        return [(top, left) for top in rows for left in columns]


def lattice_of(runs: Sequence[Run], view_set: str, stride: int | None = None) -> Lattice:
    """Return the windows for a set of views: those it names, else windows of a training tile with half its stride.

    Args:
        runs: The runs that predict.
        view_set: Name of a set of views (`marsls_keras.view_sets`).
        stride: Spacing of windows in pixels, for views of single tiles only; half a tile by default.

    Raises:
        InputError: If the runs were trained on tiles of different sizes, on resized tiles or on tiles that are not
            square, a network cannot take such windows, or `stride` does not fit.

    Example:
        >>> lattice_of([Run.open("runs/base")], "d4@256")  # doctest: +SKIP
        Lattice(tile=128, window=256, stride=128, alone=False)
    """
    sides = {run.name: run.fingerprint["size"] for run in runs}
    if resized := [run.name for run in runs if run.config.data.resize is not None]:
        raise InputError(
            f"Run {resized[0]} resizes its tiles (data.resize), so its pixels are not those of a raster. "
            "Train one without data.resize."
        )
    if len({side for size in sides.values() for side in size}) > 1:
        found = ", ".join(f"{name} {height} x {width}" for name, (height, width) in sides.items())
        raise InputError(f"A map needs runs that were trained on square tiles of one size, found {found}.")
    tile = next(iter(sides.values()))[0]
    views = views_of(view_set)
    _, window, spacing = split_view(views[0])
    if window is None or spacing is None:
        spacing = tile // 2 if stride is None else stride
        if not 0 < spacing <= tile:
            raise InputError(f"--stride {stride}: expected 1 to {tile}, the side of a tile, so that no gap is left.")
        lattice = Lattice(tile, tile, spacing, alone=True)
    elif stride is None:
        lattice = Lattice(tile, window, spacing, alone=False)
    else:
        raise InputError(f"--stride: the decision has views {view_set}, which say how far apart windows are.")
    for run in runs:
        for view in views:
            size = viewed_size(split_view(view)[0], lattice.window, lattice.window)
            require_size(run.config.model.name, run.config.model.options, *size)
        if not lattice.alone:
            require_whole_picture(run.config.data.normalization.percentiles, view_set)
    return lattice
