"""Files are replaced whole, or left as they were."""

import json
from contextlib import suppress
from pathlib import Path

import pytest

from featherpress.files import replacing, write_json


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
