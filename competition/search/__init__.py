"""Search over training configurations with Optuna."""
