"""Images without labels, whose masks a teacher draws for its student."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from featherpress.compress.data.examples import Example
from featherpress.compress.data.images import decode_image
from featherpress.compress.data.sources.masks import IGNORED, read_mask
from featherpress.compress.data.sources.unlabelled import Photographs, open_photographs
from featherpress.compress.data.subsets import join
from featherpress.compress.recipes.data import UnlabelledRecipe
from featherpress.compress.runtime.devices import default_device
from featherpress.compress.runtime.distributed import gather_processes, process_count, process_index
from featherpress.compress.runtime.fingerprints import fingerprint
from featherpress.compress.runtime.progress import Progress
from featherpress.compress.tasks.segmentation.inference import predict
from featherpress.errors import DataError, UsageError
from featherpress.files import replacing
from featherpress.models.inputs import ModelInput


@dataclass(frozen=True, slots=True, kw_only=True)
class TeacherMasks:
    """Images of a folder with masks that a teacher drew, one PNG an image in a folder of a run."""

    photographs: Photographs
    masks: Path

    def __len__(self) -> int:
        return len(self.photographs)

    def name(self, index: int, /) -> str:
        """Name an image by its path below the folder."""
        return self.photographs.name(index)

    def mask_file(self, index: int, /) -> Path:
        """Return where an image's mask lies."""
        return self.masks / f"{self.name(index)}.png"

    def __getitem__(self, index: int, /) -> Example:
        """Read an image and its mask; raises DataError where one cannot be read."""
        file = self.photographs.files[index]
        image = decode_image(file)
        mask = read_mask(self.mask_file(index), of=file, size=(image.shape[-1], image.shape[-2]))
        return Example(image=image, target={"masks": torch.from_numpy(mask).to(torch.uint8)}, name=self.name(index))


def label_images(
    teacher: nn.Module, recipe: UnlabelledRecipe, *, takes: ModelInput, out: Path, zoom: float = 1.0
) -> Any:
    """Draw the masks of a recipe's images without labels, and return the images with them.

    A pixel of which the teacher is less sure than `positive_threshold` is ignored. Masks lie in the run's `labels`
    under the teacher's fingerprint and the settings, so that a resumed run uses the same ones.

    Errors: `UsageError` for several scales; `DataError` for a folder without images.
    """
    if len(recipe.long_sides) > 1:
        raise UsageError("masks are drawn at one scale: give `data.unlabelled.long_side` one number")
    sure, long_side = recipe.positive_threshold, recipe.long_sides[0]
    folders = []
    for number, photographs in enumerate(open_photographs(recipe), start=1):
        made_by = f"{fingerprint(teacher)[:16]}-{sure:g}-{long_side}-{zoom:g}"
        folder = TeacherMasks(photographs=photographs, masks=out / "labels" / str(number) / made_by)
        _draw_missing(teacher, folder, sure, takes=takes, long_side=long_side, zoom=zoom)
        folders.append(folder)
    return folders[0] if len(folders) == 1 else join(*folders)


def _draw_missing(teacher: nn.Module, folder: TeacherMasks, sure: float, **looking: Any) -> None:
    """Draw the masks that are not there yet, each process its share; what cannot be read is skipped in training."""
    own = range(process_index(), len(folder), process_count())
    missing = [index for index in own if not folder.mask_file(index).exists()]
    with Progress("drawing the teacher's masks", total=len(missing)) as progress:
        for index in missing:
            progress.advance()
            try:
                image = decode_image(folder.photographs.files[index])
            except DataError:
                continue
            mask = _sure_classes(predict(teacher, image, **looking), sure)
            with replacing(folder.mask_file(index)) as temporary:
                Image.fromarray(mask.cpu().numpy()).save(temporary, format="PNG")
    gather_processes(torch.zeros(1, device=default_device()))  # nobody reads before all have drawn


def _sure_classes(logits: Tensor, sure: float) -> Tensor:
    """Return the likeliest class of each pixel, ignored where it is less likely than `sure`; (C, H, W) -> (H, W)."""
    chance, classes = logits.softmax(dim=0).max(dim=0)
    return classes.masked_fill(chance < sure, IGNORED).to(torch.uint8)
