"""The competition module: decisions on out-of-fold predictions, ensembles, verified submissions; builds on marsls_keras."""
