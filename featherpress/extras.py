"""Extras of the package, and what other packages bring: one sentence where one is not there or does not load."""

from importlib.metadata import entry_points
from importlib.util import find_spec

from featherpress.errors import FeatherpressError, UsageError

PACKAGES = {
    "train": ("accelerate", "tensorboard", "torchmetrics", "faster_coco_eval", "yaml"),
    "report": ("jinja2", "matplotlib", "pandas"),
    "crosscheck": ("fvcore", "thop"),
    "export": ("onnx", "onnxscript", "onnxruntime"),
}
"""The modules that each extra brings, as they are imported; pyproject.toml has the distributions."""


def missing_packages(extra: str) -> list[str]:
    """Name the packages of an extra that are not installed."""
    return [name.replace("_", "-") for name in PACKAGES[extra] if find_spec(name) is None]


def require_extra(extra: str, purpose: str) -> None:
    """Refuse a purpose whose extra is not installed.

    Errors: `UsageError` that says what to install.
    """
    missing = missing_packages(extra)
    if missing:
        raise UsageError(f"{purpose} needs {', '.join(missing)}; install with: pip install 'featherpress[{extra}]'")


def require_torch(least: str, purpose: str) -> None:
    """Refuse a purpose that the PyTorch that is installed is too old for; `least` is the first that is not.

    Errors: `UsageError` that says which one it takes.
    """
    import torch  # noqa: PLC0415 (slow to import)

    if torch.__version__ < least:
        raise UsageError(f"{purpose} needs PyTorch {least} or newer, this is {torch.__version__}")


def load_entry_points(group: str, what: str) -> None:
    """Import the modules that installed packages name under a group of entry points; `what` they bring.

    Errors: `UsageError` that names the module that cannot be loaded.
    """
    for point in entry_points(group=group):
        try:
            point.load()
        except FeatherpressError:
            raise
        except Exception as error:
            raise UsageError(f"the {what} of {point.value!r} cannot be loaded: {error}") from error
