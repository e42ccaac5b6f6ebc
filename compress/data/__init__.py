"""Labelled pictures, real and drawn, and the training crops cut from them."""

from featherpress.compress.data.crops.base import Crops
from featherpress.compress.data.crops.training import TrainingCrops
from featherpress.compress.data.images import decode_image
from featherpress.compress.data.loading import batches
from featherpress.compress.data.samples import Batch, Objects, Sample, SampleDataset, collate
from featherpress.compress.data.sources.labelled import LabelledFolder, require_sound
from featherpress.compress.data.sources.objects import CocoFaces, open_objects
from featherpress.compress.data.sources.widerface import WiderFaces
from featherpress.compress.data.synthetic.faces import SyntheticFaces

__all__ = [
    "Batch",
    "CocoFaces",
    "Crops",
    "LabelledFolder",
    "Objects",
    "Sample",
    "SampleDataset",
    "SyntheticFaces",
    "TrainingCrops",
    "WiderFaces",
    "batches",
    "collate",
    "decode_image",
    "open_objects",
    "require_sound",
]
