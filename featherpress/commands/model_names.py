"""Models by their names: what their settings are, and where their weights lie."""

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from featherpress.errors import UsageError
from featherpress.files import split_weights

if TYPE_CHECKING:
    from featherpress.compress.recipes import Recipe
    from featherpress.models import Detector

logger = logging.getLogger("featherpress")

_BEST_F1 = re.compile(r"[Bb]est F1[^.]*? [\d.]+ at a score of (0\.\d+)")

#: Whose shipped weights are taken where no model is named.
DEFAULT_DETECTOR = "featherface_v2"


def shape_seen(recipe: "Recipe") -> str:
    """Return the shape that a recipe's models are counted at; empty for their own default."""
    return recipe.data.counted_at


def settings_of(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model is built from: its preset's settings, where it has one, under those that were given."""
    if ":" in name:
        return dict(settings)
    from featherpress.models import find_model

    return {**find_model(name).settings, **settings}


def open_detector(weights: Path, model: str) -> "Detector":
    """Build a detector with a file's weights, in eval mode on the default device."""
    from featherpress.compress.runtime.devices import default_device
    from featherpress.models import load_detector

    return load_detector(weights, name=model).to(default_device()).eval()


def threshold_of(weights: Path) -> float:
    """Return the score of the best F1 by the model card, the Markdown file beside the weights, and say so; else 0.5."""
    from featherpress.compress.evaluation.detector.settings import THRESHOLD

    card = weights.parent / f"{weights.stem}.md"
    found = _BEST_F1.search(card.read_text(encoding="utf-8")) if card.is_file() else None
    if found is None:
        return THRESHOLD
    logger.warning("faces from a score of %s on, the best F1 by %s; --threshold changes it", found[1], card.name)
    return float(found[1])


def model_and_weights(name: str, weights: Path | None) -> tuple[str, Path | None]:
    """Return what `TARGET@FILE`, or a name beside --weights, stands for.

    Errors: UsageError where both name weights, and for a name that ends where a file would follow.
    """
    target, named = split_weights(name)
    if name.endswith("@"):
        raise UsageError(f"{name} names no file after its @: give one, or leave the @ out")
    if named and weights:
        raise UsageError(f"{name} names its weights, and --weights {weights} others: choose one")
    return target, weights or named


def weights_or_shipped(weights: Path | None, model: str) -> Path:
    """Return the weights file that was given, or the one that comes with the package."""
    from featherpress.models import find_model, shipped_weights

    if weights is not None:
        return weights
    entry = find_model(model or DEFAULT_DETECTOR)
    if entry.shipped is None:
        raise UsageError(
            "without --weights the shipped ones are taken, but no trained weights are shipped for "
            f"{entry.name}; name a file of yours with --weights"
        )
    return shipped_weights(entry.name)
