"""Fixtures shared by all tests."""

import os
from pathlib import Path

import pytest
from hypothesis import settings

# A slow machine is no failure: speed lives in benchmarks.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and public checkpoints, or a skip that says how to name it."""
    folder = Path(os.environ.get("FEATHERPRESS_SHARED", REPOSITORY / ".." / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs real photographs and checkpoints: set FEATHERPRESS_SHARED (looked in {folder})")
    return folder.resolve()
