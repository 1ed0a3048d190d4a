"""Decisions on out-of-fold predictions, chosen by nested cross-validation."""
