"""Hyperparameter search over training configurations with Optuna."""
