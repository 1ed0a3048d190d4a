"""Keras callbacks of a training: checkpoints, resuming, stopping, progress."""
