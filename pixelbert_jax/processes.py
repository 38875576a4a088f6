"""Several processes that train one model, as on the hosts of a TPU slice.

All run the same program on their share of each batch. Only the first writes files and prints.
"""

import contextlib
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterator

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from pixelbert_jax import UserError

# The exit code that a shell gives an aborted process: JAX aborts the others when one is lost.
PEER_LOST = 134
# Words in the errors of collectives whose peer is lost, and of the service that watches processes.
LOST = ('Gloo', 'UNAVAILABLE', 'ABORTED', 'DEADLINE_EXCEEDED', 'CANCELLED', 'coordination')


def join() -> None:
  """Connects to the other processes; from then on only the first process prints.

  JAX finds them by itself on Cloud TPU, GKE with TPUs, Slurm and Open MPI. Elsewhere the
  environment names them: JAX_COORDINATOR_ADDRESS (host:port of the first process),
  JAX_NUM_PROCESSES, JAX_PROCESS_ID.

  Raises:
    UserError: neither names them.
  """
  numbers = [os.environ.get(f'JAX_{name}') for name in ('NUM_PROCESSES', 'PROCESS_ID')]
  count, number = (int(text) if text else None for text in numbers)
  try:
    # A host without a heartbeat for this long counts as lost.
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
    # Replaces the descriptor, because libraries print too.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def is_first() -> bool:
  """Tells whether this process writes files and prints; true for a single process."""
  return jax.process_index() == 0


def wait_for_all(where: str) -> None:
  """Waits until every process has reached the point named `where`."""
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices(where)


def wait_for_first(where: str, seconds: float) -> None:
  """Waits until every process has reached the point named `where`, before any computation.

  Collectives give up after half a minute where they have to connect first.
  """
  if jax.process_count() > 1:
    ocp.multihost.get_barrier_sync_fn()(key=where, timeout_ms=int(1000 * seconds))


@contextlib.contextmanager
def leaving_at_once() -> Iterator[None]:
  """Ends the process at once on an error; an orderly exit would deadlock with the other processes.

  The exit code is 1, or PEER_LOST if another process was lost.
  """
  try:
    yield
  except Exception as error:
    code = 1
    if isinstance(error, UserError | OSError):
      print(f'error: {error}', file=sys.stderr)
    elif tells_of_a_lost_process(error):
      code = PEER_LOST
      reason = str(error).splitlines()[0]
      print(f'error: another process was lost ({reason}): run again to resume', file=sys.stderr)
    else:
      traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def tells_of_a_lost_process(error: BaseException | None) -> bool:
  """Tells whether an error, or one of its causes, is that of a collective that lost its peer.

  It looks for words, because the type does not tell: collectives raise several types, and Orbax
  raises others in their place.
  """
  if error is None:
    return False
  return any(word in str(error) for word in LOST) or tells_of_a_lost_process(
    error.__cause__ or error.__context__
  )


@contextlib.contextmanager
def stop_signal() -> Iterator[Callable[[int], bool]]:
  """Yields a function that tells, given the number of a step, whether to stop after that step.

  It does so after a SIGTERM; in a single process, also after a SIGINT. Several processes all stop
  after the same step when one of them gets the signal; each must call the function at every step.
  A single process finishes the current step; a second signal ends it at once.
  """
  if jax.process_count() > 1:
    yield multihost_utils.reached_preemption_sync_point
    return
  event = threading.Event()

  def handler(number: int, _) -> None:
    event.set()
    # `print` is not safe here: the signal may have interrupted one.
    os.write(2, b'stopping after this step, to save it; a second signal stops at once\n')
    signal.signal(number, signal.SIG_DFL)

  before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield lambda step: event.is_set()
  finally:  # A notebook outlives the run.
    for number, previous in before.items():
      signal.signal(number, previous)
