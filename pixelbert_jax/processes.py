"""Several processes that train one model, as on the hosts of a TPU slice.

All run the same program on their share of each batch. The first one writes and speaks.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import jax
from jax.experimental import multihost_utils

from pixelbert_jax import UserError

# What a shell calls a process that aborted: so JAX ends the rest once one of them is gone.
PEER_LOST = 134
# In errors of collectives whose other end is gone, and of the service that watches all processes.
LOST = ('Gloo', 'UNAVAILABLE', 'ABORTED', 'DEADLINE_EXCEEDED', 'CANCELLED', 'coordination')


def join() -> None:
  """Waits for the others; only the first process prints from here on.

  Who they are is known on Cloud TPU, GKE with TPUs, Slurm and Open MPI. Elsewhere the environment
  says it: JAX_COORDINATOR_ADDRESS (host:port of the first), JAX_NUM_PROCESSES, JAX_PROCESS_ID.

  Raises:
    UserError: nothing says who they are.
  """
  numbers = [os.environ.get(f'JAX_{name}') for name in ('NUM_PROCESSES', 'PROCESS_ID')]
  count, number = (int(text) if text else None for text in numbers)
  try:
    # A lost host is noticed by its missing heartbeats.
    heartbeat = int(os.environ.get('PIXELBERT_HEARTBEAT_SECONDS', '100'))
    jax.distributed.initialize(
      num_processes=count, process_id=number, heartbeat_timeout_seconds=heartbeat
    )
  except ValueError as error:
    raise UserError(
      f'--distributed: {str(error).rstrip(".")}: outside Cloud TPU, GKE and Slurm set '
      'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID'
    ) from error
  if not is_first():
    # The descriptor, for what libraries print.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_first() -> bool:
  """Whether this is the process that writes files and speaks; true if it is alone."""
  return jax.process_index() == 0


def wait_for_all(where: str) -> None:
  """Returns once every process has come here."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(where)


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
  """Ends the process on an error: leaving in order would wait for the others, who wait for it.

  The exit code is 1, or PEER_LOST if it was another process that went.
  """
  try:
    yield
  except Exception as error:
    code = 1
    if isinstance(error, UserError | OSError):
      print(f'error: {error}', file=sys.stderr)
    elif tells_of_a_lost_process(error):
      code = PEER_LOST
      print(f'error: another process is gone ({str(error).splitlines()[0]})', file=sys.stderr)
    else:
      traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tells_of_a_lost_process(error: BaseException | None) -> bool:
  """Whether an error, or one that it came of, is that of a collective without its other end.

  Its type says nothing: collectives raise several, and Orbax others in their place.
  """
  if error is None:
    return False
  return any(word in str(error) for word in LOST) or tells_of_a_lost_process(
    error.__cause__ or error.__context__
  )


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
  """Whether to stop after a step, given by its number: SIGTERM (alone, SIGINT too) has come.

  Of several processes all stop after the same step when one was told to; each must ask at each
  step. Alone, the step in progress is finished first, and a second signal ends the program at once.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  event = threading.Event()

  def handler(number: int, _) -> None:
    event.set()
    # Not by print: the program may be in the middle of one.
    os.write(2, b'stopping after this step, to save it; a second time stops at once\n')
    signal.signal(number, signal.SIG_DFL)

  before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield lambda step: event.is_set()
  finally:  # A notebook goes on after a run.
    for number, own in before.items():
      signal.signal(number, own)
