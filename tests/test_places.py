"""What is there is replaced by the same command's next result alone."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]
AUDIT = ("audit", "featherface_v2", "--pin", "kept")
BENCH = (
    "bench",
    "featherface_v2",
    "--backend",
    "eager",
    "--size",
    "32",
    "--rounds",
    "1",
    "--no-memory",
    "--out",
    "kept",
)
PRUNE = ("prune", "featherface_v2", "--params", "256K", "--input", "64", "--out", "kept.safetensors")


@pytest.mark.parametrize("command", [AUDIT, BENCH, PRUNE], ids=lambda command: command[0])
def test_only_its_own_is_replaced(run_command: Run, weights: Path, command: tuple[str, ...]) -> None:
    """A command replaces what it wrote before and an empty file; a person's file, or other weights, it refuses."""
    file, others = Path(command[-1]), (b"a person's notes\n", b'{"schema": "mine/1"}', weights.read_bytes())
    for content in others:
        file.write_bytes(content)
        ending = run_command(*command)
        assert ending.code == 2
        assert ending.err.count("\n") == 1
        assert "is not replaced; name another file" in ending.err
        assert file.read_bytes() == content
    file.write_bytes(b"")
    for _ in range(2):
        assert run_command(*command).code == 0
        assert file.read_bytes()


def test_a_run_has_a_place_before_it_is_tried(
    run_command: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing can be written, neither images are looked at nor steps taken first."""
    monkeypatch.setattr("os.access", lambda path, _mode: Path(path) != tmp_path)
    for command in (("distill", "digits"), ("sweep", "digits", "--params", "3K", "--by", "prune")):
        ending = run_command(*command)
        assert ending.code == 2
        assert ending.err.endswith(f" cannot be written: {tmp_path} is read-only\n")
        assert ending.err.count("\n") == 1
