"""The room that saving a step takes, and the errors where there is none, in one line."""

import contextlib
import functools
import logging
import pathlib
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import orbax.checkpoint
from etils import epath

from pixelbert_jax import disk
from pixelbert_jax.checkpoints.workdir import check_owned

Tree = Any

ORBAX = pathlib.Path(orbax.checkpoint.__file__).parent
GRACE_SECONDS = 10
CURE = 'take another --workdir; the steps before are whole'


class Room:
  """The room for steps in a workdir."""

  def __init__(self, workdir: epath.Path | pathlib.Path):
    self._workdir, self._needed = workdir, 0

  def check(self, state: Tree) -> None:
    """Raises disk.WriteError if a state is larger than the room on the disk."""
    self._needed = sum(x.nbytes for x in jax.tree.leaves(state))
    disk.check_room(self._workdir / 'checkpoints', self._needed, CURE)

  @contextlib.contextmanager
  def saving(self, state: Tree = None) -> Iterator[None]:
    """Makes what Orbax raises where a disk cannot be written a disk.WriteError.

    Checks the room first for a state that is about to be saved.

    Orbax writes in threads of its own: what they print is omitted where that error tells the same.

    Raises:
      LockError: another process has taken the workdir; nothing is written.
    """
    check_owned(self._workdir)
    if state is not None:
      self.check(state)
    omit_repeated()
    try:
      with disk.writing(self._workdir / 'checkpoints', self._needed, CURE):
        yield
    except disk.WriteError:
      _let_end()
      raise


def _let_end() -> None:
  """Waits for Orbax's threads of a failed save: as Python ends, they would fail once more."""
  for thread in threading.enumerate():
    if type(thread).__module__.startswith('orbax.'):
      threading.Thread.join(thread, GRACE_SECONDS)  # Their own would raise the error again.


@functools.cache
def omit_repeated() -> None:
  """Keeps Orbax, asyncio and TensorStore from printing each failed read or write again."""

  def is_new(record: logging.LogRecord) -> bool:
    # Orbax reads arrays together: the first failure is raised, and asyncio tells of the others.
    if record.name == 'asyncio' and 'exception was never retrieved' in str(record.msg):
      return False
    return disk.fault_of_disk(record.exc_info[1] if record.exc_info else None) is None

  for name in ('absl', 'asyncio'):
    logging.getLogger(name).addFilter(is_new)
  shown = sys.unraisablehook

  def show(what: Any) -> None:
    # TensorStore reports writes to the loop of a save that has failed, and so is closed. What Orbax
    # had begun to read beside an array that failed is closed by Python, which it takes for errors.
    code = getattr(what.object, 'cr_code', None)
    of_orbax = code is not None and pathlib.Path(code.co_filename).is_relative_to(ORBAX)
    if str(what.exc_value) != 'Event loop is closed' and not of_orbax:
      shown(what)

  sys.unraisablehook = show
