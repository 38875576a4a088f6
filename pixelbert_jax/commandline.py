"""The command line: flags, overrides of a configuration, and errors that are one line."""

import argparse
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from pixelbert_jax import UserError

OVERRIDE = '--config.'


class Parser(argparse.ArgumentParser):
  """Raises UserError where argparse would print its usage, which is many lines, and exit."""

  def __init__(self, command: str, description: str):
    super().__init__(
      prog=f'python -m pixelbert_jax.{command}', description=description, allow_abbrev=False
    )
    self.add_argument('--debug', action='store_true', help='show a traceback with an error')

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; --help lists the flags')

  def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags, and the `a.b=value` of every `--config.a.b=value`."""
    flags, rest = self.parse_known_args(argv)
    for word in rest:
      if not word.startswith(OVERRIDE):
        self.error(f'{word} is no flag here; a value is joined by "=", as in --config.seed=1')
    return flags, [word.removeprefix(OVERRIDE) for word in rest]


def answer(work: Callable[[], int | None], debug: bool = False) -> int:
  """The exit code of `work`; what the user can mend is told on stderr, and is 1.

  With `debug` it is raised instead.
  """
  try:
    return work() or 0
  except (UserError, OSError) as error:
    if debug:
      raise
    for line in str(error).splitlines():  # Several only where a file has several faults.
      print(f'error: {line}', file=sys.stderr)
    return 1
