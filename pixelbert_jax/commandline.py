"""The command line: flags, overrides of a configuration, and errors in one line.

argparse was kept over `ml_collections.config_flags` after a trial. Under a layer of 39 lines, 15 of
the 69 mistakes in tests/test_mistakes.py failed their assertions (an unknown field lost its path, a
missing value took the next flag) and `abc` became the tuple `('abc',)`; and `score`, which starts
without absl, would still need this parser.
"""

import argparse
import collections
import contextlib
import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import NoReturn

from pixelbert_jax import UserError

OVERRIDE = '--config.'
ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:/')  # gs://BUCKET/PATH, file:/PATH
INTERRUPTED = 130  # a shell's exit code for a program that Ctrl-C ended


class Parser(argparse.ArgumentParser):
  """An argument parser that raises UserError, where argparse prints its usage and exits."""

  def __init__(self, module: str, description: str):
    super().__init__(prog=f'python -m {module}', description=description, allow_abbrev=False)
    self.add_argument('--debug', action='store_true', help='show a traceback with an error')

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; --help lists the flags')

  def parse_known_args(self, args=None, namespace=None):
    """Parses, after refusing unknown flags, with the nearest known one, and repeated flags."""
    words = sys.argv[1:] if args is None else list(args)
    known = self._option_string_actions
    given = collections.Counter(word.split('=')[0] for word in words if word.startswith('--'))
    for name, count in given.items():
      action = known.get(name)
      if action is None and not name.startswith(OVERRIDE) and name != '--':
        near = difflib.get_close_matches(name, known, 1)
        self.error(f'unknown flag {name}{f": did you mean {near[0]}?" if near else ""}')
      if count > 1 and action and not isinstance(action, argparse._AppendAction):
        self.error(f'{name} is given {count} times: give it once')
    return super().parse_known_args(words, namespace)

  def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses flags, and returns beside them the `a.b=value` of each `--config.a.b=value`."""
    flags, rest = self.parse_known_args(argv)
    for word in rest:
      if not word.startswith(OVERRIDE):
        self.error(f'unknown argument {word}: join a value by "=", as in --config.seed=1')
    return flags, [word.removeprefix(OVERRIDE) for word in rest]


def any_path(text: str) -> str:
  """Expands a leading ~ in a path, which the shell leaves after '='; an address stays as it is."""
  return text if ADDRESS.match(text) else os.path.expanduser(text)


def path(text: str) -> str:
  """Expands a leading ~ in the path of a file or folder on this machine.

  Raises:
    argparse.ArgumentTypeError: it is an address, such as gs://BUCKET/PATH.
  """
  if ADDRESS.match(text):
    raise argparse.ArgumentTypeError(
      f'{text} is an address, and a path on this machine is needed: mount the bucket (gcsfuse for '
      'gs://), or copy it to a disk'
    )
  return any_path(text)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
  """Lets Ctrl-C end the program at once: some libraries take it for an error as they load."""
  before = signal.signal(signal.SIGINT, signal.SIG_DFL)
  try:
    yield
  finally:
    signal.signal(signal.SIGINT, before)


def answer(command: Callable[[Sequence[str]], int | None], argv: Sequence[str]) -> int:
  """Runs a command and returns its exit code; errors of the user are a line on stderr and code 1.

  With `--debug` such an error is raised instead.
  """
  # Pillow logs errors that it raises besides, and so they would be two lines.
  logging.getLogger('PIL').setLevel(logging.CRITICAL)
  try:
    return command(argv) or 0
  except (UserError, OSError) as error:
    if '--debug' in argv:
      raise
    for line in str(error).splitlines():  # Several only where a file has several faults.
      print(f'error: {line}', file=sys.stderr)
    return 1
  except KeyboardInterrupt:
    print('stopped', file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    # At once: an ordinary exit waits for JAX's threads, which may be running a program.
    os._exit(INTERRUPTED)
