"""The command line: flags, overrides of a configuration, and errors in one line.

argparse was kept over `ml_collections.config_flags` after a trial. Under a layer of 39 lines, 15 of
the 69 mistakes in tests/test_mistakes.py failed their assertions (an unknown field lost its path, a
missing value took the next flag) and `abc` became the tuple `('abc',)`; and `score`, which starts
without absl, would still need this parser.
"""

import argparse
import collections
import contextlib
import contextvars
import difflib
import itertools
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NoReturn, TextIO

from pixelbert_jax import UserError

OVERRIDE = '--config.'
ADDRESS = re.compile(r'[A-Za-z][A-Za-z0-9+.-]*:/')  # gs://BUCKET/PATH, file:/PATH
# Where results go inside `quiet`; else None, which is where all goes.
_STDOUT = contextvars.ContextVar[TextIO | None]('stdout', default=None)
INTERRUPTED = 130  # a shell's exit code for a program that Ctrl-C ended


class Parser(argparse.ArgumentParser):
  """An argument parser that raises UserError, where argparse prints its usage and exits."""

  def __init__(
    self,
    module: str,
    description: str | None,
    more: Callable[[], str] = str,
    fields: Callable[[str, str], list[str]] = lambda spec, name: [],
  ):
    """Makes a parser with the flag --debug.

    Args:
      module: that is the command.
      description: what --help begins with, as it stands, such as the module's docstring.
      more: returns what --help ends with.
      fields: lists the fields of a configuration that may be meant by a flag, given --config and
        the name of the flag.
    """
    super().__init__(
      prog=f'python -m {module}',
      description=description,
      allow_abbrev=False,
      formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    self._more, self._fields = more, fields
    self.add_argument('--debug', action='store_true', help='show a traceback with an error')

  def format_help(self) -> str:
    """Formats what --help prints."""
    return super().format_help() + self._more()

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}; --help lists the flags')

  def parse_known_args(self, args=None, namespace=None):
    """Parses, after refusing unknown flags, with what may be meant, and repeated flags."""
    words = sys.argv[1:] if args is None else list(args)
    known = self._option_string_actions
    given = collections.Counter(word.split('=')[0] for word in words if word.startswith('--'))
    if {'-h', '--help'} & {*words}:
      return super().parse_known_args(words, namespace)
    for name, count in given.items():
      action = known.get(name)
      if action is None and not name.startswith(OVERRIDE) and name != '--':
        self.error(f'unknown flag {name}{did_you_mean(self._meant(name, words))}')
      if count > 1 and action and not isinstance(action, argparse._AppendAction):
        self.error(f'{name} is given {count} times: give it once')
    return super().parse_known_args(words, namespace)

  def _meant(self, name: str, words: Sequence[str]) -> list[str]:
    """Lists what may be meant by an unknown flag: fields of the configuration, a flag, a value."""
    value = next((x.partition('=')[2] for x in words if x.startswith(f'{name}=')), 'VALUE')
    spec = next((x.partition('=')[2] for x in words if x.startswith('--config=')), '')
    spec = next((y for x, y in itertools.pairwise(words) if x == '--config'), spec)
    flags = {word.strip('-'): word for word in self._option_string_actions}
    for word, action in self._option_string_actions.items():
      flags |= {x: f'{word}={x}' for x in action.choices or ()}
    if found := near(name.replace('-', '').replace('_', ''), flags, 0.9):
      return found
    if found := self._fields(spec, name.strip('-').replace('-', '_')):
      return [f'{OVERRIDE}{field}={value}' for field in found]
    return near(name.strip('-'), flags)

  def parse_overrides(self, argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Parses flags, and returns beside them the `a.b=value` of each `--config.a.b=value`."""
    flags, rest = self.parse_known_args(argv)
    for word in rest:
      if not word.startswith(OVERRIDE):
        self.error(f'unknown argument {word}: join a value by "=", as in --config.seed=1')
    return flags, [word.removeprefix(OVERRIDE) for word in rest]


def near(name: str, known: Mapping[str, str] | Sequence[str], cutoff: float = 0.6) -> list[str]:
  """Lists the known name that is most like a name, or what it stands for; [] if none is."""
  found = difflib.get_close_matches(name, known, 1, cutoff)
  return [known[x] for x in found] if isinstance(known, Mapping) else found


def did_you_mean(found: Sequence[str]) -> str:
  """Formats the end of a message about a mistake, given what may be meant; '' for nothing."""
  return f': did you mean {" or ".join(found)}?' if found else ''


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
def quiet() -> Iterator[None]:
  """Hides what is printed inside, but for results, and warnings and errors on stderr."""
  token = _STDOUT.set(sys.stdout)
  try:
    with open(os.devnull, 'w') as hidden, contextlib.redirect_stdout(hidden):
      yield
  finally:
    _STDOUT.reset(token)


def result(text: str) -> None:
  """Prints what a command was run for, which `quiet` does not hide."""
  print(text, file=_STDOUT.get(), flush=True)


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
