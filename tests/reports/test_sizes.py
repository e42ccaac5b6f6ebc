"""Reports of many: figures are let go once they are written, and a run more takes little memory."""

import gc
import shutil
import tracemalloc
import weakref
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from featherpress.reports import write_report


def test_a_figure_is_let_go_once_it_is_written(one_seed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One figure is in memory at a time, whatever a report shows, and pyplot knows of none."""
    drawn: list[weakref.ref[Figure]] = []
    alive = []

    def watch(figure: Figure, file: Path) -> None:
        drawn.append(weakref.ref(figure))
        gc.collect()
        alive.append(sum(each() is not None for each in drawn))
        file.touch()

    monkeypatch.setattr("featherpress.reports.report.save", watch)
    write_report([one_seed])
    from matplotlib import pyplot

    assert alive == [1] * 8
    assert pyplot.get_fignums() == []


@pytest.mark.usefixtures("undrawn")
def test_a_run_more_takes_little_memory(one_seed: Path, tmp_path: Path) -> None:
    """Beyond its figures a run costs its records and its text: a fraction of a megabyte."""
    runs = [Path(shutil.copytree(one_seed, tmp_path / f"run{number}")) for number in range(12)]
    write_report(runs[:1], tmp_path / "first")  # what is imported and kept once
    few, many = (_peak(runs[:count], tmp_path / f"of-{count}") for count in (2, 12))
    assert (many - few) / 10 < 0.5 * 1024**2


def _peak(runs: list[Path], out: Path) -> int:
    gc.collect()
    tracemalloc.start()
    write_report(runs, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak
