"""Optimiser and learning-rate schedule."""

from __future__ import annotations

import keras

from marsls_keras.config import Training


def build_optimizer(config: Training, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """Return AdamW with linear warm-up and cosine decay to zero.

    Biases and the scales and offsets of normalisations are not decayed (Loshchilov & Hutter, "Decoupled weight decay", ICLR 2019, leave
    that open; decaying them pulls normalised features towards zero for nothing).

    Args:
        config: The section `training` of the configuration.
        steps_per_epoch: Optimiser steps in an epoch.
    """
    warmup = round(config.warmup_epochs * steps_per_epoch)
    total = config.epochs * steps_per_epoch
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=0.0 if warmup else config.learning_rate,
        decay_steps=max(1, total - warmup),
        warmup_target=config.learning_rate if warmup else None,
        warmup_steps=warmup,
    )
    optimizer = keras.optimizers.AdamW(
        schedule,
        weight_decay=config.weight_decay,
        use_ema=config.ema_decay is not None,
        ema_momentum=config.ema_decay or 0.99,
    )
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
