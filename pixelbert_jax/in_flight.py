"""The (micro-)batches that the devices work on: few at a time, and how long they waited for one."""

import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import jax

Batch = TypeVar('Batch')

# One is computed while the next is put beside it. More would only take memory.
MOST = 2


class InFlight:
  """The (micro-)batches in flight, and the time that devices stood idle before one arrived.

  JAX returns before a program has run. A thread of its own sees when that is, so that time in which
  the host waits for data, but the devices still compute, does not count.
  """

  def __init__(self) -> None:
    self._watch = ThreadPoolExecutor(1, 'in_flight')
    self._running = deque[Future[float]]()
    self._waited, self._since = 0.0, time.perf_counter()

  def take(self, batches: Iterator[Batch]) -> Batch:
    """Returns the next batch, once all but the last of those that were taken before are done."""
    while len(self._running) >= MOST:
      self._running.popleft().result()
    asked = time.perf_counter()
    batch = next(batches)
    arrived = idle = time.perf_counter()
    if not self._running:
      idle = asked
    elif self._running[-1].done():
      idle = max(asked, self._running[-1].result())
    self._waited += arrived - idle
    return batch

  def add(self, result: jax.Array) -> None:
    """Adds what was started on the batch that was taken; `result` is not donated afterwards."""
    self._running.append(self._watch.submit(_end, result))

  def follow(self, result: jax.Array) -> None:
    """Adds what was started after the last batch, without one of its own."""
    if self._running:
      self._running.pop()
    self.add(result)

  def waiting(self) -> float:
    """Returns the share of the time since the last call in which the devices waited for data."""
    now = time.perf_counter()
    share = self._waited / max(now - self._since, 1e-9)
    self._waited, self._since = 0.0, now
    return share


def _end(result: jax.Array) -> float:
  result.block_until_ready()
  return time.perf_counter()
