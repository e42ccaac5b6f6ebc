"""The detection of objects of any categories, by torchvision's detectors."""
