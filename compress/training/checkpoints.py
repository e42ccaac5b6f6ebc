"""Checkpoints to resume from: all that a training step reads, saved so that a kill at any moment loses no run."""

import io
import logging
import pickle
from pathlib import Path
from typing import Any

import torch

from featherpress.compress.runtime.run_folder import TrainingFolder
from featherpress.errors import TrainingError
from featherpress.files import write_bytes

logger = logging.getLogger("featherpress")

_KEPT = 2
_KEYS = {
    "belongs_to",
    "step",
    "epochs",
    "best",
    "stale",
    "model",
    "average",
    "updates",
    "distiller",
    "optimizer",
    "scheduler",
    "scaler",
    "random",
}
_BROKEN = (
    *(AttributeError, EOFError, IndexError, KeyError, OSError),
    *(RuntimeError, TypeError, ValueError, pickle.UnpicklingError),
)


def save_state(folder: TrainingFolder, step: int, state: dict[str, Any]) -> Path:
    """Write the state after a step, then remove all but the newest two.

    Errors: `TrainingError` when it cannot be written; earlier states are kept.
    """
    path = folder.state(step)
    try:
        # In memory first: writing files itself, PyTorch does not say why it cannot.
        content = io.BytesIO()
        torch.save(state, content)
        write_bytes(path, content.getbuffer())
    except OSError as error:
        raise TrainingError(
            f"could not save the state after step {step} to {path}: {error.strerror}; the state before it is kept; "
            "make room and --resume"
        ) from error
    for old in folder.states[_KEPT:]:
        old.unlink()
    return path


def latest_state(folder: TrainingFolder, belongs_to: str) -> dict[str, Any] | None:
    """Read the newest complete state and warn of newer ones that are broken; None if there is none.

    Errors: `TrainingError` for a state of another run, or of another model of this one.
    """
    for path in folder.states:
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or not state.keys() >= _KEYS:
                raise ValueError("it does not hold what a run's state holds")
        except _BROKEN as error:
            reason = str(error).split("\n")[0]
            logger.warning("the state %s is broken (%s); using the one before", path, reason)
            continue
        if state["belongs_to"] != belongs_to:
            raise TrainingError(f"{path} is a state of another run or arm; remove it, or start again with --overwrite")
        return state
    return None
