"""The command `pixelbert_jax.main` on a mesh that is not process by process, as on a TPU slice.

    python -m tests.support.woven FLAGS

takes the flags of `pixelbert_jax.main`. With DIES=1:save:6 process 1 kills itself as it starts to
save step 6; so it does at the start of what else is in `PLACES`, counted from 1.
"""

import os
import signal
import sys

import jax
import numpy as np
from jax.experimental import mesh_utils, multihost_utils

from pixelbert_jax import main, stopping
from pixelbert_jax.bad_batch import BadBatches
from pixelbert_jax.checkpoints import saved
from pixelbert_jax.checkpoints.checkpoint import Checkpoints

# What a process calls, by the word for it; in a save, after it has begun.
PLACES = {
  'step': (BadBatches, 'add'),
  'save': (Checkpoints, 'save'),
  'batch': (stopping, 'leave_if_asked'),  # of an evaluation
  'gathering': (multihost_utils, 'process_allgather'),
  'restore': (saved, 'read'),
}


def woven(sizes, devices=None, **_) -> np.ndarray:
  """Orders the devices for a mesh of these sizes: those of two halves in turn."""
  return np.array(devices or jax.devices()).reshape(2, -1).T.reshape(sizes)


def die(process: int, place: str, number: int) -> None:
  """Makes a process kill itself in the call `number` of a place."""
  owner, name = PLACES[place]
  call, left = getattr(owner, name), [number]

  def dying(*arguments, **options):
    left[0] -= jax.process_index() == process
    result = call(*arguments, **options) if place == 'save' or left[0] else None
    if left[0] == 0 and jax.process_index() == process:
      os.kill(os.getpid(), signal.SIGKILL)
    return result

  setattr(owner, name, dying)


if __name__ == '__main__':
  mesh_utils.create_device_mesh = woven
  if 'DIES' in os.environ:
    process, place, number = os.environ['DIES'].split(':')
    die(int(process), place, int(number))
  sys.exit(main.main(sys.argv[1:]))
