"""Inference: predict tiles with trained folds, average the predictions, and turn probabilities into masks."""
