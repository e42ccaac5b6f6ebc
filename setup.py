"""Refuse a checkout without symbolic links in one sentence; everything else is in pyproject.toml."""

import sys
from pathlib import Path

from setuptools import setup

PACKAGE = Path(__file__).resolve().parent / "featherpress"

if not all((PACKAGE / name).is_dir() for name in ("models", "budgets", "compress", "reports")):
    sys.exit(
        "featherpress: this copy has no symbolic links, of which the package is made: clone it with "
        "`git -c core.symlinks=true clone` (on Windows in developer mode), or install a wheel."
    )

setup()
