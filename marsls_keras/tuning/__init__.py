"""Tuning: choose a decision by nested cross-validation on out-of-fold predictions."""
