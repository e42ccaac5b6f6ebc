"""Augmentation by torchvision.transforms.v2, named in a recipe; class, mask and boxes stay in step with the image.

A recipe writes `train = [{ RandomResizedCrop = 224 }, "RandomHorizontalFlip"]`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from featherpress.compress.data.examples import Example
from featherpress.compress.runtime.threads import computing_threads
from featherpress.errors import UsageError
from featherpress.validation import suggest

Step: TypeAlias = str | Mapping[str, Any]
"""A transform's name, or a table of its name and arguments: one value is the first argument, a table has them all."""

Kind: TypeAlias = Literal["label", "mask", "boxes"]
"""What is known of an image."""

_REFUSED = {
    **dict.fromkeys(("MixUp", "CutMix"), "it mixes the images of a batch, and their classes"),
    **dict.fromkeys(("FiveCrop", "TenCrop"), "it makes several images of one"),
    **dict.fromkeys(("Lambda", "LinearTransformation"), "it takes what a recipe cannot hold"),
    **dict.fromkeys(
        ("Normalize", "ToDtype", "ConvertImageDtype", "ToTensor", "ToPILImage", "PILToTensor", "ToImage"),
        "images stay RGB from 0 to 255, and the model's own `normalize` says what it takes",
    ),
    **dict.fromkeys(("Grayscale",), "it leaves one channel; give RandomGrayscale, with p = 1 for all images"),
    **dict.fromkeys(("UniformTemporalSubsample",), "it is for video"),
    **dict.fromkeys(
        ("ClampBoundingBoxes", "ConvertBoundingBoxFormat", "SanitizeBoundingBoxes", "SetClampingMode"),
        "it is for boxes alone, which are clamped and sanitized after the last transform",
    ),
    **dict.fromkeys(("ClampKeyPoints", "SanitizeKeyPoints"), "it is for key points"),
}
"""Transforms that a recipe cannot use, and why."""

_NO_STEPS = {"Compose", "Identity", "ToPureTensor", "Transform", "RGB"}


def list_transforms() -> list[str]:
    """Return the names of the transforms that a recipe can use."""
    classes = inspect.getmembers(v2, lambda each: inspect.isclass(each) and issubclass(each, v2.Transform))
    return [name for name, _ in classes if name not in _REFUSED and name not in _NO_STEPS]


def default_steps(kind: Kind, height: int, width: int) -> tuple[Step, ...]:
    """Return the augmentation of a recipe that names none.

    Source: torchvision's references for classification, segmentation and detection, without their longest schedules.
    """
    size = [height, width]
    if kind == "label":
        return {"RandomResizedCrop": size}, "RandomHorizontalFlip"
    if kind == "mask":
        return {"RandomResizedCrop": {"size": size, "scale": [0.25, 1.0]}}, "RandomHorizontalFlip"
    zoom = {"RandomZoomOut": {"fill": [123, 117, 104], "side_range": [1.0, 2.0]}}
    return "RandomPhotometricDistort", zoom, "RandomIoUCrop", {"Resize": size}, "RandomHorizontalFlip"


