"""Tiles to predict, together with the tiles around them that windows see."""

from __future__ import annotations

from dataclasses import dataclass

from marsls_keras.data.decoded.tiles import Tiles
from marsls_keras.data.index.tile_ref import TileRef


@dataclass(frozen=True)
class PredictionInputs:
    """Tiles to predict, followed by the tiles around them that windows see.

    Attributes:
        tiles: All tiles, those to predict first.
        number: Number of tiles to predict, N.

    Example:
        >>> inputs = PredictionInputs.alone(tiles)  # doctest: +SKIP
        >>> predict_ensemble([run], [0], inputs, ["identity"]).probability.shape  # doctest: +SKIP
        (4, 128, 128)
    """

    tiles: Tiles
    number: int

    @classmethod
    def alone(cls, tiles: Tiles) -> PredictionInputs:
        """Create inputs in which all tiles are to be predicted, without others around them."""
        return cls(tiles, len(tiles))

    @property
    def wanted(self) -> Tiles:
        """The N tiles to predict."""
        return self.tiles if not self.surroundings else self.tiles.subset(range(self.number))

    @property
    def refs(self) -> tuple[TileRef, ...]:
        """References of the N tiles to predict."""
        return self.tiles.refs[: self.number]

    @property
    def surroundings(self) -> int:
        """Number of tiles that are not predicted, but that windows may see."""
        return len(self.tiles) - self.number
