"""A checksum detects any change of bits and does not depend on the sharding."""

import itertools
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pixelbert_jax.checkpoints.checksum import _sums_on_devices, checksums

ROOT = pathlib.Path(__file__).parents[2]
DTYPES = ('float32', 'bfloat16', 'float16', 'float64', 'int32', 'int8', 'uint8', 'bool')


def checksum(x):
  return checksums({'x': x})['x']


def array(dtype, shape=(3, 5)):
  rng = np.random.default_rng(0)
  return (rng.normal(size=shape) * 50).astype(np.int32).astype(jnp.dtype(dtype))


@pytest.mark.parametrize('dtype', DTYPES)
def test_every_bit_counts(dtype):
  x = array(dtype)
  expected = checksum(x)
  if dtype != 'float64':  # which JAX rounds
    assert checksum(jnp.asarray(x)) == expected
  found = {expected}
  for byte, bit in itertools.product(range(x.nbytes), range(1 if dtype == 'bool' else 8)):
    changed = x.copy()
    changed.view(np.uint8).reshape(-1)[byte] ^= 1 << bit
    found.add(checksum(changed))
  assert len(found) == 1 + x.nbytes * (1 if dtype == 'bool' else 8)


@pytest.mark.parametrize(
  'values', [2.0 ** np.arange(-20, 20), np.arange(40), np.eye(40)[7]], ids=str
)
def test_the_exchange_of_two_elements_is_seen(values):
  x = values.astype(np.float32)
  seen = set()
  for i, j in itertools.combinations(range(len(x)), 2):
    changed = x.copy()
    changed[[i, j]] = x[[j, i]]
    if x[i] != x[j]:
      assert checksum(changed) != checksum(x), (i, j)
      seen.add(checksum(changed))
  assert len(seen) >= len(x) - 1


def test_far_exchanges_of_powers_of_two_are_seen():
  # Their bits differ in few places, and their positions by powers of two.
  x = np.ones(2**16, np.float32)
  x[0] = 2
  found = {checksum(np.roll(x, 2**i)) for i in range(16)}
  assert len(found) == 16


def test_the_values_of_old_checkpoints_stay():
  # A change of the checksum would make every checkpoint that exists a damaged one.
  found = checksums({'a': np.arange(6, dtype=np.float32).reshape(2, 3), 'b': {'c': np.int8([-1])}})
  assert found == {'a': 'dff8f712276372f1', 'b/c': '6c63d5832beb4291'}


def on_devices():
  """Checksums of an array whole, split either way, and copied, on all devices."""
  mesh = jax.make_mesh((2, jax.device_count() // 2), ('a', 'b')) if jax.device_count() > 1 else None
  specs = [(), ('a',), (None, 'b'), ('b', 'a'), (('a', 'b'),)] if mesh else [()]
  found = set()
  for dtype in ('float32', 'bfloat16', 'int32'):
    x = array(dtype, (16, 24, 3))
    places = [jax.NamedSharding(mesh, jax.P(*spec)) for spec in specs] if mesh else [None]
    for place in places:
      placed = jax.device_put(x, place)
      # As where no host holds it whole.
      first, second = jax.device_get(_sums_on_devices(placed))
      found |= {f'{dtype} {checksum(placed)}', f'{dtype} {first:08x}{second:08x}'}
    found.add(f'{dtype} {checksum(x)}')
  return sorted(found)


def test_it_does_not_depend_on_the_sharding():
  printed = subprocess.run(
    [
      sys.executable,
      '-c',
      'from tests.checkpoints.test_checksum import on_devices; print(*on_devices(), sep=";")',
    ],
    env=os.environ | {'JAX_NUM_CPU_DEVICES': '8'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert printed.strip().split(';') == on_devices()
  assert len(on_devices()) == 3
