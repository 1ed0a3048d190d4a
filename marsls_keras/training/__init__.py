"""Train the folds of a run: optimiser, schedule, callbacks, recovery from errors, refit and pseudo-labels."""
