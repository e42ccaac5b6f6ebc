"""A disk that is really full, where this user may mount a small one: a sentence, nothing half written, nothing lost."""

import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

HERE = Path(__file__).parent
RECIPE = """
name = "full"
student = { model = "tiny_models:net" }
data = { kind = "shapes", image_size = 64, classes = 3, train_images = 8, validation_images = 4 }
schedule = { epochs = 2, batch_size = 4, save_every = 0, log_every = 1, evaluate_every = 1 }
"""
SIZES = (16, 44, 60, 76, 92, 108)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """A disk of so many kB, mounted empty; what holds more kB later keeps what is on it."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options: str) -> bool:
        command = [str(shutil.which("mount")), "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
        return subprocess.run(command, check=False, capture_output=True).returncode == 0

    if shutil.which("mount") is None or not mount("size=4k"):
        pytest.skip("needs to be allowed to mount a disk")

    def size(kilobytes: int) -> Path:
        assert mount(f"remount,size={kilobytes}k")
        return folder

    yield size
    subprocess.run([str(shutil.which("umount")), str(folder)], check=True)


def test_training_on_a_full_disk(
    disk: Callable[[int], Path], run_command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is written when it fills is named; each time there is more room, the run goes on to the same weights.

    The clock is put back all the while, which nothing minds.
    """
    shutil.copy(HERE / "compress" / "experiments" / "tiny_models.py", tmp_path)
    (tmp_path / "full.toml").write_text(RECIPE)
    assert run_command("train", "full.toml", "--out", "whole").code == 0
    times = count(2_000_000_000, -86_400)
    monkeypatch.setattr("time.time", lambda: float(next(times)))
    named = set()
    for kilobytes in SIZES:
        run = disk(kilobytes) / "run"
        going_on = ["--resume"] if run.exists() and {*run.iterdir()} - {run / ".lock"} else []
        ending = run_command("train", "full.toml", "--out", run, *going_on)
        said = [line for line in ending.err.splitlines() if line.startswith("featherpress: ")]
        assert (ending.code, len(said)) == (2, 1), ending.err
        assert "No space left on device" in said[0]
        assert "resume" in said[0]
        assert [*run.rglob("*.partial")] == []
        named.add(said[0].partition("run/")[2].partition(":")[0])
    assert len(named) > 2
    assert run_command("train", "full.toml", "--out", disk(4000) / "run", "--resume").code == 0
    one, other = (load_file(each / "weights" / "last.safetensors") for each in (run, tmp_path / "whole"))
    assert all(value.equal(other[key]) for key, value in one.items())
