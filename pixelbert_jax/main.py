"""The command: `python -m pixelbert_jax.main --config=configs/pretrain.py[:VARIANT]`."""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import NoReturn

from absl import logging

from pixelbert_jax import UserError, configuration


class _Parser(argparse.ArgumentParser):
  def error(self, message: str) -> NoReturn:
    """Its usage, which argparse would print before the message, is many lines."""
    raise UserError(message)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
  """Flags, and the overrides `a.b=value` of `--config.a.b=value`."""
  parser = _Parser(
    prog='python -m pixelbert_jax.main',
    description='Trains what a configuration describes, or goes on with a run.',
    epilog='Any field of the configuration: --config.a.b=value.',
    allow_abbrev=False,
  )
  parser.add_argument('--config', required=True, help='configs/NAME.py[:VARIANT]')
  parser.add_argument('--workdir', help='default: runs/<config>-<variant>-s<seed>')
  parser.add_argument('--debug', action='store_true', help='show a traceback with an error')
  flags, rest = parser.parse_known_args(argv)
  prefix = '--config.'
  unknown = [word for word in rest if not word.startswith(prefix)]
  if unknown:
    raise UserError(f'{unknown[0]} is no flag here; a value is joined by "=": --config.seed=1')
  return flags, [word.removeprefix(prefix) for word in rest]


def main(argv: Sequence[str]) -> int:
  """Dispatches; returns the exit code. What the user can mend is one line on stderr."""
  try:
    flags, overrides = parse(argv)
    config = configuration.load(flags.config, overrides)
    configuration.check(config)
    from pixelbert_jax.train import train  # JAX is imported once the configuration is right.

    logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save.
    name = '-'.join(filter(None, [config.name, config.variant, f's{config.seed}']))
    return train(config, pathlib.Path(flags.workdir or f'runs/{name}').absolute())
  except (UserError, OSError) as error:
    if '--debug' in argv:
      raise
    print(f'error: {" ".join(str(error).split())}', file=sys.stderr)
    return 1


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
