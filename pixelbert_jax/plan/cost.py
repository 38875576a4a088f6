"""What a compiled program costs a chip: FLOPs, bytes of its memory, collectives, cycles.

All is counted on the program that XLA returns, once for each trip of a loop.

FLOPs are those of products and convolutions: two for each product of elements, without padding,
as XLA's own `cost_analysis` counts them (which counts the body of a loop once). Those that are
computed a second time, to save memory (remat), are also given apart.

Bytes are what instructions read from and write to the chip's main memory, with the padding of
tiles: operands and results of every instruction that runs on its own. Arrays in another memory
space (on a TPU, its on-chip memory) are left out. A fusion that reads only slices of an operand
reads those; one that updates a slice in place writes that. A copy in the background counts once.
Parameters, tuples and bitcasts move nothing.
"""

import collections
import dataclasses
import json
import math
import re
from collections.abc import Iterable, Sequence

from pixelbert_jax.plan.hlo import Array, Computation, Instruction, Module, valid_places

COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
# What moves no bytes, or whose bytes another instruction counts.
_FREE = {
  *(
    'parameter',
    'constant',
    'tuple',
    'get-tuple-element',
    'bitcast',
    'while',
    'call',
    'async-done',
  ),
  *('conditional', 'async-start', 'async-update', 'copy-done', 'after-all', 'partition-id'),
  *('replica-id', 'opt-barrier', 'iota', 'add-dependency'),
  *(f'{kind}-done' for kind in COLLECTIVES),
}
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CONTRACTED = re.compile(r'"lhs_contracting_dimensions":(\[[^\]]*\])')
# By what a path of modules and primitives contains, the first that is found; the innermost
# component that matches decides.
PARTS = {
  'resize': 'resize',
  'stem': 'stem',
  **{f'layer{i}': f'layer{i}' for i in range(1, 10)},
  'projection': 'projection',
  'semantic': 'projection',
  'text': 'text',
  'encoder': 'encoder',
  'cnn': 'pool',
  'optimizer': 'optimizer',
}
REST = 'heads, loss'
UNNAMED = 'unnamed'


@dataclasses.dataclass
class Share:
  """What a part of the model costs: FLOPs, of which recomputed; bytes; cycles, 0 if not known."""

  flops: int = 0
  recomputed: int = 0
  bytes: int = 0
  cycles: int = 0

  def add(self, other: 'Share', times: int = 1) -> None:
    """Adds another share, so many times."""
    for field in dataclasses.fields(self):
      more = times * getattr(other, field.name)
      setattr(self, field.name, getattr(self, field.name) + more)


@dataclasses.dataclass
class Cost:
  """The cost of a program, of each chip.

  Attributes:
    parts: by part of the model.
    collectives: by kind [number, bytes]: of each its larger operand or result, without padding.
    copies: bytes and cycles of instructions that only copy or change the layout.
    unknown: loops whose number of trips is not known; they are counted once.
  """

  parts: dict[str, Share]
  collectives: dict[str, list[int]]
  copies: Share
  unknown: list[str]

  @property
  def total(self) -> Share:
    """The sum over the parts."""
    total = Share()
    for share in self.parts.values():
      total.add(share)
    return total


def cost(text: str) -> Cost:
  """Counts the cost of a program, given as the text of `jax.stages.Compiled.as_text()`."""
  module, parts = Module(text), collections.defaultdict[str, Share](Share)
  collectives = collections.defaultdict[str, list[int]](lambda: [0, 0])
  copies = Share()
  for computation, x, times in module.executed():
    found = _CYCLES.search(x.rest)
    moved = Share(bytes=times * traffic(module, computation, x))
    moved.cycles = times * int(found[1]) if found else 0
    parts[part(x.op_name)].add(moved)
    if _is_copy(module, x):
      copies.add(moved)
    inner = module.inside(x) if x.opcode == 'fusion' else [(computation, x)]
    for where, y in inner:
      flops = times * products(where, y)
      again = flops if 'rematted_computation' in y.op_name else 0
      parts[part(y.op_name or x.op_name)].add(Share(flops, again))
      kind = y.opcode.removesuffix('-start')
      if kind in COLLECTIVES:
        collectives[kind][0] += times
        collectives[kind][1] += times * _largest(where, y)
  kept = {name: share for name, share in parts.items() if share != Share()}
  return Cost(kept, dict(collectives), copies, sorted(module.unknown))


def part(op_name: str) -> str:
  """Names the part of the model that an operation belongs to, by its path in the source."""
  if not op_name:
    return UNNAMED
  words = re.split(r'[/()]', op_name)
  return next((PARTS[word] for word in reversed(words) if word in PARTS), REST)


