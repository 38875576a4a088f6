"""Imports weights from PyTorch, and exports models to it.

BERT and a CNN become the checkpoint C that pre-training starts from, a checkpoint becomes a folder
for PyTorch, and such a folder a checkpoint again:

    python -m pixelbert_jax.convert --bert=bert-base-uncased --cnn=resnet50.pth \\
      --config=configs/pretrain.py:r50 --output=C
    python -m pixelbert_jax.convert --checkpoint=C --export=DIR
    python -m pixelbert_jax.convert --checkpoint=DIR --output=C

DIR may be on the hub: hf://USER/NAME[@REVISION]. docs/pytorch.md says where the files come from.
"""

import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from absl import logging

from pixelbert_jax import UserError, commandline, configuration, lock

FLAGS = {
  'bert': 'folder or hub id of a Hugging Face BERT',
  'cnn': '.safetensors, .pth or Detectron .pkl file of an ImageNet CNN',
  'config': 'configs/NAME.py[:VARIANT]',
  'output': 'the checkpoint to write',
  'checkpoint': 'the checkpoint to export, or the exported folder or hf://USER/NAME to import',
  'export': 'the folder to write for PyTorch',
}
# A checkpoint may lie in a bucket, and a hub id is no path.
KINDS = dict.fromkeys(('config', 'checkpoint', 'bert'), commandline.any_path)
USAGE = (
  'give --bert, --cnn, --config and --output to convert; --checkpoint and --export to export; '
  '--checkpoint and --output to import an exported folder; --help shows each'
)


def command(argv: Sequence[str]) -> None:
  """Imports or exports, and prints a summary."""
  parser = commandline.Parser('pixelbert_jax.convert', __doc__, fields=configuration.fields_like)
  for name, text in FLAGS.items():
    parser.add_argument(f'--{name}', type=KINDS.get(name, commandline.path), help=text)
  flags, overrides = parser.parse_overrides(argv)
  given = {name: value for name, value in vars(flags).items() if name in FLAGS and value}
  if flags.config:
    given['config'] = config = configuration.load(flags.config, overrides)
    if config.name != 'pretrain':
      raise UserError(
        f'--config={flags.config}: weights are imported as the start of pre-training; '
        f'give --config=configs/pretrain.py:{config.variant}'
      )
  print(
    dispatch(given, [f'--config={flags.config}', *(commandline.OVERRIDE + x for x in overrides)])
  )


def dispatch(given: dict[str, Any], words: Sequence[str] = ()) -> str:
  """Imports or exports, depending on which flags are given; returns a summary.

  Args:
    given: values by flag; `config` is a ConfigDict.
    words: of the command line, that made the configuration.
  """
  logging.set_verbosity(logging.WARNING)  # Orbax logs every step of a save.
  exporting, importing = {'checkpoint', 'export'}, {'bert', 'cnn', 'config', 'output'}
  # The cards of earlier exports say --bert.
  reimporting = {'checkpoint', 'output'}, {'bert', 'output'}
  if given.keys() not in (exporting, importing, *reimporting):
    raise UserError(USAGE)
  with commandline.interruptible():  # JAX is imported only after the flags are checked.
    from pixelbert_jax.convert import export, importer
  flag = 'export' if given.keys() == exporting else 'output'
  folder = pathlib.Path(given[flag]).absolute()
  with lock.held(folder.with_name(f'.{folder.name}.lock'), str(folder), f'give another --{flag}'):
    if given.keys() == exporting:
      export.export(given['checkpoint'], given['export'])
      return f'{given["export"]} holds the model for PyTorch'
    if given.keys() == importing:
      return importer.import_weights(**given, words=words)
    return importer.import_export(given.get('checkpoint') or given['bert'], given['output'])


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns the exit code. Errors are printed in one line."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
