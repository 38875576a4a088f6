"""Sharding: batches are split by rows, large arrays of the state by one rule.

The mesh has two axes. Batches are split over both; arrays of the state (parameters, optimiser
state, statistics) over `fsdp` alone, and are replicated along `data`. Arithmetic is written for
global arrays: XLA inserts the sums over devices for losses, metrics and BatchNorm statistics.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from pixelbert_jax import UserError

Tree = Any

AXES = ('data', 'fsdp')
# Elements. Gathering a smaller array costs more time than the memory is worth.
LARGE = 2**16


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Makes a mesh of all devices of all processes, with the axes `data` and `fsdp`.

  Args:
    data: size of the axis; -1 takes all devices that the other axis leaves.
    fsdp: likewise.
    devices: others, such as those of a slice that is only compiled for.

  Raises:
    UserError: the product of the sizes is not the number of devices.
  """
  count, sizes = len(devices or jax.devices()), [data, fsdp]
  if -1 in sizes:
    sizes[sizes.index(-1)] = count // max(-math.prod(sizes), 1)
  if math.prod(sizes) != count or min(sizes) < 1:
    raise UserError(
      f'mesh: data={data}, fsdp={fsdp} do not make up {count} devices; their product has to be '
      f'{count}, or set one of them to -1'
    )
  # Explicit axes, JAX's default, refuse lookups in an embedding by a sharded batch.
  return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def spec(shape: tuple[int, ...], fsdp: int) -> P:
  """Returns how an array of the state is split: along its largest dimension that `fsdp` divides.

  Arrays of fewer than LARGE elements, and those without such a dimension, are replicated.
  """
  fitting = [i for i, size in enumerate(shape) if size % fsdp == 0]
  if fsdp == 1 or math.prod(shape) < LARGE or not fitting:
    return P()
  largest = max(fitting, key=lambda i: shape[i])
  return P(*('fsdp' if i == largest else None for i in range(len(shape))))


def state_sharding(mesh: Mesh, state: Tree) -> Tree:
  """Returns the sharding of every array of a state, given as arrays or their shapes."""
  return jax.tree.map(lambda x: NamedSharding(mesh, spec(x.shape, mesh.shape['fsdp'])), state)


def abstract(shapes: Tree, shardings: Any) -> Tree:
  """Describes arrays with their shardings (a tree of them, or one for all) to compile for."""
  if isinstance(shardings, NamedSharding):
    shardings = jax.tree.map(lambda _: shardings, shapes)
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), shapes, shardings
  )


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of all arrays of a batch: along their first axis."""
  return NamedSharding(mesh, P(AXES))


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Makes global arrays, split along their first axis, from this process's rows of a batch."""
  return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)


def plan_rows(mesh: Mesh, x: jax.Array) -> np.ndarray:
  """Gathers an array that is split like a batch in every process, with rows in the plan's order.

  The plan gives each process consecutive rows. The mesh orders devices by their interconnect, and
  on a TPU slice that is not process by process.
  """
  rows = multihost_utils.process_allgather(x, tiled=True)
  order = np.argsort([device.process_index for device in mesh.devices.flat], kind='stable')
  return rows.reshape(len(order), -1, *rows.shape[1:])[order].reshape(rows.shape)
