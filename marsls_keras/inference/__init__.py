"""From a trained fold and a folder of tiles to probabilities."""
