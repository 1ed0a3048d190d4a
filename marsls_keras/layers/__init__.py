"""Layers of the networks, one idea a file."""

from marsls_keras.layers.batch_norm import BatchNormalization

__all__ = ["BatchNormalization"]
