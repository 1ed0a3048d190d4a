"""The run directory: configuration, splits, weights and metrics of a training, validated when they are read."""
