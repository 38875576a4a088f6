"""Checksums of small arrays, also as they lie on many devices."""

import jax
import jax.numpy as jnp
import numpy as np

from pixelbert_jax.checkpoints.checksum import _sums_on_devices, checksums


def checksum(x):
  return checksums({'x': x})['x']


def array(dtype, shape=(3, 5)):
  rng = np.random.default_rng(0)
  return (rng.normal(size=shape) * 50).astype(np.int32).astype(jnp.dtype(dtype))


def on_devices():
  """Returns the checksums of arrays that lie whole, split and copied on all devices."""
  mesh = jax.make_mesh((2, jax.device_count() // 2), ('a', 'b')) if jax.device_count() > 1 else None
  specs = [(), ('a',), (None, 'b'), ('b', 'a'), (('a', 'b'),)] if mesh else [()]
  found = set()
  for dtype in ('float32', 'bfloat16', 'int32'):
    x = array(dtype, (16, 24, 3))
    places = [jax.NamedSharding(mesh, jax.P(*spec)) for spec in specs] if mesh else [None]
    for place in places:
      placed = jax.device_put(x, place)
      # As where no host holds it whole.
      ((first, second),) = jax.device_get(_sums_on_devices([placed]))
      found |= {f'{dtype} {checksum(placed)}', f'{dtype} {first:08x}{second:08x}'}
    found.add(f'{dtype} {checksum(x)}')
  return sorted(found)
