"""Which tiles a folder holds: layouts of folders, pairing of images and masks, duplicates."""
