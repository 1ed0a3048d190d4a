"""Names of bands, derived bands, and bands that are components of vectors."""
