"""Segmentation of Martian landslides in seven-band orbital tiles: networks, training and inference on Keras 3."""

__version__ = "0.3.0"
