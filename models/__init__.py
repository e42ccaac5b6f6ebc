"""The model zoo: `create_model`, `list_models`, `load_weights`, `save_model`, `load_model`."""

from typing import TYPE_CHECKING

from featherpress.lazy import import_later
from featherpress.models.registry import find_model, list_models, register_model, shipped_weights
from featherpress.models.zoo import ModelEntry

if TYPE_CHECKING:
    from featherpress.models.checkpoints import load_weights, read_weights
    from featherpress.models.creation import create_model
    from featherpress.models.detectors import Detector, create_detector, normalize
    from featherpress.models.fusing import fuse
    from featherpress.models.priors import PriorSpec
    from featherpress.models.saving import load_detector, load_model, save_model, save_weights

__all__ = [
    "Detector",
    "ModelEntry",
    "PriorSpec",
    "create_detector",
    "create_model",
    "find_model",
    "fuse",
    "list_models",
    "load_detector",
    "load_model",
    "load_weights",
    "normalize",
    "read_weights",
    "register_model",
    "save_model",
    "save_weights",
    "shipped_weights",
]

__getattr__ = import_later(
    __name__,
    {
        "checkpoints": ("load_weights", "read_weights"),
        "creation": ("create_model",),
        "detectors": ("Detector", "create_detector", "normalize"),
        "fusing": ("fuse",),
        "priors": ("PriorSpec",),
        "saving": ("load_detector", "load_model", "save_model", "save_weights"),
    },
)
