"""Window partition: cutting and merging, masks and offsets against loops, for static and dynamic sizes."""

import numpy as np
import pytest
import tensorflow as tf

from marsls_keras.layers.window_partition import (
    Axis,
    attention_mask,
    relative_coordinates,
    relative_position_index,
    window_partition,
    window_reverse,
)

GRIDS = [
    ((8, 8), 4, 2),
    ((8, 12), 4, 0),
    ((4, 8), 8, 4),
    ((6, 9), 4, 2),
    ((3, 5), 2, 1),
    ((1, 7), 3, 1),
    ((2, 2), 1, 0),
]


def axes(size, window, shift):
    return tuple(Axis.clamped(n, window, shift) for n in size)


@pytest.mark.parametrize(
    "size,clamped,number,padding",
    [(8, (4, 2), 2, 0), (4, (4, 0), 1, 0), (3, (3, 0), 1, 0), (1, (1, 0), 1, 0), (5, (4, 2), 2, 3), (9, (4, 2), 3, 3)],
)
def test_the_window_is_clamped_to_the_axis_and_then_not_shifted(size, clamped, number, padding):
    for value in (size, tf.constant(size)):
        axis = Axis.clamped(value, 4, 2)
        assert (int(axis.window), int(axis.shift)) == clamped
        assert (int(axis.number), int(axis.padding)) == (number, padding)
    assert Axis.clamped(size, 4, 2).known and not Axis.clamped(tf.constant(size), 4, 2).known


@pytest.mark.parametrize("groups", [1, 3])
def test_windows_hold_the_right_tokens_and_reverse_undoes_it(groups):
    rows, columns = Axis(4, 2, 0), Axis(6, 3, 1)
    maps = np.arange(2 * 4 * 6 * 6).reshape(2, 4, 6, 6).astype("float32")
    windows = np.array(window_partition(maps, rows, columns, groups))
    assert windows.shape == (groups, 2 * 4, 6, 6 // groups)
    expected = [
        [
            [maps[b, 2 * i + y, 3 * j + x, 6 // groups * g : 6 // groups * (g + 1)] for y in range(2) for x in range(3)]
            for b in range(2)
            for i in range(2)
            for j in range(2)
        ]
        for g in range(groups)
    ]
    assert np.array_equal(windows, expected)
    assert np.array_equal(window_reverse(windows, rows, columns), maps)


@pytest.mark.parametrize("size,window,shift", GRIDS)
def test_the_mask_closes_padding_and_what_the_roll_brought_together(size, window, shift):
    rows, columns = axes(size, window, shift)
    number = [-(-n // axis.window) for n, axis in zip(size, (rows, columns), strict=True)]
    padded = [m * axis.window for m, axis in zip(number, (rows, columns), strict=True)]
    # Each place of the rolled and padded grid: where its token lies in the grid, or None.
    origin = {}
    for y in range(padded[0]):
        for x in range(padded[1]):
            real = y < size[0] and x < size[1]
            origin[y, x] = ((y + rows.shift) % size[0], (x + columns.shift) % size[1]) if real else None
    expected = []
    for i in range(number[0]):
        for j in range(number[1]):
            places = [
                (i * rows.window + a, j * columns.window + b) for a in range(rows.window) for b in range(columns.window)
            ]
            table = np.zeros((len(places),) * 2, bool)
            for p, one in enumerate(places):
                for q, other in enumerate(places):
                    a, b = origin[one], origin[other]
                    # Neighbours keep their distance: (a - b) is the difference of the places.
                    near = a is not None and b is not None and all(a[k] - b[k] == one[k] - other[k] for k in (0, 1))
                    table[p, q] = near
            expected.append(table)
    expected = np.array(expected)
    found = attention_mask(rows, columns)
    if found is None:
        assert expected.all()
    else:
        real = np.array([[t for t in table] for table in expected]).any(-1)  # padding may see padding: it is cut off
        assert np.array_equal((found == 0)[real], expected[real]) and set(np.unique(found)) <= {0, np.float32(-1e9)}
    unknown = tuple(Axis.clamped(tf.constant(n), window, shift) for n in size)
    assert np.array_equal(attention_mask(*unknown), np.zeros_like(expected, np.float32) if found is None else found)


@pytest.mark.parametrize("size,window,shift", GRIDS)
def test_offsets_are_those_of_each_pair(size, window, shift):
    rows, columns = axes(size, window, shift)

    def spaced(difference, side):
        value = 8 * difference / max(side - 1, 1)
        return np.sign(value) * np.log2(1 + abs(value)) / np.log2(8)

    h, w = rows.window, columns.window
    tokens = [(y, x) for y in range(h) for x in range(w)]
    expected = [[(spaced(a - c, h), spaced(b - d, w)) for c, d in tokens] for a, b in tokens]
    table, index = relative_coordinates(rows, columns), relative_position_index(rows, columns)
    assert table.shape == ((2 * h - 1) * (2 * w - 1), 2) and table.dtype == np.float32
    assert table[index] == pytest.approx(np.array(expected), abs=1e-6) and np.isfinite(table).all()
    unknown = tuple(Axis.clamped(tf.constant(n), window, shift) for n in size)
    assert np.array(relative_coordinates(*unknown)) == pytest.approx(table, abs=1e-6)
    assert np.array_equal(relative_position_index(*unknown), index)
