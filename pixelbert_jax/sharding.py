"""How arrays lie on the devices: batches are split over the mesh, the state is on every device."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

Tree = Any


def make_mesh() -> Mesh:
  """All devices of all processes on one axis, `data`."""
  # Explicit axes, JAX's default, refuse lookups in an embedding by a sharded batch.
  return jax.make_mesh((jax.device_count(),), ('data',), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
  """On every device whole."""
  return NamedSharding(mesh, P())


def global_batch(mesh: Mesh, batch: dict[str, np.ndarray]) -> dict[str, jax.Array]:
  """This process's rows of a batch to global arrays, split along their first axis."""
  return jax.make_array_from_process_local_data(NamedSharding(mesh, P('data')), batch)
