"""Readers of TIFF, PNG and HDF5 files, which return canonical bands and a validity mask."""
