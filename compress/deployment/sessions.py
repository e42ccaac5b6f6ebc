"""ONNX files run by onnxruntime on this machine's processor."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_unflatten

from featherpress.compress.deployment.conversion import INPUT
from featherpress.compress.deployment.quiet import quiet
from featherpress.errors import ExportError
from featherpress.extras import require_extra
from featherpress.models import Detector
from featherpress.models.inputs import input_of, remember_input
from featherpress.models.priors import encode_boxes, encode_landmarks


class Session:
    """One ONNX file, loaded; threads sleep while they wait, since others measure in the same process.

    Errors: `ExportError` when onnxruntime cannot load the file, or fails in running it.
    """

    def __init__(self, path: Path, *, threads: int) -> None:
        require_extra("export", "running ONNX files")
        import onnxruntime  # noqa: PLC0415  (optional)

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 4
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        try:
            with quiet():
                self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors have no common base
            raise _refused(path, error) from error
        self._path = path
        self.outputs: tuple[str, ...] = tuple(each.name for each in self._session.get_outputs())
        batch, _, *sides = self._session.get_inputs()[0].shape
        self.free_batch = not isinstance(batch, int)
        self.size = (sides[0], sides[1]) if all(isinstance(side, int) for side in sides) else None

    def run(self, images: npt.NDArray[np.float32]) -> list[npt.NDArray[Any]]:
        """Compute every output; shapes: images (N, 3, H, W)."""
        try:
            outputs: list[npt.NDArray[Any]] = self._session.run(None, {INPUT: images})
        except Exception as error:  # as above
            raise _refused(self._path, error) from error
        return outputs


def _refused(path: Path, error: Exception) -> ExportError:
    return ExportError(f"onnxruntime cannot run {path.name}: {str(error).splitlines()[0][:300]}")


def _run(session: Session, images: Tensor) -> list[Tensor]:
    """Compute every output; a file that takes one image at a time gets them one by one."""
    parts = [images] if session.free_batch else [image[None] for image in images]
    found = [session.run(part.contiguous().numpy()) for part in parts]
    return [torch.from_numpy(np.concatenate(each)) for each in zip(*found, strict=True)]


class SessionDetector(Detector):
    """An exported detector with the interface of the model it was exported from, so that one evaluation serves both.

    Where the graph decodes, decoding is undone. A file of one size sees a smaller image with its mean beyond it.
    """

    def __init__(self, session: Session, detector: Detector) -> None:
        super().__init__(detector.anchors)
        self._session = session
        # Tells which device and type the outputs have.
        self.anchor = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the file; shapes as `Detector`."""
        if size := self._session.size:
            images = nn.functional.pad(images, (0, size[1] - images.shape[-1], 0, size[0] - images.shape[-2]))
        boxes, logits, landmarks = _run(self._session, images)[:3]
        if "scores" not in self._session.outputs:
            return boxes, logits, landmarks
        priors = self.priors(*images.shape[-2:])
        logits = torch.stack([1 - logits, logits], dim=-1).log()
        return encode_boxes(boxes, priors), logits, encode_landmarks(landmarks, priors)

    def priors(self, height: int, width: int) -> Tensor:
        """Return the priors of the file's size, where it has one."""
        return super().priors(*(self._session.size or (height, width)))


class SessionModel(nn.Module):
    """An exported model that takes and returns what the one does that it was exported from.

    Shapes: images (N, 3, H, W), of the example's size where the file fixes it.
    """

    def __init__(self, session: Session, original: nn.Module, example: tuple[int, ...]) -> None:
        super().__init__()
        self._session = session
        # Tells which device and type the outputs have.
        self.anchor = nn.Parameter(torch.empty(0), requires_grad=False)
        with torch.no_grad():
            _, self._form = tree_flatten(original(torch.zeros(example)))
        takes = input_of(original)
        if takes is not None:
            remember_input(self, takes)

    def forward(self, images: Tensor) -> Any:
        """Run the file."""
        return tree_unflatten(_run(self._session, images), self._form)
