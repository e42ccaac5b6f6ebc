"""The settings of detection, which every score depends on."""

from dataclasses import asdict, dataclass
from typing import Any

from featherpress.compress.evaluation.metrics.average_precision import IOU
from featherpress.compress.recipes.data import check_long_side
from featherpress.errors import UsageError

THRESHOLD = 0.5
"""The score from which on a detection is shown, where nothing better is known."""
CANDIDATES = 5000
"""Detections of an image that go into non-maximum suppression at most."""
TOP_K = 750
"""Detections of an image that come out of it at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DetectionSettings:
    """How raw outputs become detections.

    `long_side` is the test scale: the longer side of the image in pixels, 0 for the image as it is. With `flip` the
    mirrored image is run too, and the detections of both go into one suppression. Scores below
    `score_threshold` are dropped; at most CANDIDATES go into non-maximum suppression at `nms_iou`, and at most TOP_K
    come out.
    """

    long_side: int = 0
    flip: bool = False
    score_threshold: float = 0.02
    nms_iou: float = 0.4

    def __post_init__(self) -> None:
        """Refuse impossible scales, and settings that leave no detections."""
        try:
            check_long_side(self.long_side)
        except ValueError as error:
            raise UsageError(str(error)) from error
        for name in ("score_threshold", "nms_iou"):
            if not 0 <= getattr(self, name) <= 1:
                raise UsageError(f"{name} is 0 to 1, got {getattr(self, name)}")

    def to_dict(self) -> dict[str, Any]:
        """Return the entry `protocol` of an evaluation record."""
        scale = f"long side {self.long_side}" if self.long_side else "original"
        return {
            "iou": IOU,
            "test_scale": scale,
            **{key: value for key, value in asdict(self).items() if key != "long_side"},
            "candidates": CANDIDATES,
            "top_k": TOP_K,
        }
