"""What training does differently from its configuration, after something went wrong."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recovery:
    """Batch size, accumulation and learning rate of an attempt, after earlier ones ran out of memory or diverged; part of the saved state.

    Attributes:
        batch_size: Tiles a step.
        accumulate: Steps an update.
        rollbacks: How often training went back because of NaN or infinite values.
        trouble: What happened, a line each.

    Example:
        >>> Recovery(batch_size=8, accumulate=2, rollbacks=1).factor
        0.5
    """

    batch_size: int
    accumulate: int
    rollbacks: int = 0
    trouble: tuple[str, ...] = ()

    @property
    def factor(self) -> float:
        """What the learning rate is multiplied by."""
        return 0.5**self.rollbacks
