"""The run directory: configuration, splits, weights and metrics of a training, each file validated when it is read."""
