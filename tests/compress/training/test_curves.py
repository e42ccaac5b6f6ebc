"""Event files as TensorBoard reads them."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from featherpress.compress.training.curves import Curves


def test_a_resumed_run_hides_what_it_does_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every value has its step, the later run's where both have one, though its clock was put back."""
    first = Curves(tmp_path, first=1)
    for step in (1, 2, 3):
        first.add(step, {"loss": step / 2, "val_ap": 0.5})
    monkeypatch.setattr("time.time", lambda: 86_400.0)
    again = Curves(tmp_path, first=3)
    again.add(3, {"loss": 9.0})
    read = EventAccumulator(str(tmp_path)).Reload()
    assert [(point.step, point.value) for point in read.Scalars("loss")] == [(1, 0.5), (2, 1.0), (3, 9.0)]
    assert [point.step for point in read.Scalars("val_ap")] == [1, 2]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_an_error_where_it_happens(tmp_path: Path) -> None:
    """It names the file."""
    curves = Curves(tmp_path, first=1)
    curves.path = Path("/dev/full")
    with pytest.raises(OSError, match="No space left") as full:
        curves.add(1, {"loss": 0.5})
    assert full.value.filename == "/dev/full"
