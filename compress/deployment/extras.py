"""The optional packages behind exporting, asked for in one sentence and kept quiet."""

import importlib.util
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from featherpress.errors import UsageError

_PACKAGES = ("onnx", "onnxscript", "onnxruntime")

# What these report to a user is for their own developers: what matters here is checked and said by us.
_TALKATIVE = (
    "torch",
    "torch.__trace",
    "torch.onnx",
    "torch.export",
    "torch._export",
    "torch.fx",
    "onnxscript",
    "onnx_ir",
    "onnxruntime",
    "root",
)

_ERRORS_OF_RUNTIME = 4
"""The severity from which onnxruntime writes to standard error: fatal."""


def missing_packages() -> list[str]:
    """Name the packages of the extra `export` that are not installed."""
    return [name for name in _PACKAGES if importlib.util.find_spec(name) is None]


def require_packages(purpose: str) -> None:
    """Refuse a purpose whose packages are not installed.

    Errors: `UsageError` that says what to install.
    """
    missing = missing_packages()
    if missing:
        raise UsageError(f"{purpose} needs {', '.join(missing)}; install with: pip install 'featherpress[export]'")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and logs of exporters and runtimes from the screen; their errors still raise."""
    loggers = [logging.getLogger(None if name == "root" else name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        if not missing_packages():
            import onnxruntime  # noqa: PLC0415  (optional)

            onnxruntime.set_default_logger_severity(_ERRORS_OF_RUNTIME)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
