"""Filters of the report's template that format numbers as text, with a dash for None."""

from __future__ import annotations

from typing import Any

from marsls_keras.counts import NO_INTERVAL


def score(value: float | None) -> str:
    """Format a score with four decimals.

    Example:
        >>> score(0.8), score(None)
        ('0.8000', '–')
    """
    return "–" if value is None else f"{value:.4f}"


def interval(value: Any) -> str:
    """Format an interval of scores.

    Example:
        >>> interval((0.78, 0.87))
        '0.7800 – 0.8700'
    """
    return "–" if value is None else f"{value[0]:.4f} – {value[1]:.4f}"


def signed(value: float | None) -> str:
    """Format a difference of scores with its sign.

    Example:
        >>> signed(0.0123), signed(-0.00001)
        ('+0.0123', '+0.0000')
    """
    return "–" if value is None else f"{value:+z.4f}"


def change(interval: Any) -> str:
    """Format an interval of differences, or a note that there is none.

    Example:
        >>> change((-0.01, 0.02)), change(None)
        ('-0.0100 to +0.0200', 'no interval: one block')
    """
    return NO_INTERVAL if interval is None else " to ".join(map(signed, interval))


def number(value: Any) -> str:
    """Format a number with separators of thousands.

    Example:
        >>> number(3467605)
        '3,467,605'
    """
    return "–" if value is None else f"{value:,}"


def threshold(value: float | None) -> str:
    """Format a threshold; None stands for thresholds that differ between folds.

    Example:
        >>> threshold(0.45), threshold(None)
        ('0.45', 'per fold')
    """
    return "per fold" if value is None else f"{value:.4g}"


def percent(value: float) -> str:
    """Format a share as percent with one decimal.

    Example:
        >>> percent(0.123)
        '12.3%'
    """
    return f"{value:.1%}"


def duration(seconds: float | None) -> str:
    """Format seconds as hours:minutes:seconds.

    Example:
        >>> duration(3725)
        '1:02:05'
    """
    if seconds is None:
        return "–"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


FILTERS = {
    function.__name__: function for function in (score, interval, signed, change, number, threshold, percent, duration)
}
"""The filters by their name in the template."""
