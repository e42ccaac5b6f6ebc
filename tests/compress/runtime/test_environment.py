"""What a record says of the machine."""

from pathlib import Path

import pytest
import torch

from featherpress.compress.runtime import environment


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("processor : 0\nflags\t\t: fpu avx512f avx512_vnni\n", " with VNNI"),
        ("flags : avx2 avx_vnni\n", " with VNNI"),
        ("flags : avx2\n", " without VNNI"),
        ("Features : asimd\n", ""),
        (None, ""),
    ],
)
def test_a_record_says_whether_the_processor_has_vnni(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, text: str | None, said: str
) -> None:
    """Where the system says so, by either of its names; else nothing is claimed."""
    monkeypatch.setattr(environment, "_CPUINFO", tmp_path / "cpuinfo")
    if text is not None:
        (tmp_path / "cpuinfo").write_text(text, encoding="utf-8")
    assert environment.software()["processor"] == torch.backends.cpu.get_cpu_capability() + said
