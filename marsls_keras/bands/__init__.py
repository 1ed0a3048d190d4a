"""Names of bands, how each release stores them, which bands are derived from which, and how vectors turn."""
