"""Index of a data folder: layouts, pairing of images and masks, duplicates."""
