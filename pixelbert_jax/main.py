"""The command: `python -m pixelbert_jax.main --config=configs/pretrain.py[:VARIANT]`."""

import pathlib
import sys

from absl import app, flags, logging
from ml_collections import config_flags

from data.build import BuildError
from pixelbert_jax import UserError

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file, with its variant.')
_WORKDIR = flags.DEFINE_string('workdir', None, 'Default: runs/<config>-<variant>-s<seed>.')
_DEBUG = flags.DEFINE_bool('debug', False, 'Show a traceback with an error.')


def main(argv: list[str]) -> int:
  """Dispatches; errors that the user can mend are one line."""
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save.
  from pixelbert_jax.train import train  # JAX is imported once the flags are known to be right.

  config = _CONFIG.value
  name = '-'.join(filter(None, [config.name, config.variant, f's{config.seed}']))
  workdir = pathlib.Path(_WORKDIR.value or f'runs/{name}').absolute()
  try:
    return train(config, workdir)
  except (UserError, BuildError) as error:
    if _DEBUG.value:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1


def run() -> None:
  """The command's entry point."""
  flags.mark_flag_as_required('config')
  app.run(main)


if __name__ == '__main__':
  run()
