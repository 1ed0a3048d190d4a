"""Partition a grid of tokens into (shifted) windows: cut, merge, attention mask and relative positions.

Sizes may be integers, and what depends on them alone is then computed once, by NumPy; or, where a graph is built for
any size, integer scalars of the backend.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from keras import ops

_MASKED = -1e9
"""Value that is added to the score of a masked pair of tokens; its exponential is 0 in float32."""


@dataclass(frozen=True)
class Axis:
    """One axis of a token grid that is partitioned into windows.

    Attributes:
        size: Length of the axis in tokens.
        window: Length of a window in tokens.
        shift: Shift of the windows in tokens; tokens are rolled back by it before they are cut.

    Example:
        >>> axis = Axis.clamped(10, window=4, shift=2)
        >>> axis.number, axis.padding
        (3, 2)
    """

    size: Any
    window: Any
    shift: Any

    @classmethod
    def clamped(cls, size: Any, window: int, shift: int) -> Axis:
        """Create an axis with the window clamped to its size, and without a shift if one window covers it."""
        if isinstance(size, int):
            return cls(size, size, 0) if size <= window else cls(size, window, shift)
        return cls(size, ops.minimum(size, window), ops.where(size <= window, 0, shift))

    @property
    def number(self) -> Any:
        """Number of windows; the last one may reach beyond the axis."""
        return -(-self.size // self.window)

    @property
    def padding(self) -> Any:
        """Number of tokens by which the last window reaches beyond the axis."""
        return self.number * self.window - self.size

    @property
    def known(self) -> bool:
        """Whether the size is an integer, known while the graph is built."""
        return isinstance(self.size, int)

    @property
    def plain(self) -> bool:
        """Whether the size is known and there is no shift or padding, so that no mask is needed."""
        return self.known and self.shift == 0 and self.padding == 0


def window_partition(maps: Any, rows: Axis, columns: Axis, groups: int = 1) -> Any:
    """Cut feature maps into windows, and their channels into groups such as heads.

    Args:
        maps: (B, H, W, C), H and W multiples of the windows.
        rows: The axis H.
        columns: The axis W.
        groups: Divisor G of C.

    Returns:
        (G, B * windows, tokens of a window, C / G), windows and tokens row by row.

    Example:
        >>> rows, columns = Axis.clamped(8, 4, 0), Axis.clamped(8, 4, 0)
        >>> tuple(window_partition(np.ones((2, 8, 8, 6), "float32"), rows, columns, groups=3).shape)
        (3, 8, 16, 2)
    """
    channels = maps.shape[-1] // groups
    x = ops.reshape(
        maps, (-1, rows.window, columns.number, columns.window, groups, channels)
    )  # (B rows, h, columns, w, G, C/G)
    x = ops.transpose(x, (4, 0, 2, 1, 3, 5))  # (G, B rows, columns, h, w, C/G)
    return ops.reshape(x, (groups, -1, rows.window * columns.window, channels))


def window_reverse(windows: Any, rows: Axis, columns: Axis) -> Any:
    """Merge windows to feature maps, the inverse of `window_partition`.

    Args:
        windows: (G, B * windows, tokens of a window, C / G).
        rows: The axis H.
        columns: The axis W.

    Returns:
        (B, H, W, C).

    Example:
        >>> rows, columns = Axis.clamped(8, 4, 0), Axis.clamped(8, 4, 0)
        >>> maps = np.arange(128, dtype="float32").reshape(1, 8, 8, 2)
        >>> bool(np.all(window_reverse(window_partition(maps, rows, columns), rows, columns) == maps))
        True
    """
    groups, _, _, channels = windows.shape
    x = ops.reshape(
        windows, (groups, -1, columns.number, rows.window, columns.window, channels)
    )  # (G, B rows, columns, h, w, C/G)
    x = ops.transpose(x, (1, 3, 2, 4, 0, 5))  # (B rows, h, columns, w, G, C/G)
    return ops.reshape(x, (-1, rows.number * rows.window, columns.number * columns.window, groups * channels))


def in_windows(maps: Any, rows: Axis, columns: Axis, attend: Callable[[Any], Any]) -> Any:
    """Apply a function to feature maps that are rolled back by the shift and padded with zeros to whole windows.

    The result is cut to the size of the maps, and rolled forth.

    Args:
        maps: (B, H, W, C).
        rows: The axis H.
        columns: The axis W.
        attend: Function of maps whose sides are multiples of the windows, to maps of the same sides.

    Returns:
        (B, H, W, any).

    Example:
        >>> rows, columns = Axis(5, 4, 2), Axis(8, 4, 2)
        >>> maps = np.arange(40, dtype="float32").reshape(1, 5, 8, 1)
        >>> bool(np.all(in_windows(maps, rows, columns, lambda x: x) == maps))
        True
    """
    shift, padding = (rows.shift, columns.shift), (rows.padding, columns.padding)
    known = rows.known and columns.known
    shifted, padded = not known or any(shift), not known or any(padding)
    x = ops.roll(maps, (-shift[0], -shift[1]), (1, 2)) if shifted else maps
    if padded:
        x = ops.pad(x, ((0, 0), (0, padding[0]), (0, padding[1]), (0, 0)))
    x = attend(x)
    if padded:
        x = x[:, : rows.size, : columns.size]
    return ops.roll(x, shift, (1, 2)) if shifted else x


def add_bias(scores: Any, bias: Any, masked: Any) -> Any:
    """Add a position bias, and the attention mask of every window, to attention scores.

    Args:
        scores: (heads, B * windows, tokens, tokens).
        bias: (heads, 1, tokens, tokens).
        masked: (windows, tokens, tokens) from `attention_mask`, or None.

    Returns:
        (heads, B * windows, tokens, tokens).

    Example:
        >>> scores, bias = np.ones((2, 6, 4, 4), "float32"), np.ones((2, 1, 4, 4), "float32")
        >>> float(add_bias(scores, bias, np.zeros((3, 4, 4), "float32"))[0, 0, 0, 0])
        2.0
    """
    if masked is None:
        return scores + bias
    heads = bias.shape[0]
    windows, tokens = ops.shape(masked)[0], ops.shape(masked)[1]
    split = ops.reshape(scores, (heads, -1, windows, tokens, tokens))
    return ops.reshape(split + (bias + masked)[:, None], (heads, -1, tokens, tokens))


def attention_mask(rows: Axis, columns: Axis) -> Any:
    """Return the mask that is added to attention scores in windows of a rolled or padded grid.

    Rolling the grid brings tokens of opposite borders into one window. These pairs, and padding, are masked.

    Returns:
        float32 (windows, tokens, tokens) of 0 and -1e9; None if it is known to be 0 everywhere.

    Example:
        >>> attention_mask(Axis.clamped(8, 4, 2), Axis.clamped(8, 4, 2)).shape
        (4, 16, 16)
        >>> attention_mask(Axis.clamped(8, 4, 0), Axis.clamped(8, 4, 0)) is None
        True
    """
    if rows.plain and columns.plain:
        return None
    xp = np if rows.known and columns.known else ops
    parts = []
    for axis in (rows, columns):
        position = xp.arange(axis.number * axis.window)
        # 0 for tokens in place, 1 for tokens rolled from the opposite border, 2 for padding.
        part = xp.where(position >= axis.size, 2, xp.where(position >= axis.size - axis.shift, 1, 0))
        parts.append(xp.reshape(part, (axis.number, axis.window)))
    part = 3 * parts[0][:, None, :, None] + parts[1][None, :, None, :]  # (rows, columns, h, w)
    part = xp.reshape(part, (-1, rows.window * columns.window))
    visible = part[:, :, None] == part[:, None, :]
    return xp.where(visible, np.float32(0), np.float32(_MASKED))


def relative_coordinates(rows: Axis, columns: Axis) -> Any:
    """Return the log-spaced relative positions of the tokens of a window, the inputs of SwinV2's position bias.

    A difference d along a window of w tokens becomes sign(d') log2(1 + |d'|) / 3 with d' = 8 d / (w - 1). The range is
    [-1.06, 1.06] for all window sizes, so that trained weights can be used with other sizes. In a window of one token
    d' is 0.

    Returns:
        float32 ((2 h - 1) * (2 w - 1), 2), rows and columns.

    Example:
        >>> axis = Axis.clamped(8, 4, 0)
        >>> relative_coordinates(axis, axis).shape
        (49, 2)
    """
    xp = np if rows.known and columns.known else ops
    axes = []
    for axis in (rows, columns):
        reach = axis.window - 1
        step = xp.arange(2 * reach + 1) - reach
        # NumPy would promote an int32 divided by an int to float64.
        scaled = 8 * _float(step) / _float(xp.maximum(reach, 1))
        axes.append(xp.sign(scaled) * xp.log2(1 + xp.abs(scaled)) / 3)
    return xp.stack([xp.reshape(table, (-1,)) for table in xp.meshgrid(*axes, indexing="ij")], axis=-1)


def relative_position_index(rows: Axis, columns: Axis) -> Any:
    """Return for each pair of tokens of a window the row of `relative_coordinates` with their relative position.

    Returns:
        int (tokens, tokens).

    Example:
        >>> axis = Axis.clamped(2, 2, 0)
        >>> relative_position_index(axis, axis).tolist()
        [[4, 3, 1, 0], [5, 4, 2, 1], [7, 6, 4, 3], [8, 7, 5, 4]]
    """
    xp = np if rows.known and columns.known else ops
    y, x = (xp.reshape(v, (-1,)) for v in xp.meshgrid(xp.arange(rows.window), xp.arange(columns.window), indexing="ij"))
    down = y[:, None] - y[None] + rows.window - 1
    right = x[:, None] - x[None] + columns.window - 1
    return down * (2 * columns.window - 1) + right


def _float(value: Any) -> Any:
    return value.astype("float32") if isinstance(value, np.ndarray | np.generic) else ops.cast(value, "float32")
