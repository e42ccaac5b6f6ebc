"""Two processes with a teacher learn what one learns from the doubled batch."""

import os
import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from torch import Tensor

from featherpress.compress.distillation import distiller

from .conftest import Net, distil, take

SCRIPT = Path(__file__).with_name("spread_distilling.py")
Runs = tuple[dict[str, Any], list[dict[str, Any]]]


def distil_in_one_and_two(factory: pytest.TempPathFactory, device: str) -> Runs:
    """Distil with one process and with two, on the same batches: 16 images at once, or 8 in each."""
    one, two = factory.mktemp("one"), factory.mktemp("two")
    with mock.patch.dict(os.environ, DEVICE=device):
        runpy.run_path(str(SCRIPT))["main"](one)
        command, world = [sys.executable, str(SCRIPT), str(two)], {**os.environ, "WORLD_SIZE": "2"}
        started = [
            subprocess.Popen(command, env={**world, "RANK": rank}, stderr=subprocess.PIPE, text=True) for rank in "01"
        ]
    for process in started:
        _, error = process.communicate(timeout=300)
        assert process.returncode == 0, error
    paths = (one / "0.pt", two / "0.pt", two / "1.pt")
    alone, *spread = (torch.load(path, weights_only=True, map_location="cpu") for path in paths)
    return alone, spread


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Distil on the CPU."""
    return distil_in_one_and_two(tmp_path_factory, "cpu")


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two GPUs")
def test_two_gpus_equal_the_doubled_batch(tmp_path_factory: pytest.TempPathFactory) -> None:
    """With NCCL, too, weights of student and adapters are those of one process, in every way of distilling."""
    alone, spread = distil_in_one_and_two(tmp_path_factory, "cuda")
    for way in ("parallel", "accumulated", "balanced", "sharded"):
        for part in ("student", "adapters"):
            for found in spread:
                torch.testing.assert_close(found[way][part], alone[way][part], atol=1e-4, rtol=0, msg=way)


SHARDS = pytest.mark.needs_torch("2.8", "sharding on a CPU")


@pytest.mark.parametrize("way", ["parallel", "accumulated", "balanced", pytest.param("sharded", marks=SHARDS)])
@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("part", ["student", "adapters"])
def test_two_processes_equal_the_doubled_batch(runs: Runs, way: str, rank: int, part: str) -> None:
    """Weights of student and adapters, which process 0 drew, are those of one process to 1e-5."""
    alone, spread = runs
    expected, found = alone[way][part], spread[rank][way][part]
    assert expected.keys() == found.keys()
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=0, msg=f"{way}: {key}")


def test_micro_batches_are_another_loss_for_pkd(runs: Runs) -> None:
    """Four micro-batches do not end where one batch does, so that equality above is no accident of small steps."""
    alone, _ = runs
    weights = [alone[way]["student"]["two.weight"] for way in ("parallel", "accumulated", "balanced")]
    assert (weights[0] - weights[1]).abs().max() > 1e-4
    assert (weights[0] - weights[2]).abs().max() > 1e-4


@SHARDS
def test_sharded_student_is_sharded_again_after_the_example(runs: Runs) -> None:
    """An optimizer made after the Distiller holds the shards, not whole weights."""
    _, spread = runs
    assert spread[0]["sharded"]["kinds"] == ["DTensor"]


def test_forward_on_the_unwrapped_model_skips_the_gradients_sync(runs: Runs) -> None:
    """The students drift apart, and `verify` cannot see it; the adapters, which the Distiller averages, do not."""
    _, (first, second) = runs
    apart = first["unwrapped"]["student"]["one.weight"] - second["unwrapped"]["student"]["one.weight"]
    assert apart.abs().max() > 1e-4
    assert first["unwrapped"]["checks"]
    for key, value in first["unwrapped"]["adapters"].items():
        assert torch.equal(value, second["unwrapped"]["adapters"][key])


def test_gradients_of_adapters_are_averaged_once_a_backward(student: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """With another process whose gradients are zero they are half of one's own, in one collective a backward."""
    sums: list[int] = []

    def add(flat: Tensor) -> None:
        sums.append(flat.numel())

    monkeypatch.setattr(distiller.distributed, "all_reduce", add)
    monkeypatch.setattr(distiller.distributed, "broadcast", lambda *_, **__: None)
    for processes in (1, 2):
        monkeypatch.setattr(distiller, "process_count", lambda own=processes: own)
        kd = distil(student)
        for _ in range(2):
            take(kd, student).backward()
        grads = [weight.grad for weight in kd.parameters()]
        if processes == 1:
            alone = grads
    assert sums == [sum(weight.numel() for weight in kd.parameters())] * 2
    # The first backward's half is halved again with the second's.
    for ours, whole in zip(grads, alone, strict=True):
        torch.testing.assert_close(ours, 0.375 * whole)
