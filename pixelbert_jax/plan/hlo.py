"""A compiled program as XLA prints it: its computations, instructions, array types and loops.

Only what `cost.py` counts is read. The text is that of `jax.stages.Compiled.as_text()`: every
instruction is a line, operands are names, and types carry the layout with its tiles.
"""

import math
import re
from collections.abc import Iterator
from typing import NamedTuple

_ARRAY = re.compile(r'([a-z]+\d*(?:e\d+m\d+\w*)?)\[([\d,<=]*)\](?:\{([^{}]*)\})?')
_BITS = re.compile(r'[a-z]+?(\d+)')
_TILE = re.compile(r'\(([\d,*]+)\)')
_SPACE = re.compile(r'S\((\d+)\)')
_LINE = re.compile(r'^\s*(ROOT )?%?([\w.\-]+) = ')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(
  r'\b(calls|body|condition|to_apply|true_computation|false_computation)=%?([\w.\-]+)'
)
_BRANCHES = re.compile(r'branch_computations=\{([^}]*)\}')
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"')
_INDEX = re.compile(r'index=(\d+)')
COLLECTIVES = (
  'all-reduce',
  'all-gather',
  'reduce-scatter',
  'all-to-all',
  'ragged-all-to-all',
  'collective-permute',
  'collective-broadcast',
)
# What only names, groups or converts a value on its way from a constant to a loop's condition.
_PASSES = ('bitcast', 'copy', 'convert', 'reshape', 'copy-done')


