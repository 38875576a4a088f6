"""Checksums of arrays, which do not depend on how an array is split over devices.

No host may hold an array whole, so a checksum is computed where the array lies.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray
Tree = Any


def checksums(tree: Tree) -> dict[str, str]:
  """Computes a checksum (16 hexadecimal digits) of every array, by name ('params/itm/bias').

  It depends on the bits of the elements and their order only. A change of one element always
  changes it; any other change goes undetected with a probability of 2**-64.
  """
  sums = _each(by_name(tree), _sums_on_host, _sums_on_devices)
  return {name: f'{first:08x}{second:08x}' for name, (first, second) in sums.items()}


def not_finite(tree: Tree) -> list[str]:
  """Lists the arrays by name ('params/itm/bias') that hold NaN or infinity."""
  numbers = {k: x for k, x in by_name(tree).items() if jnp.issubdtype(x.dtype, jnp.inexact)}
  finite = _each(numbers, _finite_on_host, _finite_on_devices)
  return [name for name, all_are in finite.items() if not all_are]


def by_name(tree: Tree) -> dict[str, Any]:
  """Flattens a tree to a dictionary; keys are the paths of the leaves, joined by slashes."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): x
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def _mix(x: Array) -> Array:
  # The finaliser of MurmurHash3: a bijection of uint32 in which every bit depends on every bit.
  x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def _sums(bits: Array, position: Array) -> tuple[Array, Array]:
  # Sums wrap around, so their order does not matter. Each element is mixed with its position before
  # it is added, so that permutations are detected; a plain weight per position would miss many
  # exchanges of powers of two, whose bits differ in few places.
  first = _mix(bits ^ _mix(position))  # A bijection: one changed element changes the sum.
  second = _mix(first + np.uint32(1))
  return first.sum(dtype=np.uint32), second.sum(dtype=np.uint32)


def _sums_of(x: Array) -> tuple[Array, Array]:
  if x.dtype == bool:
    x = x.astype(jnp.uint8)
  width = min(x.dtype.itemsize, 4)
  bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{8 * width}')).astype(jnp.uint32)
  position = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
  return _sums(bits, position)


@jax.jit
def _sums_on_devices(arrays: list[Array]) -> list[tuple[Array, Array]]:
  return [_sums_of(x) for x in arrays]


def _sums_on_host(x: np.ndarray) -> tuple[Array, Array]:
  bits = np.ascontiguousarray(x).reshape(-1).view(f'u{min(x.dtype.itemsize, 4)}')
  return _sums(bits.astype(np.uint32), np.arange(len(bits), dtype=np.uint32))


@jax.jit
def _finite_on_devices(arrays: list[Array]) -> list[Array]:
  return [jnp.isfinite(x).all() for x in arrays]


def _finite_on_host(x: np.ndarray) -> np.bool:
  return np.isfinite(x).all()


def _on_host(x: jax.Array) -> bool:
  # NumPy for arrays in this host's memory: JAX would compile a program for each shape.
  return x.is_fully_addressable and {d.platform for d in x.devices()} == {'cpu'}


def _each(
  arrays: dict[str, Array], on_host: Callable[[np.ndarray], Any], on_devices: Callable[[list], list]
) -> dict[str, Any]:
  """Computes something of each array where it lies; a single program for all on some devices."""
  results, groups = dict[str, Any](), dict[frozenset, list[str]]()
  for name, x in arrays.items():
    if not isinstance(x, jax.Array) or _on_host(x):
      results[name] = on_host(np.asarray(x))
    else:
      groups.setdefault(frozenset(x.devices()), []).append(name)
  for names in groups.values():
    results |= zip(names, on_devices([arrays[name] for name in names]), strict=True)
  fetched = jax.device_get(results)
  return {name: fetched[name] for name in arrays}