class Transforms:
    """Named transforms one after the other; what they give is a pure function of the example and a seed.

    `source` is height and width of images that all have the same. What rotations, shifts and padding leave empty in a
    mask is `ignore`. Boxes that no longer show anything are left out, with the rows that belong to them.
    Errors: `UsageError` for a name or an argument that cannot be used, for what does not go with this `kind`, and where
    the images that come out are not `height` x `width` pixels.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        *,
        kind: Kind,
        height: int,
        width: int,
        ignore: int = 255,
        source: tuple[int, int] | None = None,
    ) -> None:
        self.kind, self.steps = kind, [_build(step, ignore) for step in steps]
        self.compose, self.size = v2.Compose(self.steps or [v2.Identity()]), (height, width)
        self.bytes_per_crop = (4 if kind == "mask" else 3) * height * width
        self(_trial(kind, *(source or (2 * height + 7, 2 * width + 3))), seed=0)

    def __call__(self, example: Example, *, seed: int) -> Example:
        """Transform an image and what is known of it; no global generator is touched.

        Errors: `UsageError` for an image that a transform cannot take, or gives another size.
        """
        height, width = example.image.shape[-2:]
        try:
            with drawing_from(seed):
                if self.kind == "label":  # a table of tensors with types of their own takes a fifth longer
                    changed = {**example.target, "image": self.compose(example.image)}
                else:
                    changed = self.compose({"image": tv_tensors.Image(example.image), **_wrapped(example)})
        except Exception as error:  # whatever torchvision raises
            what = f"the transforms cannot be applied to {example.name}, {width} x {height} pixels"
            raise UsageError(f"{what}: {_first_line(error)}") from error
        pixels = changed.pop("image").as_subclass(Tensor)
        if pixels.dtype != torch.uint8 or tuple(pixels.shape) != (3, *self.size):
            raise UsageError(self._misfit(example.name, pixels))
        return replace(example, image=pixels, target=_sanitized(changed))

    def needed_side(self) -> int:
        """Return the short side to which an image may be reduced before, 0 where each pixel counts."""
        first = self.steps[0] if self.steps else None
        if isinstance(first, v2.RandomResizedCrop):
            smallest = first.scale[0] * min(first.ratio[0], 1 / first.ratio[1])
            return int(max(first.size) / smallest**0.5) + 1
        if isinstance(first, v2.Resize) and first.max_size is None:
            return int(max(first.size))
        return 0

    def _misfit(self, name: str, pixels: Tensor) -> str:
        height, width = self.size
        got = f"{' x '.join(map(str, reversed(pixels.shape)))} of {str(pixels.dtype).removeprefix('torch.')}"
        return (
            f"the transforms make {name} {got}, expected {width} x {height} x 3 of uint8, as `data.size` says; end "
            f"them with a crop or {{ Resize = [{height}, {width}] }}"
        )


@contextmanager
def drawing_from(seed: int) -> Iterator[None]:
    """Seed torch's generator of the CPU, which all transforms draw from, and put it back afterwards.

    Inside runs one thread, for a mean over an image depends on their number, and a pixel on the mean.
    """
    # torch.manual_seed would seed GPUs too.
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        with computing_threads(1):
            yield
    finally:
        generator.set_state(state)


def _build(step: Step, ignore: int) -> Any:
    if not isinstance(step, str) and len(step) != 1:
        raise UsageError(f"expected one transform in a table, got {len(step)}: {', '.join(map(str, step)) or 'none'}")
    name, given = (step, {}) if isinstance(step, str) else next(iter(step.items()))
    if name in _REFUSED:
        raise UsageError(f"{name} cannot be used here: {_REFUSED[name]}")
    if name not in list_transforms():
        raise UsageError(f"torchvision has no transform {name!r} for images; {suggest(name, list_transforms())}")
    make: Callable[..., Any] = getattr(v2, name)
    parameters = inspect.signature(make).parameters
    arguments = dict(given) if isinstance(given, Mapping) else {next(iter(parameters), "argument"): given}
    for key in arguments:
        if key not in parameters:
            raise UsageError(
                f"{name} takes no {key!r}; {suggest(key, list(parameters)) if parameters else 'it takes none'}"
            )
    missing = [key for key, each in parameters.items() if each.default is each.empty and key not in arguments]
    if missing:
        raise UsageError(f"{name} needs `{missing[0]}`: write {{ {name} = ... }}")
    converted = {key: _convert(key, value, ignore) for key, value in arguments.items()}
    if "fill" in parameters:
        converted["fill"] = _fill(converted.get("fill", parameters["fill"].default), ignore)
    try:
        return make(**converted)
    except Exception as error:  # whatever torchvision raises
        raise UsageError(f"{name} cannot be made with {arguments}: {_first_line(error)}") from error


def _convert(key: str, value: Any, ignore: int) -> Any:
    """Turn what TOML holds into what torchvision takes."""
    if key == "transforms":
        steps = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
        return [_build(step, ignore) for step in steps]
    if key == "policy":
        known = [each.value for each in v2.AutoAugmentPolicy]
        if value not in known:
            raise UsageError(f"AutoAugment has no policy {value!r}; {suggest(str(value), known)}")
        return v2.AutoAugmentPolicy(value)
    if key == "interpolation" and isinstance(value, str):  # older ones take no text
        known = [each.value for each in v2.InterpolationMode]
        if value not in known:
            raise UsageError(f"there is no interpolation {value!r}; {suggest(value, known)}")
        return v2.InterpolationMode(value)
    return value


def _fill(value: Any, ignore: int) -> dict[Any, Any]:
    return {tv_tensors.Image: value, tv_tensors.Mask: ignore, "others": value}


def _trial(kind: Kind, height: int, width: int) -> Example:
    """Make an example to try transforms on before any is read."""
    target = {"labels": torch.tensor(0)}
    if kind == "mask":
        target = {"masks": torch.zeros(height, width, dtype=torch.uint8)}
    elif kind == "boxes":
        corners = torch.tensor([[0.25, 0.25, 0.75, 0.75]]) * torch.tensor([width, height, width, height])
        target = {"boxes": corners, "labels": torch.zeros(1, dtype=torch.int64)}
    return Example(image=torch.zeros(3, height, width, dtype=torch.uint8), target=target, name="a trial image")


def _wrapped(example: Example) -> dict[str, Tensor]:
    """Tell torchvision what is a mask and what are boxes; it leaves other tensors as they are."""
    target, size = dict(example.target), tuple(example.image.shape[-2:])
    if "masks" in target:
        target["masks"] = tv_tensors.Mask(target["masks"])
    if "boxes" in target:
        target["boxes"] = tv_tensors.BoundingBoxes(target["boxes"], format="XYXY", canvas_size=size)
    return target


def _sanitized(target: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Leave out boxes without an area, and the rows that belong to them; what is left are plain tensors."""
    plain = {key: each.as_subclass(Tensor) for key, each in target.items()}
    if "boxes" not in target:
        return plain
    _, kept = v2.functional.sanitize_bounding_boxes(v2.functional.clamp_bounding_boxes(target["boxes"]))
    return {key: each if key == "masks" else each[kept] for key, each in plain.items()}


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
