"""Commands, hyperparameter search and submissions for the Mars-LS challenge, built on marsls_keras."""
