"""What a checkpoint must hold: the shape, dtype and checksum of every array, taken before saving.

Orbax restores a damaged array file without a word, with wrong values. So a manifest is saved with
every step, and what is restored is compared with it. No host may hold an array whole, so that a
checksum is computed where the array lies; it does not depend on how the array is split.
"""

import dataclasses
import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from pixelbert_jax import UserError

Array = jax.Array
Tree = Any


class CheckpointError(UserError):
  """A checkpoint or workdir that cannot be used; one line: what, where, how to mend it."""


class DamagedError(CheckpointError):
  """A step that does not hold what was saved; another may."""


def _mix(x: Array) -> Array:
  # The finaliser of MurmurHash3: a bijection of uint32 in which every bit depends on every bit.
  x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
  x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
  return x ^ (x >> 16)


def _sums(bits: Array, position: Array) -> tuple[Array, Array]:
  # Sums wrap around, so their order does not matter. That every element is mixed with its position
  # before it is added tells permutations; a plain weight per position would miss many exchanges of
  # powers of two, whose bits differ in few places.
  first = _mix(bits ^ _mix(position))  # One to one: a single changed element changes the sum.
  second = _mix(first + np.uint32(1))
  return first.sum(dtype=np.uint32), second.sum(dtype=np.uint32)


@jax.jit
def _sums_on_devices(x: Array) -> tuple[Array, Array]:
  if x.dtype == bool:
    x = x.astype(jnp.uint8)
  width = min(x.dtype.itemsize, 4)
  bits = jax.lax.bitcast_convert_type(x, jnp.dtype(f'uint{8 * width}')).astype(jnp.uint32)
  position = jnp.zeros(bits.shape, jnp.uint32)
  for axis, size in enumerate(bits.shape):
    position = position * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
  return _sums(bits, position)


def _sums_on_host(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  bits = np.ascontiguousarray(x).reshape(-1).view(f'u{min(x.dtype.itemsize, 4)}')
  return _sums(bits.astype(np.uint32), np.arange(len(bits), dtype=np.uint32))


def _dispatch(x: Array | np.ndarray) -> tuple[Array, Array]:
  # What is in this host's memory anyway needs no program, which would be compiled for each shape.
  on_host = not isinstance(x, jax.Array) or (
    x.is_fully_addressable and {d.platform for d in x.devices()} == {'cpu'}
  )
  return _sums_on_host(np.asarray(x)) if on_host else _sums_on_devices(x)


def checksums(tree: Tree) -> dict[str, str]:
  """A checksum of the bits of every array (16 hexadecimal digits), by name ('params/itm/bias').

  It is the same however an array is split over devices. Any change of one element changes it; any
  other change escapes with a chance of 2**-64.
  """
  sums = jax.device_get({name: _dispatch(x) for name, x in by_name(tree).items()})
  return {name: f'{first:08x}{second:08x}' for name, (first, second) in sums.items()}


def by_name(tree: Tree) -> dict[str, Any]:
  """The leaves of a tree by their paths, joined by slashes."""
  return {
    jax.tree_util.keystr(path, simple=True, separator='/'): x
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


@dataclasses.dataclass(frozen=True)
class Manifest:
  """What was saved as a step.

  Attributes:
    step: its number.
    config: the configuration of the run, as JSON gives it back.
    files: SHA-256 of each file beside that the step cannot do without.
    arrays: [shape, dtype, checksum] of each array by name ('model/params/itm/bias').
    score: on the validation split, where the run chooses a step by it and this one was evaluated.
  """

  step: int
  config: dict[str, Any]
  files: dict[str, str]
  arrays: dict[str, list]
  score: float | None = None

  @classmethod
  def of(
    cls,
    step: int,
    config: dict[str, Any],
    files: dict[str, str],
    items: dict[str, Tree],
    score: float | None = None,
  ) -> 'Manifest':
    """Describes `items`, which are about to be saved."""
    sums = checksums(items)
    arrays = {name: [*_form(x), sums[name]] for name, x in by_name(items).items()}
    return cls(step, config, files, arrays, score)

  def sealed(self) -> dict[str, Any]:
    """JSON that holds a digest of itself."""
    content = dataclasses.asdict(self)
    return {'manifest': content, 'sha256': _digest(content)}

  @classmethod
  def read(cls, step: epath.Path) -> 'Manifest':
    """The manifest of a step, given as its folder; DamagedError if there is none or it is."""
    path = step / 'manifest' / 'metadata'  # where Orbax writes JSON
    if not path.exists():
      raise DamagedError('no manifest: saved by an earlier version, or half deleted')
    try:
      manifest = cls.unseal(path.read_text())
    except ValueError as error:
      raise DamagedError(f'its manifest is damaged ({error})') from error
    if str(manifest.step) != step.name:
      raise DamagedError(f'it was saved as step {manifest.step}')
    return manifest

  @classmethod
  def unseal(cls, text: str) -> 'Manifest':
    """Reads what `sealed` gave; ValueError if anything in it has changed since."""
    sealed = json.loads(text)
    if not isinstance(sealed, dict) or sealed.keys() != {'manifest', 'sha256'}:
      raise ValueError('not a manifest')
    if _digest(sealed['manifest']) != sealed['sha256']:
      raise ValueError('its digest is another')
    return cls(**sealed['manifest'])

  def shapes(self, item: str) -> Tree:
    """The arrays of an item that is made of dictionaries, as their shapes and dtypes."""
    tree = {}
    for name, (shape, dtype, _) in self.arrays.items():
      first, *groups, last = name.split('/')
      if first == item:
        group = tree
        for part in groups:
          group = group.setdefault(part, {})
        group[last] = jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
    return tree

  def misfits(self, items: dict[str, Tree]) -> list[str]:
    """How the arrays that were saved differ in name, shape or dtype from those of `items`."""
    here = {name: _form(x) for name, x in by_name(items).items()}
    there = {name: form for name, (*form, _) in self.arrays.items() if name.split('/')[0] in items}
    return [
      f'{name} is {_words(there.get(name))} there and {_words(here.get(name))} here'
      for name in sorted(here.keys() | there.keys())
      if here.get(name) != there.get(name)
    ]

  def damaged(self, items: dict[str, Tree]) -> list[str]:
    """The names of the arrays in `items` that are not, bit by bit, those that were saved."""
    sums = checksums(items)
    return [
      name for name, x in by_name(items).items() if self.arrays.get(name) != [*_form(x), sums[name]]
    ]


def _form(x: Any) -> list:
  return [list(x.shape), str(x.dtype)]


def _words(form: list | None) -> str:
  return f'{form[1]} {form[0]}' if form else 'absent'


def _digest(content: dict[str, Any]) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
