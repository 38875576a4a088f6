"""The command line: flags, overrides of a configuration, and errors that are one line."""

import argparse
import collections
import contextlib
import difflib
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from pixelbert_jax import UserError

OVERRIDE = '--config.'
INTERRUPTED = 130  # what a shell calls a program that Ctrl-C ended


class Parser(argparse.ArgumentParser):
  """Raises UserError where argparse would print its usage, which is many lines, and exit."""

  def __init__(self, module: str, description: str):
    super().__init__(prog=f'python -m {module}', description=description, allow_abbrev=False)
    self.add_argument('--debug', action='store_true', help='show a traceback with an error')

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; --help lists the flags')

  def parse_known_args(self, args=None, namespace=None):
    """As argparse's, but first of all tells of flags that there are not, or that come twice."""
    words = sys.argv[1:] if args is None else list(args)
    known = self._option_string_actions
    given = collections.Counter(word.split('=')[0] for word in words if word.startswith('--'))
    for name, count in given.items():
      action = known.get(name)
      if action is None and not name.startswith(OVERRIDE) and name != '--':
        near = difflib.get_close_matches(name, known, 1)
        self.error(f'there is no flag {name}{f": did you mean {near[0]}?" if near else ""}')
      if count > 1 and action and not isinstance(action, argparse._AppendAction):
        self.error(f'{name} is given {count} times, and can be given once')
    return super().parse_known_args(words, namespace)

  def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Flags, and the `a.b=value` of every `--config.a.b=value`."""
    flags, rest = self.parse_known_args(argv)
    for word in rest:
      if not word.startswith(OVERRIDE):
        self.error(f'{word} is no flag here; a value is joined by "=", as in --config.seed=1')
    return flags, [word.removeprefix(OVERRIDE) for word in rest]


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """While libraries are imported, some of which take Ctrl-C for an error of theirs: it ends all."""
  before = signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


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
  except KeyboardInterrupt:
    print('stopped', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: an ordinary exit waits for JAX's threads, which may be in the middle of a program.
    os._exit(INTERRUPTED)
