"""The command that takes weights from PyTorch, and gives them back.

    python -m pixelbert_jax.convert --bert=DIR_OR_HUB_ID --cnn=FILE \
        --config=configs/pretrain.py:r50 --output=C
    python -m pixelbert_jax.convert --checkpoint=C --export=DIR
    python -m pixelbert_jax.convert --bert=DIR --output=C     # of an exported DIR, which is whole
"""

import functools
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging

from pixelbert_jax import UserError, commandline, configuration

FLAGS = {
  'bert': "a Hugging Face BERT's folder or hub id, or an export",
  'cnn': "an ImageNet CNN's .safetensors, .pth or Detectron .pkl",
  'config': 'configs/NAME.py[:VARIANT]',
  'output': 'the checkpoint to write',
  'checkpoint': 'the checkpoint to export',
  'export': 'the folder to write for PyTorch',
}
USAGE = (
  'give --bert, --cnn, --config and --output to convert; --checkpoint and --export to export; '
  '--bert and --output to take an export back'
)


def command(argv: Sequence[str]) -> None:
  """Converts or exports, and prints what was done."""
  parser = commandline.Parser(
    'pixelbert_jax.convert', 'Takes weights from PyTorch, and gives them back.'
  )
  for name, text in FLAGS.items():
    parser.add_argument(f'--{name}', help=text)
  flags, overrides = parser.parse_overrides(argv)
  given = {name: value for name, value in vars(flags).items() if name in FLAGS and value}
  if flags.config:
    given['config'] = config = configuration.load(flags.config, overrides)
    if config.name != 'pretrain':
      raise UserError(
        f'--config={flags.config}: what is converted is what pre-training starts from; '
        f'take --config=configs/pretrain.py:{config.variant}'
      )
  print(
    dispatch(given, [f'--config={flags.config}', *(commandline.OVERRIDE + x for x in overrides)])
  )


def dispatch(given: dict[str, Any], words: Sequence[str] = ()) -> str:
  """Does what the given flags ask for; returns what was done.

  `words` of the command line are those that made the configuration.
  """
  logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save.
  out, back, new = {'checkpoint', 'export'}, {'bert', 'output'}, {'bert', 'cnn', 'config', 'output'}
  if given.keys() not in (out, back, new):
    raise UserError(USAGE)
  with commandline.interruptible():  # JAX is imported once the flags are known to be right.
    from pixelbert_jax.convert import export, intake
  if given.keys() == out:
    export.export(given['checkpoint'], given['export'])
    return f'{given["export"]} holds the model for PyTorch'
  return intake.take_export(**given) if given.keys() == back else intake.take(**given, words=words)


def main(argv: Sequence[str]) -> int:
  """The command, its errors one line."""
  return commandline.answer(functools.partial(command, argv), '--debug' in argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
