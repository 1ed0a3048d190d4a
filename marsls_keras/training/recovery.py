"""Settings of a training attempt after earlier ones diverged or ran out of memory."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Recovery:
    """Hold batch size, accumulation and learning-rate factor of a training attempt; part of the saved state.

    They differ from the configuration after an earlier attempt ran out of memory or diverged.

    Attributes:
        batch_size: Tiles per step.
        accumulate: Batches per update.
        rollbacks: Number of times that training was rolled back because of NaN or infinite values.
        trouble: One message for each rollback or lack of memory.

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
        """Factor of every learning rate: 0.5 to the number of rollbacks."""
        return 0.5**self.rollbacks
