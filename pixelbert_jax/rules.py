"""Rules of fields: the words for what a value may be, and whether it is.

`c.seed = Field(0, at_least(0))` defines a field of a configuration with its rule.
"""

from collections.abc import Callable
from typing import Any

from ml_collections import FieldReference

MOST = 10**9  # of any number that has no other limit
MOST_EPOCHS = 10_000
SIDE = 1 << 14  # pixels of an image's side
SEEDS = (1 << 32) - 1  # the largest seed: JAX would drop further bits

Rule = tuple[str, Callable[[Any], bool]]


def at_least(least: float, most: float = MOST) -> Rule:
  """Returns the rule of numbers from `least` to `most`."""
  return f'at least {least:g} and at most {most:,}', lambda x: least <= x <= most


def one_of(*choices: str) -> Rule:
  """Returns the rule of texts of which these are all."""
  return f'one of {", ".join(map(repr, choices))}', lambda x: x in choices


def fixed(value: str) -> Rule:
  """Returns the rule of what is chosen with the file."""
  return f'{value!r}, as --config=FILE:VARIANT says', lambda x: x == value


def tuple_of(length: int | None, rule: Rule) -> Rule:
  """Returns the rule of `length` numbers (None: one or more) of which each keeps a rule."""
  words, holds = rule
  many = 'one or more numbers' if length is None else f'{length} numbers'

  def valid(xs: tuple) -> bool:
    right = len(xs) == length if length else len(xs) > 0
    return right and all(map(_is_number, xs)) and all(map(holds, xs))

  return f'{many}, each {words}', valid


def start_of(command: str) -> Rule:
  """Returns the rule of `init_from`: it is not empty, and `command` is how to get one."""
  made = f'a checkpoint, made by `python -m pixelbert_jax.{command}`'
  return f'{made}, or random weights: --config.init_from=scratch', NAME[1]


def _are_sides(xs: tuple | list) -> bool:
  return any(tuple_of(n, WHOLE)[1](tuple(xs)) for n in (2, 4))


def _is_number(x: Any) -> bool:
  return type(x) in (int, float)  # True is an int too.


def _is_line(x: str) -> bool:
  # Half a surrogate pair is what Python makes of an argument that is not UTF-8.
  return not any(c < ' ' or c == '\x7f' or '\ud800' <= c <= '\udfff' for c in x)


ABOVE_0 = f'above 0 and at most {MOST:,}', lambda x: 0 < x <= MOST
EPOCHS = f'above 0 and at most {MOST_EPOCHS:,}', lambda x: 0 < x <= MOST_EPOCHS
SHARE = 'from 0 to 1', lambda x: 0 <= x <= 1
BELOW_1 = 'from 0 to below 1', lambda x: 0 <= x < 1
WHOLE = (
  f'a whole number of at least 1 and at most {SIDE:,}',
  lambda x: type(x) is int and 1 <= x <= SIDE,
)
DEVICES = 'at least 1, or -1 for all that are left', lambda x: 1 <= x <= MOST or x == -1
TASK = (
  'the name of a task: up to 64 letters, digits and _',
  lambda x: len(x) <= 64 and x.isascii() and x.replace('_', 'a').isalnum(),
)
LINE = 'a text of one line, in UTF-8', _is_line
NAME = 'a text of one line, in UTF-8, and not empty', lambda x: bool(x.strip()) and _is_line(x)
ASCENDING = (
  f'ascending numbers above 0 and at most {MOST_EPOCHS:,}',
  lambda xs: all(_is_number(x) and EPOCHS[1](x) for x in xs) and list(xs) == sorted(set(xs)),
)
SHARES = (
  'one number above 0 for each source, or ()',
  lambda xs: all(_is_number(x) and ABOVE_0[1](x) for x in xs),
)
CANVASES = (
  f'pairs (height, width) of whole numbers of at most {SIDE:,}, such as ((64, 64),), at least one; '
  'for pairs of images also fours, such as (64, 96, 96, 64), of the left and the right',
  lambda xs: (
    all(isinstance(x, (tuple, list)) and _are_sides(x) for x in xs) and any(len(x) == 2 for x in xs)
  ),
)


class Field(FieldReference):
  """A value with the rule it keeps; to be assigned another Field replaces both."""

  def __init__(self, default: Any, rule: Rule):
    super().__init__(default)
    self.rule = rule

  def set(self, value: Any, type_safe: bool = True) -> None:
    """Replaces the value; its type stays."""
    if isinstance(value, Field):
      self.rule, value = value.rule, value.get()
    super().set(value, type_safe)

  def __setstate__(self, state: dict[str, Any]) -> None:
    self.__dict__.update(state)  # A copy keeps the rule; FieldReference's would drop it.
