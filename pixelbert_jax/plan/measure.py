"""Compiles programs for a target, and finds the largest batch that fits it."""

import pathlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple

from pixelbert_jax import UserError
from pixelbert_jax.plan.cost import Cost, cost
from pixelbert_jax.plan.program import Setting, lower

_USED = re.compile(r'\(([\d.]+)([KMGT]?)\) exceeds available')
_UNITS = {'': 1, 'K': 2**10, 'M': 2**20, 'G': 2**30, 'T': 2**40}
# Groups a chip of the two compilations that the memory of others is computed from.
FIRST, SECOND = 4, 8
# What little memory promises is not far-reaching: the next batch is at most so many times as large.
REACH = 32
CLOSE = 1.05  # A batch is the largest if no more than so many times its images would fit.


class Memory(NamedTuple):
  """What a program keeps in a chip's memory, bytes.

  Attributes:
    arguments: its inputs: state, batch, and gradients with micro-batches.
    temporaries: between its instructions.
    outputs: its results that are not written over arguments.
  """

  arguments: int
  temporaries: int
  outputs: int

  @property
  def total(self) -> int:
    """Their sum."""
    return sum(self)


class Program(NamedTuple):
  """A compiled program: its name, how often a step runs it, its memory and its cost."""

  name: str
  times: int
  memory: Memory
  cost: Cost


class TooLarge(UserError):
  """A program that the compiler refuses, because it does not fit; `used` bytes, 0 if not known."""

  def __init__(self, message: str, used: int):
    super().__init__(message)
    self.used = used


def programs(of: Setting, mode: str, dump: pathlib.Path | None = None) -> Iterator[Program]:
  """Compiles the programs of training or evaluation; says each on stderr before it does.

  Args:
    of: configuration, target and canvas.
    mode: 'train' or 'evaluate'.
    dump: the folder that the compiled programs are written to as text, if any.

  Raises:
    TooLarge: the compiler finds that a program does not fit the chip.
  """
  images = of.groups * of.images_per_group
  for name, lowered in lower(of, mode).items():
    print(
      f'compiling {name}, {images} images a chip of {of.title}, for {of.target.name} ...',
      file=sys.stderr,
      flush=True,
    )
    compiled = _compile(of, name, lowered)
    text = compiled.as_text()
    if dump:
      dump.mkdir(parents=True, exist_ok=True)
      variant = ':'.join(filter(None, [of.config.name, of.config.variant]))
      file = f'{variant}-{of.target.name}-{name}-{images}x{of.title}.hlo'
      (dump / file.replace(':', '-')).write_text(text)
    m: Any = compiled.memory_analysis()
    memory = Memory(
      m.argument_size_in_bytes,
      m.temp_size_in_bytes,
      m.output_size_in_bytes - m.alias_size_in_bytes,
    )
    times = of.config.micro_batches if name == 'micro-batch' else 1
    yield Program(name, times, memory, cost(text))


def _compile(of: Setting, name: str, lowered: Any) -> Any:
  try:
    return lowered.compile(of.target.compiler_options)
  except Exception as error:  # jaxlib's errors have one type; the status is in the text.
    message = str(error)
    if 'RESOURCE_EXHAUSTED' not in message:
      raise
    found = _USED.search(message)
    used = round(float(found[1]) * _UNITS[found[2]]) if found else 0
    shown = f'{used / 1e9:.1f} GB of ' if used else ''
    raise TooLarge(
      f'{name}: {of.groups * of.images_per_group} images a chip of {of.title} do not fit '
      f'{of.target.name}: {shown}'
      f'{of.target.chip.memory / 1e9:.1f} GB: give a smaller --images_per_chip, or --fit',
      used,
    ) from error


class Fit(NamedTuple):
  """The largest batch that fits: memory is linear in the groups a chip.

  Attributes:
    groups: the largest number a chip takes at a time; 0 if none fits.
    fixed: bytes for none.
    each: bytes for each more.
    programs: those of the largest number, compiled.
  """

  groups: int
  fixed: float
  each: float
  programs: list[Program]


def fit(of: Setting, spare: float, dump: pathlib.Path | None = None) -> Fit:
  """Finds the largest training batch that leaves `spare` of the memory free.

  The memory of two small batches gives a line, and what it promises is compiled. If that takes more
  than it may, or leaves room for CLOSE more, the line through it is taken, and so on.
  """
  limit = of.target.chip.memory * (1 - spare)
  known: dict[int, int] = {}
  made: dict[int, list[Program]] = {}

  def attempt(groups: int) -> None:
    try:
      made[groups] = list(programs(of.of_size(groups), 'train', dump))
      known[groups] = max(program.memory.total for program in made[groups])
    except TooLarge as error:
      if not error.used:
        raise
      known[groups] = error.used

  for groups in (FIRST, SECOND):
    attempt(groups)
  while True:
    low, high = sorted(known)[-2:]
    each = max((known[high] - known[low]) / (high - low), 1.0)
    fixed = known[low] - each * low
    fitting = max((n for n, used in known.items() if used <= limit), default=0)
    below = [n - 1 for n, used in known.items() if used > limit]
    more = min(int((limit - fixed) / each), REACH * high, *below)
    if more <= CLOSE * fitting or more < 1:
      return Fit(fitting, fixed, each, made.get(fitting, []))
    attempt(more)
