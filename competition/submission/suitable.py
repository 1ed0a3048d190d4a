"""Tell whether CodaBench accepts submissions of a run."""

from __future__ import annotations

from marsls_keras.datasets import RELEASES
from marsls_keras.runs.run import Run


def for_challenge(run: Run) -> bool:
    """Return whether a run was trained on tiles in the challenge's folder layout, so that CodaBench accepts its masks.

    Example:
        >>> for_challenge(Run.open("runs/default"))  # doctest: +SKIP
        True
    """
    return RELEASES[run.fingerprint["release"]].layout is RELEASES["challenge"].layout
