"""From a configuration and decoded tiles to a trained fold on disk."""
