"""Several processes that train one model, as on the hosts of a TPU slice.

All run the same program on their share of each batch. Only the first writes files and prints.
"""

import contextlib
import functools
import os
import sys
import traceback
from collections.abc import Callable, Iterator

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding

from pixelbert_jax import UserError, first_line, sharding

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
  # It catches SIGTERM, and sometimes nothing follows. A run hears signals itself (stopping.py).
  jax.config.update('jax_enable_preemption_service', False)
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
      print(
        f'error: another process was lost ({first_line(error)}): run again to resume',
        file=sys.stderr,
      )
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


def total(value: int) -> int:
  """Returns in every process the sum of the values of all."""
  if jax.process_count() == 1:
    return value
  return int(multihost_utils.process_allgather(np.asarray(value)).sum())


def agree(value: bool) -> bool:
  """Returns in every process the value of the first one."""
  if jax.process_count() == 1:
    return value
  return bool(multihost_utils.broadcast_one_to_all(np.asarray(value)))


def whether_any(value: bool) -> jax.Array:
  """Starts to find out whether the value is true in any process: bool [], the same in all.

  It does not wait: the devices work on it after what they were given before.
  """
  split, combine = _any()
  values = jax.make_array_from_callback((jax.device_count(),), split, lambda _: np.array([value]))
  return combine(values)


@functools.cache
def _any() -> tuple[NamedSharding, Callable[[jax.Array], jax.Array]]:
  mesh = sharding.make_mesh()
  split, same = sharding.batch_sharding(mesh), sharding.replicated(mesh)
  return split, jax.jit(lambda values: values.any(), out_shardings=same)
