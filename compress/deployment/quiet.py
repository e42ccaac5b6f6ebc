"""The optional packages behind exporting, kept quiet."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from featherpress.extras import missing_packages

_ERRORS_OF_RUNTIME = 4
"""The severity from which onnxruntime writes to standard error: fatal."""


@contextmanager
def quiet() -> Iterator[None]:
    """Keep warnings and logs of exporters and runtimes from the screen; their errors still raise.

    What they report is for their own developers: what matters here is checked and said by us.
    """
    before = logging.root.manager.disable
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        logging.disable()
        if not missing_packages("export"):
            import onnxruntime  # noqa: PLC0415  (optional)

            onnxruntime.set_default_logger_severity(_ERRORS_OF_RUNTIME)
        try:
            yield
        finally:
            logging.disable(before)
