"""The interface of all detectors: images, outputs and priors."""

from typing import Any

import torch
from torch import Tensor, nn

from featherpress.errors import UsageError
from featherpress.models.creation import create_model
from featherpress.models.priors import PriorSpec

MEAN_BGR = (104.0, 117.0, 123.0)
LEAST_SIDE = 64
"""So many pixels a side an image has at least that a detector takes."""


def normalize(images: Tensor) -> Tensor:
    """Normalise RGB images as for the checkpoints' training: BGR, 0..255, minus the mean.

    Shapes: (N, 3, H, W) uint8 or float RGB in 0..255 -> (N, 3, H, W) float32.
    """
    mean = torch.tensor(MEAN_BGR, device=images.device).view(1, 3, 1, 1)
    return images.flip(1).float().sub_(mean)


class Detector(nn.Module):
    """A single-stage detector over a pyramid of priors.

    Shapes: images (N, 3, H, W), BGR 0..255 minus the mean, H and W at least 64 -> boxes (N, P, 4) as deltas, class
    logits (N, P, 2) background first, landmarks (N, P, 10) as deltas; P = 16,800 at 640x640.
    """

    def __init__(self, anchors: PriorSpec) -> None:
        super().__init__()
        self.anchors = anchors

    def priors(self, height: int, width: int) -> Tensor:
        """Return the priors that an image of height x width pixels is scored at, (P, 4), in the outputs' order."""
        return self.anchors.priors(height, width, device=next(self.parameters()).device)


def create_detector(name: str, **overrides: Any) -> Detector:
    """Build a registered model that can be trained, evaluated and distilled as a detector.

    Errors: `UsageError` as `create_model`, and for a model that is not a `Detector`.
    """
    return require_detector(create_model(name, **overrides), name)


def require_detector(model: nn.Module, name: str) -> Detector:
    """Return the model as the detector it is.

    Errors: `UsageError` for a model that is not a `Detector`.
    """
    if not isinstance(model, Detector):
        raise UsageError(f"{name} is not a detector: it must subclass featherpress.models.Detector to have priors")
    return model
