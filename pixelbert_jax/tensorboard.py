"""TensorBoard's log of a run, written in this thread.

`tensorboardX.SummaryWriter` writes in a thread of its own. On a full disk that thread dies with a
traceback, and the next values wait for it for ever.
"""

import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

# tensorboardX imports PyTorch where it is installed, which takes seconds and is not needed here.
modules: dict[str, Any] = sys.modules
modules.setdefault('torch', None)
from tensorboardX.event_file_writer import EventsWriter  # noqa: E402
from tensorboardX.proto.event_pb2 import Event, SessionLog  # noqa: E402
from tensorboardX.summary import scalar  # noqa: E402

if modules['torch'] is None:
  del modules['torch']


class Board:
  """A new event file in a folder."""

  def __init__(self, folder: pathlib.Path, purge_step: int):
    """Makes the file; TensorBoard then hides what earlier ones hold from `purge_step` on."""
    folder.mkdir(parents=True, exist_ok=True)
    self._writer = EventsWriter(str(folder / 'events'))
    self._add(purge_step, file_version='brain.Event:2')
    self._add(purge_step, session_log=SessionLog(status=SessionLog.START))

  def write(self, step: int, values: Mapping[str, float]) -> None:
    """Adds values at a step, by name."""
    for name, value in values.items():
      self._add(step, summary=scalar(name, value))

  def sync(self) -> None:
    """Flushes all values to disk."""
    self._writer.flush()

  def close(self) -> None:
    """Flushes and closes the file."""
    self._writer.close()

  def _add(self, step: int, **content) -> None:
    self._writer.write_event(Event(step=step, wall_time=time.time(), **content))
