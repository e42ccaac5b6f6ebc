"""What a model is to learn: how its outputs are read, supervised and scored; the engine knows no more of it."""

from featherpress.compress.tasks.base import (
    Evidence,
    LabelEvidence,
    Outputs,
    PriorEvidence,
    Supervision,
    Task,
)
from featherpress.compress.tasks.detection import DetectionTask

__all__ = [
    "DetectionTask",
    "Evidence",
    "LabelEvidence",
    "Outputs",
    "PriorEvidence",
    "Supervision",
    "Task",
]
