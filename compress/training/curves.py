"""Curves for TensorBoard, written as they come, so that an error of the disk is raised where it happens."""

import os
import re
import socket
import time
from collections.abc import Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.summary.writer.record_writer import RecordWriter

from featherpress.files import naming

_NAME = re.compile(r"events\.out\.tfevents\.(\d+)\..*")


class Curves:
    """An event file in a folder; what files before it hold of the steps from `first` on is hidden."""

    def __init__(self, folder: Path, *, first: int) -> None:
        # TensorBoard reads files in the order of their names, which must be that of runs, whatever the clock says.
        before = [int(found[1]) + 1 for path in folder.iterdir() if (found := _NAME.fullmatch(path.name))]
        stamp = max([int(time.time()), *before])
        self.path = folder / f"events.out.tfevents.{stamp:010d}.{socket.gethostname()}.{os.getpid()}"
        self._write(Event(file_version="brain.Event:2"))
        self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))

    def add(self, step: int, values: Mapping[str, float]) -> None:
        """Add a point of each curve.

        Errors: `OSError` that names the file where it cannot be written.
        """
        points = [Summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._write(Event(step=step, wall_time=time.time(), summary=Summary(value=points)))

    def _write(self, event: Event) -> None:
        with naming(self.path), self.path.open("ab") as file:
            RecordWriter(file).write(event.SerializeToString())
