"""Run directories and states: nothing half-written, nothing lost."""

import errno
import logging
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from featherpress.compress.runtime.distributed import open_processes
from featherpress.compress.runtime.logs import log_into
from featherpress.compress.runtime.ranks import is_leader
from featherpress.compress.runtime.run_folder import MetricsFile, TrainingFolder, open_run
from featherpress.compress.training.checkpoints import latest_state, save_state
from featherpress.errors import TrainingError, UsageError


def test_filled_folder_is_refused(tmp_path: Path) -> None:
    """A run does not write where something lies, unless told to go on or to start again."""
    out = tmp_path / "run"
    with open_run(out):
        (out / "recipe.toml").write_text("x")
    with pytest.raises(UsageError, match=r"--resume.*--overwrite"), open_run(out):
        pass
    with open_run(out, resume=True):
        assert (out / "recipe.toml").exists()
    (out / "labels" / "1").mkdir(parents=True)
    (out / "labels-2.json").write_text("{}")
    with open_run(out, overwrite=True):
        assert [path.name for path in out.iterdir()] == [".lock"]


def test_overwrite_spares_what_is_no_run(tmp_path: Path) -> None:
    """`--overwrite` does not empty a folder that does not look like a run."""
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="does not look like a run"), open_run(tmp_path, overwrite=True):
        pass
    assert (tmp_path / "thesis.tex").exists()


def test_nothing_to_resume(tmp_path: Path) -> None:
    """Resuming what is not there is a mistake, and so is a file in the folder's place."""
    with pytest.raises(UsageError, match="no run"), open_run(tmp_path / "gone", resume=True):
        pass
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file"), open_run(tmp_path / "file"):
        pass


def test_second_process_is_kept_out(tmp_path: Path) -> None:
    """While one process works in a folder, another is refused."""
    with open_run(tmp_path / "run"):
        (tmp_path / "run" / "recipe.toml").write_text("x")
        with pytest.raises(UsageError, match="another process"), open_run(tmp_path / "run", resume=True):
            pass


def test_a_run_owns_its_folder(tmp_path: Path) -> None:
    """No other run begins inside it, whether it is going or not; what a stopped run half wrote is removed."""
    with open_run(tmp_path / "run") as out:
        (out / "provenance.json").write_text("{}")
        (out / "state").mkdir()
        (out / "state" / ".step-00000008.pt.77.partial").write_text("half")
        with pytest.raises(UsageError, match="lies in the run"), open_run(out / "control"):
            pass
    assert not (tmp_path / "run" / "control").exists()
    with open_run(tmp_path / "run", resume=True) as out:
        assert [*(out / "state").iterdir()] == []


@pytest.mark.parametrize("error", [OSError(errno.ENOLCK, "No locks available"), NotImplementedError("no flock")])
def test_a_file_system_without_locks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    """Where nothing can be locked a run says so and goes on; a folder that may not be written is an error as ever."""

    def refuse(_lock: object, **_options: object) -> None:
        raise error

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with open_run(tmp_path / "run"):
        assert "cannot be locked here" in caplog.text
    error = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(PermissionError), open_run(tmp_path / "other"):
        pass


def test_ranks_without_a_world(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number left in the environment makes no process a follower, and is forgotten before accelerate sees it."""
    for name in ("RANK", "LOCAL_RANK"):
        monkeypatch.setenv(name, "1")
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert is_leader()
    open_processes()
    assert not {"RANK", "LOCAL_RANK"} & os.environ.keys()
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not is_leader()


def test_metrics_go_on_where_the_state_is(tmp_path: Path) -> None:
    """Rows after the state's step, and a row cut short by a kill, are dropped and written again."""
    metrics = MetricsFile(tmp_path / "metrics.csv", ("step", "loss", "val_ap"))
    metrics.keep_until(0)
    for step in range(1, 5):
        metrics.append({"step": step, "loss": step / 2})
    with (tmp_path / "metrics.csv").open("a") as file:
        file.write("5,")
    metrics.keep_until(2)
    metrics.append({"step": 3, "val_ap": 0.25})
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,val_ap\n1,0.5,\n2,1,\n3,,0.25\n"
    metrics.keep_until(3, evaluated=2)
    assert (tmp_path / "metrics.csv").read_text() == "step,loss,val_ap\n1,0.5,\n2,1,\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_names_what_is_lost(caplog: pytest.LogCaptureFixture) -> None:
    """A row that cannot be kept says where; lines of a log that cannot are let go, and are no error as it is closed."""
    with pytest.raises(OSError, match="No space left") as full:
        MetricsFile(Path("/dev/full"), ("step",)).append({"step": 1})
    assert full.value.filename == "/dev/full"
    with log_into(Path("/dev/full")):
        logging.getLogger("featherpress").warning("said")
    assert "said" in caplog.text


def whole_state(step: int) -> dict[str, Any]:
    """Make a state with everything that a run reads back."""
    names = (
        "epochs",
        "best",
        "stale",
        "model",
        "average",
        "updates",
        "distiller",
        "optimizer",
        "scheduler",
        "scaler",
        "random",
    )
    return {"step": step, **{name: torch.ones(3) for name in names}, "belongs_to": ""}


def test_broken_state_falls_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The newest state that is whole is taken, and a broken newer one is named; two are kept."""
    folder = TrainingFolder(tmp_path)
    assert latest_state(folder, "") is None
    for step in (1, 2, 3):
        save_state(folder, step, whole_state(step))
    assert [path.name for path in folder.states] == ["step-00000003.pt", "step-00000002.pt"]
    newest = folder.state(3)
    content = newest.read_bytes()
    for broken in (content[:200], b"hello", b""):
        newest.write_bytes(broken)
        state = latest_state(folder, "")
        assert state is not None
        assert state["step"] == 2
        assert "step-00000003.pt is broken" in caplog.text
    torch.save({"step": 3}, newest)
    assert (latest_state(folder, "") or {})["step"] == 2


def test_refused_disk_keeps_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the disk refuses, the error is one sentence and the state before stays."""
    folder = TrainingFolder(tmp_path)
    save_state(folder, 1, whole_state(1))

    def refuse(*_arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", refuse)
    with pytest.raises(TrainingError, match="No space left"):
        save_state(folder, 2, {"step": 2})
    state = latest_state(folder, "")
    assert state is not None
    assert state["step"] == 1
