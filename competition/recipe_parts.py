"""Whether the parts that a configuration names are there: its loss terms, its network and that one's options."""

from __future__ import annotations

from marsls_keras.config import Config
from marsls_keras.losses import read_loss
from marsls_keras.models import encoder_levels, require_encoder, require_options


def require_parts(config: Config) -> None:
    """Refuse a configuration whose loss, network or options there are not, as far as can be told without building the network.

    Raises:
        InputError: If so.

    Example:
        >>> require_parts(Config(model={"name": "unet", "options": {"depth": 3}}))
    """
    read_loss(config.loss)
    require_options(config.model.name, config.model.options)
    require_encoder(config.training, encoder_levels(config.model.name, config.model.options))
