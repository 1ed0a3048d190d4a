"""Readers of one file: TIFF, PNG and HDF5 to canonical bands and a validity mask."""
