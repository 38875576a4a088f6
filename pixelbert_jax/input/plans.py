"""The plans of the epochs in use: each is made once, that of the next epoch in the background."""

import threading
from collections.abc import Callable
from concurrent.futures import Future

from pixelbert_jax.input.order import Plan

KEPT = 2


class Plans:
  """Keeps the plans of two epochs, for many threads.

  A plan of millions of pairs takes seconds. All threads ask for it at once: the first one makes it,
  the others wait.
  """

  def __init__(self) -> None:
    self._lock = threading.Lock()
    self._plans = dict[int, Future[Plan]]()
    self._thread: threading.Thread | None = None

  def get(self, epoch: int, make: Callable[[int], Plan]) -> Plan:
    """Returns the plan of an epoch; raises what `make` raised, also if that was earlier."""
    with self._lock:
      known = self._plans.get(epoch)
      plan = known or self._claim(epoch)
    if not known:
      _fulfil(plan, epoch, make)
    return plan.result()

  def start(self, epoch: int, make: Callable[[int], Plan]) -> None:
    """Starts making a plan in the background, if there is none and no other is in the making.

    The thread does not keep the program from ending.
    """
    with self._lock:
      if epoch in self._plans or (self._thread and self._thread.is_alive()):
        return
      arguments = self._claim(epoch), epoch, make
      self._thread = threading.Thread(target=_fulfil, args=arguments, daemon=True)
      self._thread.start()

  def _claim(self, epoch: int) -> Future[Plan]:
    """Adds the plan of an epoch, still to be made, in place of the one most distant from it."""
    if len(self._plans) == KEPT:
      del self._plans[max(self._plans, key=lambda other: abs(other - epoch))]
    self._plans[epoch] = Future()
    return self._plans[epoch]


def _fulfil(plan: Future[Plan], epoch: int, make: Callable[[int], Plan]) -> None:
  """Makes a plan; an error goes to those who ask for it."""
  try:
    plan.set_result(make(epoch))
  except BaseException as error:
    plan.set_exception(error)
