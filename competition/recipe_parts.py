"""Check that the loss terms, network and options of a configuration exist."""

from __future__ import annotations

from marsls_keras.config import Config
from marsls_keras.losses import read_loss
from marsls_keras.models import encoder_levels, require_encoder, require_options


def require_parts(config: Config) -> None:
    """Raise an error if a configuration has an unknown loss term, network or option.

    The network is not built, so errors that only show then are not found.

    Raises:
        InputError: If anything is unknown or out of range.

    Example:
        >>> require_parts(Config(model={"name": "unet", "options": {"depth": 3}}))
    """
    read_loss(config.loss)
    require_options(config.model.name, config.model.options)
    require_encoder(config.training, encoder_levels(config.model.name, config.model.options))
