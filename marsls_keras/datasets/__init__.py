"""The published datasets, one file each: bands, scale, folders, file names, container, no-data, synthetic form.

To add a dataset, write a file that ends in `RELEASE = Release(…)` and add it to `registry.py`.
"""

from marsls_keras.datasets.registry import (
    RELEASES,
    grid_key,
    known_bands,
    layouts,
    register,
    releases_of,
    unknown_bands,
)
from marsls_keras.datasets.release import Release

__all__ = ["RELEASES", "Release", "grid_key", "known_bands", "layouts", "register", "releases_of", "unknown_bands"]
