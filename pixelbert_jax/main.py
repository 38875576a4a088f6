"""The command: `python -m pixelbert_jax.main --config=configs/NAME.py[:VARIANT]`.

With `--mode=evaluate --checkpoint=C` it evaluates a checkpoint on the split `config.data.test`.
With `--distributed` it is one of several processes (processes.py), all with the same arguments.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import logging

from pixelbert_jax import commandline, configuration, require_checkout


def command(argv: Sequence[str]) -> int:
  """Parses the flags, checks the configuration, and trains or evaluates; returns the exit code."""
  require_checkout()
  parser = commandline.Parser(
    'pixelbert_jax.main', 'Trains what a configuration describes, or resumes it.'
  )
  parser.epilog = 'Set any field of the configuration with --config.a.b=value.'
  parser.add_argument('--config', required=True, help='configs/NAME.py[:VARIANT]')
  parser.add_argument('--workdir', help='default: runs/<config>-<variant>-s<seed>[-evaluate]')
  parser.add_argument('--mode', choices=('train', 'evaluate'), default='train')
  parser.add_argument('--distributed', action='store_true', help='run as one of several processes')
  parser.add_argument('--checkpoint', help='to evaluate: a workdir, WORKDIR@STEP, or a folder')
  flags, overrides = parser.parse_overrides(argv)
  config = configuration.load(flags.config, overrides)
  if (flags.mode == 'evaluate') != bool(flags.checkpoint):
    parser.error('--mode=evaluate and --checkpoint=C go together')
  config.init_from = flags.checkpoint or config.init_from
  configuration.check(config)
  with commandline.interruptible():  # JAX is imported only once the configuration is right.
    from pixelbert_jax import processes, stopping
    from pixelbert_jax.evaluate import evaluate
    from pixelbert_jax.train import train

  logging.set_verbosity(logging.WARNING)  # Orbax logs every step of a save.
  # An evaluation has a folder of its own, beside that of the run.
  suffix = flags.mode == 'evaluate' and 'evaluate'
  name = '-'.join(filter(None, [config.name, config.variant, f's{config.seed}', suffix]))
  workdir = pathlib.Path(flags.workdir or f'runs/{name}').absolute()

  def work() -> int:
    if flags.mode == 'train':
      return stopping.ended(train(config, workdir))
    evaluate(config, flags.checkpoint, workdir)
    return 0

  if not flags.distributed:
    return work()
  processes.join()
  with processes.leaving_at_once():
    return work()


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code; errors are one line on stderr."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
