"""Which runs the challenge takes submissions of."""

from __future__ import annotations

from marsls_keras.datasets import RELEASES
from marsls_keras.runs.run import Run


def for_challenge(run: Run) -> bool:
    """Return whether a run was trained on tiles of the challenge's layout, so that CodaBench could take its masks.

    Example:
        >>> for_challenge(Run.open("runs/default"))  # doctest: +SKIP
        True
    """
    return RELEASES[run.fingerprint["release"]].layout is RELEASES["challenge"].layout
