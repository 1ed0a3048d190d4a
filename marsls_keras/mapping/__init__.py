"""Rasters: from rasters of a region to a dataset, and from a trained run to a map and a landslide inventory."""
