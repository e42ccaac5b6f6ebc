"""Labelled face pictures, real and synthetic, and the training crops cut from them."""

from featherpress.compress.data.coco import CocoFaces
from featherpress.compress.data.colours import Distortion
from featherpress.compress.data.crops import CropRanges, TrainingCrops
from featherpress.compress.data.images import decode_image
from featherpress.compress.data.labelled import LabelledFolder, require_sound
from featherpress.compress.data.loading import batches
from featherpress.compress.data.samples import Batch, FaceDataset, Faces, Key, Sample, collate
from featherpress.compress.data.synthetic import SyntheticFaces
from featherpress.compress.data.widerface import WiderFaces

__all__ = [
    "Batch",
    "CocoFaces",
    "CropRanges",
    "Distortion",
    "FaceDataset",
    "Faces",
    "Key",
    "LabelledFolder",
    "Sample",
    "SyntheticFaces",
    "TrainingCrops",
    "WiderFaces",
    "batches",
    "collate",
    "decode_image",
    "require_sound",
]
