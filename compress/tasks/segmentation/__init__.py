"""The segmentation of images: a class for every pixel."""
