"""Predict a part of a raster with all members of an ensemble, in overlapping windows with smooth weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from marsls_keras.inference.averaging import gather, shares, spread
from marsls_keras.inference.decision import Decision
from marsls_keras.inference.member import Member, predict_inputs
from marsls_keras.inference.sliding_window import blend
from marsls_keras.inference.uncertainty import RunningVariance, entropy
from marsls_keras.mapping.canvas import Canvas, fill_gaps
from marsls_keras.mapping.lattice import Lattice
from marsls_keras.mapping.raster import Box, Raster
from marsls_keras.view_sets import split_view, views_of

_ROWS = 256
"""Rows that are normalised at a time, which bounds the memory for intermediate results."""


@dataclass(frozen=True)
class Ensemble:
    """Loaded members, and how their predictions become a probability.

    Attributes:
        members: Loaded folds of all runs.
        decision: Views, weights of runs and averaging.

    Example:
        >>> ensemble = Ensemble([load_member(run, 0)], Decision(views="d4"))  # doctest: +SKIP
    """

    members: Sequence[Member]
    decision: Decision

    @property
    def weights(self) -> Mapping[str, float]:
        """Weight of each run, with sum 1; runs of weight 0 are left out."""
        return shares(self.decision.run_weights, list(dict.fromkeys(member.run.name for member in self.members)))


def predict_box(
    ensemble: Ensemble,
    canvas: Canvas,
    box: Box,
    raster: Raster,
    lattice: Lattice,
    uncertainty: bool = False,
    advance: Callable[[int], None] = lambda windows: None,
) -> np.ndarray:
    """Predict a box of a raster in all windows, views and members, and average as `predict_ensemble` does.

    All members predict everywhere: nobody knows which pixels of a raster were training tiles.

    Args:
        ensemble: The members and the decision.
        canvas: What the windows see (`marsls_keras.mapping.canvas.read_canvas`).
        box: The box to predict, inside the raster.
        raster: The raster, of which only the size is used.
        lattice: The windows.
        uncertainty: Whether to compute variance and entropy.
        advance: Function that is called with the number of windows that were predicted.

    Returns:
        float32 (1 or 3, H, W): probability; then the variance over members and views and the entropy of the probability
        in bits. NaN where a band that networks read has no data.

    Example:
        >>> predict_box(ensemble, canvas, Box(0, 0, 512, 512), raster, lattice).shape  # doctest: +SKIP
        (1, 512, 512)
    """
    known = canvas.part(canvas.known, box)
    result = np.full((3 if uncertainty else 1, box.height, box.width), np.nan, np.float32)
    places = [
        place
        for place in lattice.places(box, raster.height, raster.width)
        if known[_overlap(place, box, lattice.window)[0]].any()
    ]
    if not places:
        return result
    windows = _Windows(canvas, raster, lattice)
    averaging, weights = ensemble.decision.averaging, ensemble.weights
    views = [split_view(view)[0] for view in views_of(ensemble.decision.view_set)]
    total, whole = np.zeros((box.height, box.width), np.float32), 0.0
    variance = RunningVariance((1, box.height, box.width)) if uncertainty else None
    for member in ensemble.members:
        if (share := weights.get(member.run.name, 0.0)) == 0:
            continue
        batch = max(1, member.run.config.inference.batch_size * lattice.tile**2 // lattice.window**2)
        windows.normalize(member)
        for view in views:
            seen = _blended(member, windows, places, box, view, batch, advance)
            total += spread(seen, averaging) * np.float32(share)
            if variance is not None:
                variance.add(np.zeros(1, int), seen[None], share)
            whole += share
    probability = gather(total / np.float32(whole), averaging)
    result[0, known] = probability[known]
    if variance is not None:
        result[1, known] = variance.result()[0][known]
        result[2, known] = entropy(probability)[known]
    return result


def _blended(
    member: Member,
    windows: _Windows,
    places: Sequence[tuple[int, int]],
    box: Box,
    view: str,
    batch: int,
    advance: Callable[[int], None],
) -> np.ndarray:
    """Return the weighted mean over windows of the probability in one view, float32 (H, W); 0 where no window is."""
    side = windows.lattice.window
    total, weights = np.zeros((2, box.height, box.width), np.float32)
    weight = blend(side)
    for first in range(0, len(places), batch):
        chosen = places[first : first + batch]
        found = predict_inputs(member, windows.inputs(chosen), view, batch).probability
        for place, probability in zip(chosen, found, strict=True):
            here, there = _overlap(place, box, side)
            total[here] += probability[there] * weight[there]
            weights[here] += weight[there]
        advance(len(chosen))
    return np.divide(total, weights, out=total, where=weights > 0)


def _overlap(place: tuple[int, int], box: Box, side: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Return the slices of the overlap of a window and a box, in pixels of the box and of the window."""
    down, right = place[0] - box.top, place[1] - box.left
    here = (slice(max(down, 0), down + side), slice(max(right, 0), right + side))
    height, width = min(down + side, box.height) - here[0].start, min(right + side, box.width) - here[1].start
    top, left = max(-down, 0), max(-right, 0)
    return here, (slice(top, top + height), slice(left, left + width))


class _Windows:
    """Cut normalised windows from a canvas.

    Windows that are alone are tiles: their gaps are filled inside them, and percentiles are theirs. In windows across
    the borders of tiles, cells without data and what lies beyond the raster are 0 after normalisation, as in training.

    Args:
        canvas: The canvas.
        raster: The raster.
        lattice: The windows.
    """

    def __init__(self, canvas: Canvas, raster: Raster, lattice: Lattice) -> None:
        self.lattice, self._canvas = lattice, canvas
        self._gaps = np.isnan(canvas.image).any(-1)
        self._outside = np.ones(self._gaps.shape, bool)
        top, left = canvas.box.top, canvas.box.left
        self._outside[max(-top, 0) : raster.height - top, max(-left, 0) : raster.width - left] = False
        self._filled: dict[tuple[int, int], np.ndarray] = {}

    def normalize(self, member: Member) -> None:
        """Normalise the canvas as a member needs it."""
        self._member = member
        self._normal: np.ndarray | None = None
        if member.normalizer.percentiles is not None:
            return  # each window is stretched by itself
        image, bands = self._canvas.image, self._canvas.bands
        normal = np.empty((*image.shape[:2], len(member.normalizer.directions.carried)), np.float32)
        for first in range(0, len(image), _ROWS):
            rows = slice(first, first + _ROWS)
            normal[rows] = member.normalizer.apply(image[None, rows], bands)[0]
        if not self.lattice.alone:
            normal[self._gaps | self._outside] = 0
        self._normal = normal

    def inputs(self, places: Sequence[tuple[int, int]]) -> np.ndarray:
        """Return normalised windows, float32 (n, window, window, carried bands)."""
        return np.stack([self._input(place) for place in places])

    def _input(self, place: tuple[int, int]) -> np.ndarray:
        box = Box(*place, self.lattice.window, self.lattice.window)
        whole = not self.lattice.alone or not self._canvas.part(self._gaps, box).any()
        if whole and self._normal is not None:
            return self._canvas.part(self._normal, box)
        if whole:
            image = self._canvas.part(self._canvas.image, box)
        else:
            if place not in self._filled:  # the same for all members and views
                self._filled[place] = self._canvas.part(self._canvas.image, box).copy()
                fill_gaps(self._filled[place])
            image = self._filled[place]
        return self._member.normalizer.apply(image[None], self._canvas.bands)[0]
