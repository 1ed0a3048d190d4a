"""Keras callbacks of a training: checkpoints, saved state, stopping, history and progress."""
