"""Derived bands: spectral indices and image filters of the colours, and derivatives of the terrain."""