def _is_copy(module: Module, x: Instruction) -> bool:
  if x.opcode == 'fusion':
    root = module.computations[x.called['calls']]
    moving = {'copy', 'transpose', 'bitcast', 'parameter', 'reshape', 'tuple'}
    return all(y.opcode in moving for y in root.instructions.values())
  return x.opcode in ('copy', 'copy-start', 'transpose', 'reshape')


def _largest(computation: Computation, x: Instruction) -> int:
  """Returns the bytes of a collective: of its operands or its result, whichever are more."""
  given = sum(a.bytes for types in computation.operand_types(x) for a in types)
  if not x.opcode.endswith('-start'):
    return max(given, sum(a.bytes for a in x.types))
  # The result of a start may list its operands before its results.
  arrays = [a for a in x.types if a.shape or len(x.types) == 1]
  whole = sum(a.bytes for a in arrays)
  return max(given, whole - given) if len(arrays) > len(x.operands) else max(given, whole)


# --- FLOPs -------------------------------------------------------------------------------


def products(computation: Computation, x: Instruction) -> int:
  """Counts the FLOPs of an instruction; 0 if it is no product and no convolution."""
  if x.opcode == 'dot':
    (left,), _ = computation.operand_types(x)[:2]
    contracted = [left.shape[int(i)] for i in x.attribute('lhs_contracting_dims').split(',') if i]
    return 2 * math.prod(x.types[0].shape) * math.prod(contracted)
  if x.opcode == 'convolution':
    (left,), (kernel,) = computation.operand_types(x)[:2]
    return _convolution(x, left, kernel, x.types[0])
  if x.opcode == 'custom-call':
    return _library(computation, x)
  return 0


def _convolution(x: Instruction, left: Array, kernel: Array, out: Array) -> int:
  """Counts the FLOPs of a convolution, given its operands and its result."""
  names = re.split('_|->', x.attribute('dim_labels'))
  sizes = [
    dict(zip(n, a.shape, strict=True)) for n, a in zip(names, (left, kernel, out), strict=True)
  ]
  window = dict(pair.split('=', 1) for pair in _window(x).split())
  spatial = sorted(name for name in names[0] if name.isdigit())

  def field(name: str, default: str) -> list[str]:
    return window[name].split('x') if name in window else [default] * len(spatial)

  valid = 1
  for number, name in enumerate(spatial):
    valid *= valid_places(
      (sizes[0][name], sizes[2][name]),
      sizes[1][name],
      stride=int(field('stride', '1')[number]),
      low=int(field('pad', '0_0')[number].split('_')[0]),
      dilation=(int(field('lhs_dilate', '1')[number]), int(field('rhs_dilate', '1')[number])),
    )
  groups = int(x.attribute('batch_group_count') or 1)
  return 2 * sizes[0]['b'] // groups * sizes[2]['f'] * sizes[1]['i'] * valid


def _window(x: Instruction) -> str:
  found = re.search(r'\bwindow=\{([^}]*)\}', x.rest)
  return found[1] if found else ''


def _library(computation: Computation, x: Instruction) -> int:
  """Counts the FLOPs of a call of cuBLAS or cuDNN, as XLA makes them for GPUs."""
  found = _TARGET.search(x.rest)
  target = found[1] if found else ''
  if target.startswith(('__cublas$', '__triton$gemm')):
    (left,), _ = computation.operand_types(x)[:2]
    contracted = _CONTRACTED.search(x.rest)
    axes = json.loads(contracted[1]) if contracted else []
    return 2 * math.prod(x.types[0].shape) * math.prod(left.shape[int(i)] for i in axes)
  if target.startswith('__cudnn$conv'):
    # Labels are those of the forward convolution, of input, kernel and output, in all three.
    (first,), (second,) = computation.operand_types(x)[:2]
    result = x.types[0]
    if 'BackwardInput' in target:
      return _convolution(x, result, second, first)
    if 'BackwardFilter' in target:
      return _convolution(x, first, result, second)
    return _convolution(x, first, second, result)
  return 0


# --- Bytes -------------------------------------------------------------------------------


def traffic(module: Module, computation: Computation, x: Instruction) -> int:
  """Counts the bytes of main memory that an instruction reads and writes."""
  if x.opcode in _FREE or (x.opcode == 'custom-call' and '"AllocateBuffer"' in x.rest):
    return 0
  if x.opcode == 'copy-start':
    return _main(x.types[:2])
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


def merged(costs: Sequence[tuple[Cost, int]]) -> Cost:
  """Adds costs of programs, each times how often it runs."""
  whole = Cost({}, {}, Share(), [])
  for each, times in costs:
    for name, share in each.parts.items():
      whole.parts.setdefault(name, Share()).add(share, times)
    for kind, counted in each.collectives.items():
      before = whole.collectives.get(kind, [0, 0])
      whole.collectives[kind] = [a + times * b for a, b in zip(before, counted, strict=True)]
    whole.copies.add(each.copies, times)
    whole.unknown += each.unknown
  return whole
