"""Chart of the expected and the leaderboard's mIoU of submissions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from marsls_keras.report.plots import BLUE, GREEN, GREY, ORANGE, plain

_PHASES = ((BLUE, "o"), (ORANGE, "s"), (GREEN, "^"))


@dataclass(frozen=True)
class Answer:
    """Leaderboard score of a submission, and the score that was expected.

    Attributes:
        name: Name of the submission.
        phase: Phase of the challenge, as text; may be empty.
        score: The leaderboard's mIoU.
        expected: The mIoU that was expected, None if nothing was.
        interval: Its 95 % interval, None if there is none.

    Example:
        >>> Answer("submission_01", "dev", score=0.81, expected=0.83, interval=(0.78, 0.87)).score
        0.81
    """

    name: str
    phase: str
    score: float
    expected: float | None
    interval: tuple[float, float] | None


def leaderboard_chart(answers: Sequence[Answer]) -> Figure | None:
    """Plot the leaderboard's mIoU against the expected one, with its interval; None without an expectation.

    Example:
        >>> answers = [Answer("submission_01", "dev", score=0.81, expected=0.83, interval=(0.78, 0.87))]
        >>> leaderboard_chart(answers).axes[0].get_ylabel()
        'mIoU of the leaderboard'
    """
    drawn = [answer for answer in answers if answer.expected is not None]
    if not drawn:
        return None
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    for i, phase in enumerate(sorted({answer.phase for answer in drawn})):
        group = [answer for answer in drawn if answer.phase == phase]
        expected = np.array([answer.expected for answer in group], float)
        bounds = np.array([answer.interval or (answer.expected, answer.expected) for answer in group], float)
        colour, marker = _PHASES[i % len(_PHASES)]
        # Percentile intervals, which earlier versions wrote into the ledger, may lie to one side of their score.
        reach = np.maximum([expected - bounds[:, 0], bounds[:, 1] - expected], 0)
        label = f"phase {phase} ({len(group)})" if phase else f"no phase ({len(group)})"
        actual = [answer.score for answer in group]
        axes.errorbar(
            expected, actual, xerr=reach, fmt=marker, color=colour, ecolor=colour, elinewidth=1, capsize=3, label=label
        )
    limits = axes.get_xlim(), axes.get_ylim()
    low, high = max(min(pair[0] for pair in limits), 0), min(max(pair[1] for pair in limits), 1)
    axes.plot([low, high], [low, high], color=GREY, linewidth=0.8, linestyle=(0, (4, 3)), zorder=0, label="as expected")
    axes.set(xlim=(low, high), ylim=(low, high), aspect="equal")
    axes.set(xlabel="expected mIoU, with its 95 % interval", ylabel="mIoU of the leaderboard")
    figure.legend(fontsize=8, frameon=False, ncols=3, loc="outside lower center")
    plain(axes)
    return figure
