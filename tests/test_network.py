"""Nothing is fetched and nothing is sent: commands work where no connection can be opened."""

import socket
from collections.abc import Callable
from typing import Any, NoReturn

import pytest


def test_no_command_opens_a_connection(run_command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """From counting to a report, no name is looked up and nothing is connected to."""
    asked = []

    def refuse(*given: object, **_named: object) -> NoReturn:
        asked.append(given)
        raise OSError("no network")

    for name in ("connect", "connect_ex", "sendto"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    small = ("data.train_images=16", "data.validation_images=8", "schedule.epochs=1", "schedule.batch_size=8")
    teacher = ("teacher.schedule.epochs=1", "teacher.schedule.batch_size=8")
    given = [part for setting in (*small, *teacher) for part in ("--set", setting)]
    monkeypatch.setattr("featherpress.compress.tasks.classification.base._BETTER_THAN_CHANCE", 0.0)
    for command in (
        ("models",),
        ("audit", "featherface_v2"),
        ("audit", "torchvision.models:shufflenet_v2_x0_5", "--input", "64"),
        ("distill", "classifier", "--no-preflight", "--out", "run", *given),
        ("evaluate", "--recipe", "run/recipe.toml", "--weights", "run/weights/last.safetensors"),
        ("report", "run"),
    ):
        ending = run_command(*command)
        assert ending.code == 0, (command, ending.err)
    assert asked == []
