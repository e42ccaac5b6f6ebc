"""Files are replaced whole, or left as they were."""

import errno
import json
import os
import re
import threading
from contextlib import suppress
from pathlib import Path

import pytest
from torch import nn

from featherpress import files
from featherpress.budgets.auditing.budget_file import load_budget
from featherpress.budgets.files.weights import read_safetensors_header
from featherpress.compress.data.sources.label_lines import LabelLines
from featherpress.errors import BudgetFileError, FileError
from featherpress.files import read_bytes, replacing, stamp_file, write_json, write_text
from featherpress.models import save_weights
from featherpress.models.checkpoints import read_weights
from featherpress.models.saving import read_metadata
from featherpress.records.record import read_text


def test_a_failed_block_leaves_the_old_file(tmp_path: Path) -> None:
    """What was half written is removed, and the file keeps what it held."""
    path = tmp_path / "deep" / "a.bin"
    with replacing(path) as temporary:
        temporary.write_bytes(b"old")
    with suppress(RuntimeError), replacing(path) as temporary:
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [item.name for item in path.parent.iterdir()] == ["a.bin"]


def test_a_record_that_is_not_json_leaves_the_old_file(tmp_path: Path) -> None:
    """JSON has no NaN; the record before it stays."""
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "a.json", {"n": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"n": 1}


def test_what_is_no_file_is_not_replaced(tmp_path: Path) -> None:
    """A device and a pipe are written to, of a link the file is replaced, a folder is refused by its name."""
    write_text(Path(os.devnull), "text")
    assert Path(os.devnull).is_char_device()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    write_text(tmp_path / "pipe", "text")
    assert os.read(reader, 10) == b"text"
    os.close(reader)
    (tmp_path / "link").symlink_to(tmp_path / "file")
    write_text(tmp_path / "link", "text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "file").read_text() == "text"
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    write_text(tmp_path / "loop", "text")
    assert (tmp_path / "loop").read_text() == "text"
    with pytest.raises(IsADirectoryError) as refused:
        write_text(tmp_path, "text")
    assert refused.value.filename == str(tmp_path)


def test_what_never_ends_is_not_read(tmp_path: Path) -> None:
    """A device is refused, and so is a pipe among the files of a data set; a pipe that is named is read to its end."""
    (tmp_path / "link").symlink_to("/dev/zero")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a file"):
        read_bytes(tmp_path / "link")
    with pytest.raises(FileError, match="expected a readable file"):
        read_text(tmp_path / "link")
    with pytest.raises(BudgetFileError, match="not a file"):
        load_budget(tmp_path / "link")
    for name in ("link", "pipe"):
        with pytest.raises(OSError, match="not a file"):
            LabelLines(tmp_path / name)
    writing = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"text",))
    writing.start()
    assert read_bytes(tmp_path / "pipe") == b"text"
    writing.join()


def test_a_full_disk_says_what_it_was_to_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Weights, records and tables name their file, and leave nothing half written."""

    def refuse(_number: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", refuse)
    weights = nn.Linear(2, 2)
    for write in (lambda path: write_json(path, {}), lambda path: save_weights(weights, path)):
        with pytest.raises(OSError, match="No space left") as full:
            write(tmp_path / "a.safetensors")
        assert full.value.filename == str(tmp_path / "a.safetensors")
        assert [*tmp_path.iterdir()] == []


def test_a_stamp_changes_with_the_content(tmp_path: Path) -> None:
    """Of small files any byte, of large ones what a photograph would change; nothing for what is no file."""
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"a" * 1000)
    large.write_bytes(b"a" * 1_000_000)
    before = (stamp_file(small), stamp_file(large))
    os.utime(small, (0, 0))
    assert (stamp_file(small), stamp_file(large)) == before
    small.write_bytes(b"a" * 999 + b"b")
    large.write_bytes(b"a" * 500_000 + b"b" * 100_000 + b"a" * 400_000)
    assert stamp_file(small) != before[0]
    assert stamp_file(large) != before[1]
    os.mkfifo(tmp_path / "pipe")
    assert stamp_file(tmp_path / "pipe") == stamp_file(tmp_path / "nothing") == ""


def test_temporary_files_are_private() -> None:
    """What is temporary lies in a folder of `tempfile`, which nobody else may open, or beside what it becomes."""
    sources = [*Path(files.__file__).parent.rglob("*.py")]
    for folder in ("budgets", "compress", "models", "reports"):  # which may be links
        sources += (Path(files.__file__).parent / folder).resolve().rglob("*.py")
    assert len(sources) > 100
    shared = re.compile(r"mktemp\(|gettempdir|[\"']/(var/|dev/)?(tmp|shm)\b")
    assert [str(each) for each in sources if shared.search(each.read_text(encoding="utf-8"))] == []


def test_errors_name_the_file_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing may be written, or read, the file is named that was asked for, and why it cannot be."""
    file = tmp_path / "a.safetensors"
    save_weights(nn.Linear(2, 2), file)

    def refuse(path: Path, *_: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(PermissionError) as refused:
        write_text(file, "")
    assert refused.value.filename == str(file)
    for read in (read_metadata, read_weights, read_safetensors_header):
        with pytest.raises(FileError, match="Permission denied"):
            read(file)
