"""The extras of the package: what each brings, and one sentence where it is not installed."""

from importlib.util import find_spec

from featherpress.errors import UsageError

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
