"""The command: `python -m pixelbert_jax.main --config=configs/NAME.py[:VARIANT]`.

With `--mode=evaluate --checkpoint=C` it runs a checkpoint on the split `config.data.test`. With
`--distributed` it is one of several processes (processes.py), all with the same arguments.
"""

import functools
import pathlib
import sys
from collections.abc import Sequence

from absl import logging

from pixelbert_jax import commandline, configuration


def command(argv: Sequence[str]) -> int:
  """Dispatches; returns the exit code."""
  parser = commandline.Parser(
    'pixelbert_jax.main', 'Trains what a configuration describes, or goes on with it.'
  )
  parser.epilog = 'Any field of the configuration: --config.a.b=value.'
  parser.add_argument('--config', required=True, help='configs/NAME.py[:VARIANT]')
  parser.add_argument('--workdir', help='default: runs/<config>-<variant>-s<seed>[-evaluate]')
  parser.add_argument('--mode', choices=('train', 'evaluate'), default='train')
  parser.add_argument('--distributed', action='store_true', help='one of several processes')
  parser.add_argument('--checkpoint', help='to evaluate: a workdir, WORKDIR@STEP, or a folder')
  flags, overrides = parser.parse_overrides(argv)
  config = configuration.load(flags.config, overrides)
  if (flags.mode == 'evaluate') != bool(flags.checkpoint):
    parser.error('--mode=evaluate and --checkpoint=C go together')
  with config.unlocked():
    config.init_from = flags.checkpoint or config.init_from
  configuration.check(config)
  with commandline.interruptible():  # JAX is imported once the configuration is right.
    from pixelbert_jax import processes
    from pixelbert_jax.evaluate import evaluate
    from pixelbert_jax.train import train

  logging.set_verbosity(logging.WARNING)  # Orbax tells every step of a save.
  evaluates = flags.mode == 'evaluate' and 'evaluate'  # beside the run of that name, not into it
  name = '-'.join(filter(None, [config.name, config.variant, f's{config.seed}', evaluates]))
  workdir = pathlib.Path(flags.workdir or f'runs/{name}').absolute()

  def work() -> int:
    if flags.mode == 'train':
      return train(config, workdir)
    evaluate(config, flags.checkpoint, workdir)
    return 0

  if not flags.distributed:
    return work()
  processes.join()
  with processes.leaving_at_once():
    return work()


def main(argv: Sequence[str]) -> int:
  """The command, its errors one line."""
  return commandline.answer(functools.partial(command, argv), '--debug' in argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
