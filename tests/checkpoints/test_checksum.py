"""A checksum detects any change of bits and does not depend on the sharding."""

import itertools
import os
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from pixelbert_jax.checkpoints.checksum import checksums
from tests.support.checksums import array, checksum, on_devices
from tests.support.paths import ROOT

DTYPES = ('float32', 'bfloat16', 'float16', 'float64', 'int32', 'int8', 'uint8', 'bool')


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


def test_it_does_not_depend_on_the_sharding():
  printed = subprocess.run(
    [
      sys.executable,
      '-c',
      'from tests.support.checksums import on_devices; print(*on_devices(), sep=";")',
    ],
    env=os.environ | {'JAX_NUM_CPU_DEVICES': '8'},
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=True,
  ).stdout
  assert printed.strip().split(';') == on_devices()
  assert len(on_devices()) == 3
