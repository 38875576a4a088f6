"""The command that takes weights from PyTorch, and gives them back.

    python -m pixelbert_jax.convert --bert=DIR_OR_HUB_ID --cnn=FILE \
        --config=configs/pretrain.py:r50 --output=C
    python -m pixelbert_jax.convert --checkpoint=C --export=DIR
    python -m pixelbert_jax.convert --bert=DIR --output=C     # of an exported DIR, which is whole
"""

import sys
from typing import Any

from absl import app, flags, logging
from ml_collections import config_flags

from pixelbert_jax import UserError

_CONFIG = config_flags.DEFINE_config_file('config', None, 'Configuration file, with its variant.')
_BERT = flags.DEFINE_string('bert', None, "A Hugging Face BERT's folder or hub id, or an export.")
_CNN = flags.DEFINE_string('cnn', None, "An ImageNet CNN's .safetensors, .pth or Detectron .pkl.")
_OUTPUT = flags.DEFINE_string('output', None, 'The checkpoint to write.')
_CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'The checkpoint to export.')
_EXPORT = flags.DEFINE_string('export', None, 'The folder to write for PyTorch.')
_DEBUG = flags.DEFINE_bool('debug', False, 'Show a traceback with an error.')

USAGE = (
  'give --bert, --cnn, --config and --output to convert; --checkpoint and --export to export; '
  '--bert and --output to take an export back'
)


def main(argv: list[str]) -> int:
  """Dispatches; errors that the user can mend are one line."""
  del argv
  logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save.
  names = ('bert', 'cnn', 'config', 'output', 'checkpoint', 'export')
  values = (_BERT, _CNN, _CONFIG, _OUTPUT, _CHECKPOINT, _EXPORT)
  given = {name: flag.value for name, flag in zip(names, values, strict=True) if flag.value}
  try:
    print(dispatch(given))
  except UserError as error:
    if _DEBUG.value:
      raise
    print(f'error: {error}', file=sys.stderr)
    return 1
  return 0


def dispatch(given: dict[str, Any]) -> str:
  """Does what the given flags ask for; returns what was done."""
  # JAX and the rest are imported once the flags are known to be right.
  if given.keys() == {'checkpoint', 'export'}:
    from pixelbert_jax.weights.export import export

    export(given['checkpoint'], given['export'])
    return f'{given["export"]} holds the model for PyTorch'
  if given.keys() == {'bert', 'output'}:
    from pixelbert_jax.weights.intake import take_export as take
  elif given.keys() == {'bert', 'cnn', 'config', 'output'}:
    from pixelbert_jax.weights.intake import take
  else:
    raise UserError(USAGE)
  return take(**given)


def run() -> None:
  """The command's entry point."""
  app.run(main)


if __name__ == '__main__':
  run()
