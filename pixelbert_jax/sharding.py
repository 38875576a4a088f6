"""How arrays lie on the devices: batches split by rows, large arrays of the state by one rule.

The mesh has two axes. Batches are split over both; arrays of the state (parameters, optimiser
state, statistics) over `fsdp` alone, and are copies along `data`. Arithmetic is written for global
arrays: XLA adds what each device has of a loss, a metric or BatchNorm's statistics.
"""

import math
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pixelbert_jax import UserError

Tree = Any

AXES = ('data', 'fsdp')
# Elements. To gather an array that is smaller than this takes longer than it is worth.
LARGE = 2**16


def make_mesh(data: int = -1, fsdp: int = 1) -> Mesh:
  """All devices of all processes on the axes `data` and `fsdp`; -1 is whatever is left.

  Raises:
    UserError: the numbers do not make up the devices.
  """
  devices, sizes = jax.device_count(), [data, fsdp]
  if -1 in sizes:
    sizes[sizes.index(-1)] = devices // max(-math.prod(sizes), 1)
  if math.prod(sizes) != devices or min(sizes) < 1:
    raise UserError(
      f'mesh: data={data}, fsdp={fsdp} do not make up {devices} devices; '
      f'their product must, and one of them may be -1'
    )
  # Explicit axes, JAX's default, refuse lookups in an embedding by a sharded batch.
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 2)


def spec(shape: tuple[int, ...], fsdp: int) -> P:
  """Where an array of the state is split: at its largest dimension that `fsdp` divides.

  Arrays of fewer than LARGE elements, and those without such a dimension, are whole everywhere.
  """
  fitting = [i for i, size in enumerate(shape) if size % fsdp == 0]
  if fsdp == 1 or math.prod(shape) < LARGE or not fitting:
    return P()
  largest = max(fitting, key=lambda i: shape[i])
  return P(*('fsdp' if i == largest else None for i in range(len(shape))))


def state_sharding(mesh: Mesh, state: Tree) -> Tree:
  """The sharding of every array of a state, given as arrays or their shapes."""
  return jax.tree.map(lambda x: NamedSharding(mesh, spec(x.shape, mesh.shape['fsdp'])), state)


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """This process's rows of a batch to global arrays, split along their first axis."""
  return jax.make_array_from_process_local_data(NamedSharding(mesh, P(AXES)), batch)


def plan_rows(mesh: Mesh, x: jax.Array) -> np.ndarray:
  """An array that is split as a batch, whole in every process, its rows as the plan has them.

  The plan gives each process rows that stand together; a mesh goes by how the devices are wired,
  and on a TPU slice that is not process by process.
  """
  rows = multihost_utils.process_allgather(x, tiled=True)
  order = np.argsort([device.process_index for device in mesh.devices.flat], kind='stable')
  return rows.reshape(len(order), -1, *rows.shape[1:])[order].reshape(rows.shape)
