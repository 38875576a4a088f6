"""Bytes that the instructions of a compiled program read from and write to main memory.

With the padding of tiles: operands and results of every instruction that runs on its own. Arrays in
another memory space (on a TPU, its on-chip memory) are left out. A fusion that reads only slices of
an operand reads those; one that updates a slice in place writes that. A copy in the background
counts once. Parameters, tuples and bitcasts move nothing.
"""

import collections
from collections.abc import Iterable

from pixelbert_jax.plan.hlo import COLLECTIVES, Array, Computation, Instruction, Module

# What moves no bytes, or whose bytes another instruction counts.
_FREE = {
  *('parameter', 'constant', 'tuple', 'get-tuple-element', 'bitcast', 'iota'),
  *('while', 'call', 'conditional', 'async-start', 'async-update', 'async-done'),
  *('copy-done', 'after-all', 'add-dependency', 'opt-barrier', 'partition-id', 'replica-id'),
  *(f'{kind}-done' for kind in COLLECTIVES),
}


def traffic(module: Module, computation: Computation, x: Instruction) -> int:
  """Counts the bytes of main memory that an instruction reads and writes."""
  if x.opcode in _FREE or (x.opcode == 'custom-call' and '"AllocateBuffer"' in x.rest):
    return 0
  if x.opcode == 'copy-start':
    return _main(x.types[:2])
  if x.opcode.endswith('slice-start'):
    return 0
  if x.opcode.endswith('slice-done'):  # It reads the slice, and may leave it in another memory.
    return sum(a.padded for a in x.types) + _main(x.types)
  if x.opcode == 'fusion':
    return _fusion(module.computations[x.called['calls']])
  given = {name: computation.instructions[name].types for name in x.operands}
  if x.opcode in ('dynamic-slice', 'slice', 'gather'):
    return 2 * _main(x.types) + sum(_main(given[name]) for name in x.operands[1:] if name in given)
  if x.opcode == 'dynamic-update-slice':
    return 2 * _main(given[x.operands[1]])
  return _main(x.types) + sum(map(_main, given.values()))


def _main(arrays: Iterable[Array]) -> int:
  return sum(a.padded for a in arrays if not a.space)


def _fusion(inner: Computation) -> int:
  """Counts what a fusion reads of each operand and writes of its result."""
  users = collections.defaultdict[str, list[Instruction]](list)
  for y in inner.instructions.values():
    for name in set(y.operands):
      users[name].append(y)
  read = sum(_read(inner, users, y) for y in inner.instructions.values() if y.opcode == 'parameter')
  root = inner.instructions[inner.root]
  results = root.operands if root.opcode == 'tuple' else (inner.root,)
  return read + sum(_written(inner, name) for name in results)


def _read(inner: Computation, users: dict[str, list[Instruction]], x: Instruction) -> int:
  """Counts what a fusion reads of one operand: only slices, if it is only sliced."""
  if any(a.space for a in x.types):
    return 0
  total = 0
  for user in users[x.name]:
    if user.opcode == 'bitcast':
      total += _read(inner, users, user)
    elif user.opcode in ('dynamic-slice', 'slice', 'gather') and user.operands[0] == x.name:
      total += sum(a.padded for a in user.types)
    elif user.opcode == 'dynamic-update-slice' and user.operands[0] == x.name:
      total += 0  # Updated in place.
    else:
      return _main(x.types)
  return min(total, _main(x.types))


def _written(inner: Computation, name: str) -> int:
  """Counts what a fusion writes of one result: only the slice, if it updates one in place."""
  x = inner.instructions[name]
  result = x
  while x.opcode == 'bitcast':
    x = inner.instructions[x.operands[0]]
  if any(a.space for a in result.types):
    return 0
  if x.opcode == 'dynamic-update-slice':
    return sum(a.padded for a in inner.instructions[x.operands[1]].types)
  return _main(result.types)
