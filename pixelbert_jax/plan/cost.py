"""What a compiled program costs a chip: FLOPs, bytes of its memory, collectives, cycles.

All is counted on the program that XLA returns, once for each trip of a loop.

FLOPs are those of products and convolutions: two for each product of elements, without padding,
as XLA's own `cost_analysis` counts them (which counts the body of a loop once). Those that are
computed a second time, to save memory (remat), are also given apart.

Bytes are those of `traffic.py`.
"""

import collections
import dataclasses
import re
from collections.abc import Sequence

from pixelbert_jax.plan.hlo import COLLECTIVES, Computation, Instruction, Module
from pixelbert_jax.plan.products import products
from pixelbert_jax.plan.traffic import traffic

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# By what a path of modules and primitives contains, the first that is found; the innermost
# component that matches decides.
PARTS = {
  'resize': 'resize',
  'stem': 'stem',
  **{f'layer{i}': f'layer{i}' for i in range(1, 10)},
  'projection': 'projection',
  'semantic': 'projection',
  'cell_position': 'projection',
  'backbone.pair_pixels': 'sampling',
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
  copies, seen = Share(), set[str]()
  for computation, x, times in module.executed():
    found = _CYCLES.search(x.rest)
    moved = Share(bytes=times * traffic(module, computation, x))
    moved.cycles = times * int(found[1]) if found else 0
    inner = list(module.inside(x)) if x.opcode == 'fusion' else [(computation, x)]
    # A fusion has the name of its result, or none.
    name = x.op_name or next((y.op_name for _, y in reversed(inner) if y.op_name), '')
    parts[part(name)].add(moved)
    if _is_copy(module, x):
      copies.add(moved)
    for where, y in inner:
      flops = times * products(where, y)
      again = flops if 'rematted_computation' in y.op_name else 0
      parts[part(y.op_name or name)].add(Share(flops, again))
      kind = y.opcode.removesuffix('-start')
      channel = y.attribute('channel_id')
      # A TPU moves a collective along beside several fusions, and each lists it.
      if kind in COLLECTIVES and (not channel or channel not in seen):
        seen.add(channel)
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
