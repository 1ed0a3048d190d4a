"""Which runs the challenge takes submissions of."""

from __future__ import annotations

from marsls_keras.datasets import RELEASES
from marsls_keras.runs.run import Run


def for_challenge(run: Run) -> bool:
    """Return whether a run is of the Mars-LS challenge's kind of tiles, so that CodaBench could take its masks."""
    return RELEASES[run.fingerprint["release"]].layout is RELEASES["challenge"].layout
