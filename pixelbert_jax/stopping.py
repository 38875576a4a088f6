"""Stopping a run early on a signal: SIGTERM or SIGINT.

Within `stop_signal` the run asks at points where it can stop (`asked`, `leave_if_asked`). Several
processes all stop at the same point when one of them gets the signal, so each must ask at the same
points. A single process also hears the signal while it compiles or evaluates, which may take
minutes (`heard`). A second signal ends the process at once.
"""

import contextlib
import contextvars
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import jax

from pixelbert_jax import processes

Result = TypeVar('Result')

POLL_SECONDS = 0.1
# What evaluates looks at the request between batches, and ends by itself if they are short.
GRACE_SECONDS = 2
# Points after which several processes act on a signal. What they exchanged is there by then, since
# two batches at most are on the devices: asking takes no time.
DELAY = 2


class Stopped(Exception):
  """Work that ended early, since a signal asked for it."""


class _Stop:
  """Whether a run is asked to stop."""

  def __init__(self) -> None:
    self.event = threading.Event()
    self._agreed, self._exchanged = False, deque[jax.Array]()

  def asked(self) -> bool:
    if jax.process_count() == 1:
      return self.event.is_set()
    if not self._agreed:
      self._exchanged.append(processes.whether_any(self.event.is_set()))
      self._agreed = len(self._exchanged) > DELAY and bool(self._exchanged.popleft())
    return self._agreed


# Not a plain global: a thread that was left behind still belongs to the run that was stopped.
_stop: contextvars.ContextVar[_Stop | None] = contextvars.ContextVar('stop', default=None)
_left: list[threading.Thread] = []


@contextlib.contextmanager
def stop_signal() -> Iterator[None]:
  """Turns the signals, in this block, into a request to stop."""
  stop = _Stop()
  token = _stop.set(stop)

  def handler(number: int, _: Any) -> None:
    stop.event.set()
    # `print` is not safe here: the signal may have interrupted one.
    os.write(2, b'stopping as soon as all is saved; a second signal stops at once\n')
    signal.signal(number, signal.SIG_DFL)

  before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  finally:  # A notebook outlives the run.
    _stop.reset(token)
    for number, previous in before.items():
      signal.signal(number, previous)


def asked() -> bool:
  """Tells whether to stop here; each of several processes must ask at the same points."""
  stop = _stop.get()
  return stop is not None and stop.asked()


def leave_if_asked() -> None:
  """Raises Stopped if `asked`."""
  if asked():
    raise Stopped


def heard(work: Callable[[], Result]) -> Result:
  """Returns what `work` returns; raises Stopped as soon as a signal asks for it.

  Python hears signals in the main thread alone, between two of its instructions. So the work runs
  in another thread, which is left behind if it does not end. In several processes, which can only
  stop at the same point, it runs as it is.
  """
  stop = _stop.get()
  if stop is None or jax.process_count() > 1:
    return work()
  results, errors, done = list[Result](), list[BaseException](), threading.Event()

  def run() -> None:
    try:
      results.append(work())
    except BaseException as error:  # raised below, in the thread that waits
      errors.append(error)
    finally:
      done.set()

  context = contextvars.copy_context()
  thread = threading.Thread(target=context.run, args=(run,), daemon=True)
  thread.start()
  while not done.wait(POLL_SECONDS):
    if stop.asked() and not done.wait(GRACE_SECONDS):
      _left.append(thread)
      raise Stopped
  for error in errors:
    raise error
  return results[0]


def ended(code: int) -> int:
  """Returns an exit code; ends the process with it if work that was left behind still runs.

  An ordinary exit would wait for that work.
  """
  if any(thread.is_alive() for thread in _left):
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  return code
