"""What commands share: what a run's models are said to be built from, and who says how it ended."""

import pytest

from featherpress.commands.model_names import settings_of
from featherpress.commands.printing import print_closing


def test_settings_are_the_presets_under_those_given() -> None:
    """A zoo model has its preset's settings, overridden where the recipe says so; another model what it was given."""
    found = settings_of("featherface_v2", {"bifpn_repeats": 3})
    assert (found["out_channels"], found["bifpn_repeats"]) == (32, 3)
    assert settings_of("package.module:factory", {"width": 8}) == {"width": 8}
    assert settings_of("package.module:factory", {}) == {}


def test_one_process_of_a_run_prints_its_closing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of the processes that torchrun started, the first says how the run ended."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    print_closing("trained: here")
    assert capsys.readouterr().out == ""
    monkeypatch.setenv("RANK", "0")
    print_closing("a table", "trained: here")
    assert capsys.readouterr().out == "a table\ntrained: here\n"