class Array(NamedTuple):
  """The type of an array: what it holds, and how it lies in memory.

  Attributes:
    kind: of its elements, as XLA names it: 'bf16'.
    shape: sizes of its dimensions.
    layout: what XLA prints of it, '3,1,2,0:T(8,128)(2,1)S(1)': dimensions from the fastest to the
      slowest, tiles, memory space.
  """

  kind: str
  shape: tuple[int, ...]
  layout: str = ''

  @property
  def bits(self) -> int:
    """Bits of an element."""
    found = _BITS.match(self.kind)
    return int(found[1]) if found else 8 if self.kind == 'pred' else 0

  @property
  def bytes(self) -> int:
    """Bytes of its elements, without padding."""
    return -(-math.prod(self.shape) * self.bits // 8)

  @property
  def space(self) -> int:
    """The memory space: 0 is the chip's main memory."""
    found = _SPACE.search(self.layout)
    return int(found[1]) if found else 0

  @property
  def padded(self) -> int:
    """Bytes with the padding of its tiles: the last tile's dimensions are filled up in memory."""
    order, _, rest = self.layout.partition(':')
    tiles = _TILE.findall(rest.partition('S(')[0].partition('E(')[0])
    if not tiles:
      return self.bytes
    sizes = [self.shape[int(i)] for i in reversed(order.split(',')) if i]
    first = [int(x) for x in tiles[0].split(',') if x != '*']
    sizes = [1] * (len(first) - len(sizes)) + sizes
    kept = sizes[: len(sizes) - len(first)]
    filled = [-(-n // t) * t for n, t in zip(sizes[len(kept) :], first, strict=True)]
    return -(-math.prod([*kept, *filled]) * self.bits // 8)


def arrays(text: str) -> tuple[Array, ...]:
  """Reads the arrays of a type; of a tuple all of them, in order."""
  return tuple(
    Array(kind, tuple(int(x.strip('<=')) for x in sizes.split(',') if x), layout)
    for kind, sizes, layout in _ARRAY.findall(text)
    if kind != 'token'
  )


class Instruction(NamedTuple):
  """An instruction.

  Attributes:
    name: in its computation.
    opcode: 'fusion', 'convolution', ...
    types: the arrays of its result, several of a tuple.
    operands: names of its operands; `inside` the text between the brackets.
    inside: see `operands`; of a constant its value.
    rest: what follows the brackets: attributes, metadata and the configuration of the backend.
  """

  name: str
  opcode: str
  types: tuple[Array, ...]
  operands: tuple[str, ...]
  inside: str
  rest: str

  @property
  def called(self) -> dict[str, str]:
    """The computations that it calls, by attribute: body, condition, calls, ..."""
    found = dict(_CALLED.findall(self.rest))
    branches = _BRANCHES.search(self.rest)
    if branches:
      names = _NAME.findall(branches[1])
      found |= {f'branch {i}': name for i, name in enumerate(names)}
    return found

  @property
  def op_name(self) -> str:
    """The path of the operation in the source program: modules, transformations, primitive."""
    found = _OP_NAME.search(self.rest)
    return found[1] if found else ''

  def attribute(self, name: str) -> str:
    """Returns the text of an attribute without blanks, '' if there is none."""
    found = re.search(rf'\b{name}=(\{{[^}}]*\}}|[^\s,]+)', self.rest)
    return found[1].strip('{}') if found else ''


class Computation(NamedTuple):
  """A computation: its instructions by name, in order, and the name of its result."""

  instructions: dict[str, Instruction]
  root: str

  def operand_types(self, instruction: Instruction) -> list[tuple[Array, ...]]:
    """Returns the type of each operand of one of its instructions."""
    return [self.instructions[name].types for name in instruction.operands]


def _balanced(text: str, start: int) -> int:
  """Returns the index after the bracket that closes the one at `start`."""
  depth = 0
  for i in range(start, len(text)):
    depth += (text[i] == '(') - (text[i] == ')')
    if not depth:
      return i + 1
  return len(text)


def _instruction(line: str, start: int, name: str) -> Instruction:
  end = _balanced(line, start) if line[start] == '(' else line.index(' ', start)
  kind, rest = line[start:end], line[end:].lstrip()
  opcode, _, _ = rest.partition('(')
  closed = _balanced(rest, len(opcode))
  inside, rest = rest[len(opcode) + 1 : closed - 1], rest[closed:]
  operands = () if opcode in ('constant', 'parameter') else tuple(_NAME.findall(inside))
  return Instruction(name, opcode, arrays(kind), operands, inside=inside, rest=rest)


class Module:
  """A program.

  Attributes:
    computations: by name.
    entry: the name of the first.
    unknown: names of loops whose number of trips could not be found; they count once.
  """

  def __init__(self, text: str):
    """Reads the text of a compiled program."""
    self.computations: dict[str, Computation] = {}
    self.entry, self.unknown = '', set[str]()
    current, root, name = dict[str, Instruction](), '', ''
    for line in text.splitlines():
      found = _LINE.match(line)
      if found:
        instruction = _instruction(line, found.end(), found[2])
        current[instruction.name] = instruction
        root = instruction.name if found[1] else root
      elif line.endswith('{') and '->' in line:
        current, root = {}, ''
        entry, _, header = line.partition('%') if '%' in line else ('', '', line)
        name = re.split(r'[\s(]', header, maxsplit=1)[0]
        self.entry = name if entry.startswith('ENTRY') else self.entry
      elif line.startswith('}') and name:
        self.computations[name] = Computation(current, root)

  def executed(
    self, name: str = '', times: int = 1
  ) -> Iterator[tuple[Computation, Instruction, int]]:
    """Yields what runs on its own (not inside a fusion), and how often, loops included."""
    computation = self.computations[name or self.entry]
    for instruction in computation.instructions.values():
      yield computation, instruction, times
      called = instruction.called
      if instruction.opcode == 'while':
        trips = self.trips(computation, instruction)
        yield from self.executed(called['body'], times * trips)
      elif instruction.opcode in ('call', 'conditional', 'async-start'):
        for inner in called.values():
          yield from self.executed(inner, times)

  def inside(self, instruction: Instruction) -> Iterator[tuple[Computation, Instruction]]:
    """Yields the instructions of a fusion, those of fusions in it included."""
    computation = self.computations[instruction.called['calls']]
    for inner in computation.instructions.values():
      if inner.opcode == 'fusion':
        yield from self.inside(inner)
      else:
        yield computation, inner

  def trips(self, computation: Computation, loop: Instruction) -> int:
    """Finds how often a loop runs: as XLA says, or the bound in its condition less the start."""
    known = _TRIPS.search(loop.rest)
    if known:
      return int(known[1])
    condition = self.computations[loop.called['condition']]
    compared = condition.instructions[condition.root]
    values = [_constant(condition, name) for name in compared.operands]
    if compared.opcode == 'fusion':
      # The comparison of what the fusion is given: one of its operands is the bound.
      inner = self.computations[compared.called['calls']]
      compared = inner.instructions[inner.root]
      values = [
        values[int(x.inside)] if x.opcode == 'parameter' else _constant(inner, x.name)
        for x in (inner.instructions[name] for name in compared.operands)
      ]
    if compared.opcode != 'compare' or 'direction=LT' not in compared.rest or len(values) != 2:
      self.unknown.add(loop.name)
      return 1
    (init,) = loop.operands
    start, bound = (
      _constant(computation, init, value.place) if isinstance(value, _Carried) else value
      for value in values
    )
    if not isinstance(bound, int):
      self.unknown.add(loop.name)
      return 1
    return max(bound - (start if isinstance(start, int) else 0), 0)


class _Carried(NamedTuple):
  """A value that a loop carries: its place in the tuple."""

  place: int


def _constant(computation: Computation, name: str, index: int = 0) -> int | _Carried | None:
  """Follows a value to the constant, or to the place in the loop's tuple, that it comes from."""
  for _ in range(100):
    x = computation.instructions[name]
    if x.opcode == 'constant':
      return int(x.inside) if re.fullmatch(r'-?\d+', x.inside) else None
    if x.opcode == 'tuple':
      name = x.operands[index]
    elif x.opcode == 'get-tuple-element':
      index, name = int(_found(_INDEX, x.rest)), x.operands[0]
      if computation.instructions[name].opcode == 'parameter':
        return _Carried(index)
    elif x.opcode in _PASSES:
      name = x.operands[0]
    else:
      return None
  return None


def _found(pattern: re.Pattern[str], text: str) -> str:
  found = pattern.search(text)
  return found[1] if found else '0'
