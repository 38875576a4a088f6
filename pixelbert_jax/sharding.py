"""Sharding: batches are split by rows, large arrays of the state by one rule.

The mesh has two axes. Batches are split over both; arrays of the state (parameters, optimiser
state, statistics) over `fsdp` alone, and are replicated along `data`. Arithmetic is written for
global arrays: XLA inserts the sums over devices for losses, metrics and BatchNorm statistics.

A program that applies the model gathers its parameters first and splits their gradients again. Told
nothing, XLA leaves the parameters split and gathers the activations instead, which are larger.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
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
  # In an order that suits the interconnect. jax.make_mesh, which does the same, refuses sizes for
  # which it has to split an axis of the slice: any fsdp on 16x16 chips of a v6e.
  ordered = mesh_utils.create_device_mesh(sizes, devices, allow_split_physical_axes=True)
  # Explicit axes refuse lookups in an embedding by a sharded batch.
  return Mesh(ordered, AXES, axis_types=(AxisType.Auto,) * 2)


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


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of an array that every device has whole."""
  return NamedSharding(mesh, P())


def gathered(mesh: Mesh | None, tree: Tree) -> Tree:
  """Gathers arrays of the state, in a program, so that every device has them whole."""
  if mesh is None or mesh.shape['fsdp'] == 1:
    return tree
  return jax.lax.with_sharding_constraint(tree, replicated(mesh))


def whole(mesh: Mesh, tree: Tree) -> Tree:
  """Gathers arrays of the state, between programs, so that every device has them whole."""
  if mesh.shape['fsdp'] == 1:
    return tree
  return jax.jit(_same, out_shardings=replicated(mesh))(tree)


def _same(tree: Tree) -> Tree:
  return tree  # Not a lambda: of a new function each call would compile a new program.


def split(mesh: Mesh | None, gradients: Tree) -> Tree:
  """Splits gradients, in a program, as the state is split, once they are added up."""
  if mesh is None or mesh.shape['fsdp'] == 1:
    return gradients
  # Split at once, XLA gathers activations for the gradient of the lookup in an embedding.
  added = gathered(mesh, gradients)
  return jax.lax.with_sharding_constraint(added, state_sharding(mesh, added))


def local_devices(mesh: Mesh) -> tuple[tuple[int, ...], int]:
  """Returns the places in a mesh of the devices of this process, and how many there are in all.

  A batch is dealt to the devices in the order of the mesh, which is that of their interconnect: on
  a slice of several hosts, the places of a process need not be consecutive.
  """
  of = [device.process_index for device in mesh.devices.flat]
  return tuple(i for i, x in enumerate(of) if x == jax.process_index()), len(of)


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """Makes global arrays, split along their first axis, from the rows of `local_devices`."""
  return jax.make_array_from_process_local_data(batch_sharding(mesh), batch)


def global_shapes(
  mesh: Mesh, batch: dict[str, jax.ShapeDtypeStruct]
) -> dict[str, jax.ShapeDtypeStruct]:
  """Returns shapes, types and shardings of what `global_batch` makes, given those of its rows."""
  split, count = batch_sharding(mesh), jax.process_count()
  return {
    name: jax.ShapeDtypeStruct((count * x.shape[0], *x.shape[1:]), x.dtype, sharding=split)
    for name, x in batch.items()
  }
