"""Tile grid: the position of each tile in its raster, and stitching tiles to larger arrays."""
