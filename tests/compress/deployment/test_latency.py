"""Measuring in turns, and what a benchmark's record holds; never how fast anything is."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
from rich.console import RenderableType

from featherpress import extras
from featherpress.compress.deployment.backends import write_onnx_files
from featherpress.compress.deployment.graphs import GraphOptions, find_subject
from featherpress.compress.deployment.latency import interleave
from featherpress.compress.deployment.listing import render_bench
from featherpress.compress.deployment.memory import peak_memory

Run = Callable[..., Any]


def test_measuring_takes_turns() -> None:
    """Everything runs once a round, in turns, and what warms up is not measured."""
    calls: list[str] = []
    seconds = interleave({name: lambda name=name: calls.append(name) for name in "ab"}, rounds=3, warm_up=1)
    assert calls == list("abababab")
    assert {name: len(each) for name, each in seconds.items()} == {"a": 3, "b": 3}


@pytest.mark.needs_torch("2.9", "exporting")
def test_bench_writes_a_record(run_command: Run, nets: Path, tmp_path: Path) -> None:
    """Two sizes and three backends give six rows with the model's costs, and nothing on standard error."""
    backends = [part for name in ("eager", "fused", "onnx-int8") for part in ("--backend", name)]
    sizes = ["--size", "64", "--size", "96"]
    ending = run_command(
        "bench", "export_nets:small", *backends, *sizes, "--rounds", "2", "--no-memory", "--out", "bench.json", "--json"
    )
    assert ending.code == 0, ending.err
    assert ending.err == ""
    record = json.loads(ending.out)
    assert record == json.loads((tmp_path / "bench.json").read_text())
    assert record["schema"] == "featherpress.bench/1"
    assert (record["rounds"], record["threads"]) == (2, 1)
    assert [(row["size"], row["backend"]) for row in record["results"]] == [
        (size, backend) for size in (64, 96) for backend in ("eager", "fused", "onnx-int8")
    ]
    assert record["plan"] == {"by": "all"}
    macs = {row["size"]: row["macs"] for row in record["results"]}
    assert macs[96] > macs[64] > 0
    for row in record["results"]:
        latency = row["latency_ms"]
        assert 0 < latency["p10"] <= latency["median"] <= latency["p90"]
        assert row["images_per_second"] == pytest.approx(1000 / latency["median"])


def test_bench_says_what_is_in_eight_bits(run_command: Run, print_plain: Callable[[RenderableType], str]) -> None:
    """A line says it where int8 was timed; neither line nor entry is there where it was not."""
    options = ("--size", "64", "--rounds", "1", "--no-memory", "--backend", "eager", "--json")
    record = json.loads(run_command("bench", "retinaface_mnet025", *options).out)
    assert "plan" not in record
    assert "onnx-int8" not in print_plain(render_bench(record))
    assert "onnx-int8: plan all, every convolution" in print_plain(render_bench(record | {"plan": {"by": "all"}}))


def test_bench_leaves_out_what_is_not_installed(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A backend that cannot run is left out with the reason; when none can, that is a mistake."""
    monkeypatch.setitem(extras.PACKAGES, "export", ("no_such_package",))
    arguments = ("bench", "retinaface_mnet025", "--size", "64", "--rounds", "1", "--no-memory", "--backend", "onnx")
    ending = run_command(*arguments)
    assert ending.code == 2
    assert "pip install 'featherpress[export]'" in ending.err
    table = run_command(*arguments, "--backend", "eager").out
    assert "onnx: left out, as no-such-package" in " ".join(table.split())
    assert max(map(len, table.splitlines())) <= 80


def test_bench_leaves_out_what_cannot_be_compiled(run_command: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever torch.compile ends in is a reason, and the other backends are measured all the same."""

    def refuse(*_given: object, **_named: object) -> NoReturn:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr("torch.compile", lambda *_, **__: refuse)
    monkeypatch.setattr("featherpress.compress.deployment.latency.why_not", lambda _: "")
    arguments = ("bench", "retinaface_mnet025", "--size", "64", "--rounds", "1", "--no-memory", "--backend", "compiled")
    ending = run_command(*arguments)
    assert ending.code == 2
    assert "nothing to measure: compiled is left out, as for retinaface_mnet025 torch.compile fails here" in ending.err
    assert "uid not found" in " ".join(run_command(*arguments, "--backend", "eager").out.split())


@pytest.mark.needs_torch("2.9", "exporting")
def test_memory_is_measured_in_a_child(nets: Path, tmp_path: Path) -> None:
    """A child process says how far memory rose, more for more images; a broken file says nothing."""
    subject = find_subject("export_nets:small", None, options=GraphOptions())
    file = write_onnx_files(subject, tmp_path, int8=False)["onnx"]

    def peak(batch: int) -> int | None:
        return peak_memory("small", "onnx", size=320, batch=batch, threads=1, file=file)

    one, many = peak(1), peak(16)
    if one is None or many is None:
        pytest.skip("needs /proc/self/clear_refs, which this system does not let a process write")
    assert many > one > 0
    file.write_bytes(b"no graph")
    assert peak(1) is None
