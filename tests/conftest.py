"""Fixtures shared by all tests."""

import io
import logging
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hypothesis import settings
from PIL import Image
from rich.console import Console, RenderableType

from featherpress.compress.data import SyntheticFaces
from featherpress.models import create_model, save_weights
from featherpress.stopping import SIGNALS

# A slow machine is no failure: speed lives in benchmarks.
settings.register_profile("steady", deadline=None)
settings.load_profile("steady")

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tutorials: the longest tests of all, at the end of a run they leave other processes idle."""
    items.sort(key=lambda item: item.path.name != "test_tutorials.py")


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what an older PyTorch lacks."""
    mark = item.get_closest_marker("needs_torch")
    if mark and torch.__version__ < mark.args[0]:
        pytest.skip(f"needs PyTorch {mark.args[0]} or newer: {mark.args[1]}")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of photographs and public checkpoints, or a skip that says how to name it."""
    folder = Path(os.environ.get("FEATHERPRESS_SHARED", REPOSITORY / ".." / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"needs real photographs and checkpoints: set FEATHERPRESS_SHARED (looked in {folder})")
    return folder.resolve()


class Ending(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Iterator[Callable[..., Ending]]:
    """Run the command line in this process, in an empty folder, and say how it ended."""
    from featherpress import cli

    monkeypatch.chdir(tmp_path)
    logger = logging.getLogger("featherpress")
    before = list(logger.handlers)

    def call(*arguments: str | Path) -> Ending:
        monkeypatch.setattr("sys.argv", ["featherpress", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as ending:
            code = ending.code if isinstance(ending.code, int) else int(bool(ending.code))
        captured = capsys.readouterr()
        return Ending(code, captured.out, captured.err)

    yield call
    logger.handlers[:] = before


@pytest.fixture(scope="session")
def print_plain() -> Callable[[RenderableType], str]:
    """Print anything of rich's as plain text of 80 columns."""

    def print_it(renderable: RenderableType) -> str:
        stream = io.StringIO()
        Console(file=stream, width=80, color_system=None, force_terminal=False).print(renderable)
        return "\n".join(line.rstrip() for line in stream.getvalue().splitlines()) + "\n"

    return print_it


@pytest.fixture
def wider(tmp_path: Path) -> Path:
    """A small folder in WIDER FACE's layout, made of synthetic faces."""
    faces = SyntheticFaces(length=4, seed=3, size=(96, 96))
    for split in ("train", "val"):
        lines = []
        for index in range(4):
            sample, name = faces[index], f"0--Test/{split}_{index}.jpg"
            path = tmp_path / "wider" / f"WIDER_{split}" / "images" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(path)
            boxes = [[round(v) for v in (x, y, x2 - x, y2 - y)] for x, y, x2, y2 in sample.objects.boxes.tolist()]
            rows = [f"{' '.join(map(str, box))} 0 0 0 0 0 0" for box in boxes] or ["0 0 0 0 0 0 0 0 0 0"]
            lines += [name, str(len(boxes)), *rows]
        labels = tmp_path / "wider" / "wider_face_split" / f"wider_face_{split}_bbx_gt.txt"
        labels.parent.mkdir(exist_ok=True)
        labels.write_text("\n".join(lines) + "\n")
    return tmp_path / "wider"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Weights of V2 as a run leaves them."""
    torch.manual_seed(0)
    path = tmp_path / "v2.safetensors"
    save_weights(create_model("featherface_v2"), path, metadata={"model": "featherface_v2"})
    return path


@pytest.fixture(scope="session", autouse=True)
def heard_signals() -> None:
    """Hear signals, which a shell that starts the tests in the background has them ignore."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for each in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    """Hold every test to the threads that it found: what one more costs, all tests after it would pay."""
    threads = torch.get_num_threads()
    yield
    assert torch.get_num_threads() == threads


@pytest.fixture
def more_threads(_threads_stay: None) -> Iterator[int]:
    """Compute with one thread more than before."""
    threads = torch.get_num_threads()
    torch.set_num_threads(threads + 1)
    yield threads + 1
    torch.set_num_threads(threads)


@pytest.fixture
def _handlers_put_back() -> Iterator[None]:
    """Leave signals to those that they had, whatever a test lets hear them."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)
