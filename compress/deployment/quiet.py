"""The optional packages behind exporting, kept quiet."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from featherpress.extras import missing_packages

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


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and logs of exporters and runtimes from the screen; their errors still raise."""
    loggers = [logging.getLogger(None if name == "root" else name) for name in _TALKATIVE]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        if not missing_packages("export"):
            import onnxruntime  # noqa: PLC0415  (optional)

            onnxruntime.set_default_logger_severity(_ERRORS_OF_RUNTIME)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
