"""The command: `python -m pixelbert_jax.main --config=configs/NAME.py[:VARIANT]`.

With `--mode=evaluate --checkpoint=C` it evaluates a checkpoint on the split `config.data.test`.
With `--distributed` it is one of several processes (processes.py), all with the same arguments.
"""

import pathlib
import sys
from collections.abc import Sequence

from absl import logging

from pixelbert_jax import commandline, configuration, huge_pages, require_checkout


def command(argv: Sequence[str]) -> int:
  """Parses the flags, checks the configuration, and trains or evaluates; returns the exit code."""
  require_checkout()
  parser = commandline.Parser(
    'pixelbert_jax.main', 'Trains what a configuration describes, or resumes it.'
  )
  parser.epilog = 'Set any field of the configuration with --config.a.b=value.'
  any_path = commandline.any_path
  parser.add_argument('--config', type=any_path, required=True, help='configs/NAME.py[:VARIANT]')
  name = 'runs/<config>-<variant>-s<seed>[-evaluate-<step>]'
  parser.add_argument('--workdir', type=commandline.path, help=f'default: {name}')
  parser.add_argument('--mode', choices=('train', 'evaluate'), default='train')
  parser.add_argument('--distributed', action='store_true', help='run as one of several processes')
  parser.add_argument(
    '--checkpoint', type=any_path, help='to evaluate: a workdir, WORKDIR@STEP, or a folder'
  )
  flags, overrides = parser.parse_overrides(argv)
  config = configuration.load(flags.config, overrides)
  if (flags.mode == 'evaluate') != bool(flags.checkpoint):
    parser.error('--mode=evaluate and --checkpoint=C go together')
  config.init_from = flags.checkpoint or config.init_from
  configuration.check(config)
  with commandline.interruptible():  # JAX is imported only once the configuration is right.
    from pixelbert_jax import compilation, processes, stopping
    from pixelbert_jax.checkpoints.workdir import default, owned
    from pixelbert_jax.evaluate import evaluate
    from pixelbert_jax.loop import DONE
    from pixelbert_jax.report import after
    from pixelbert_jax.train import train

  logging.set_verbosity(logging.WARNING)  # Orbax logs every step of a save.
  workdir = flags.workdir and pathlib.Path(flags.workdir).absolute()

  def work() -> int:
    # Beside the workdir; that of an evaluation ends with a step that is not known yet.
    compilation.keep(config.compilation_cache, (workdir or default(config)).parent)
    if flags.mode == 'evaluate':
      after(evaluate(config, flags.checkpoint, workdir))
      return 0
    folder = workdir or default(config)
    with owned(folder):
      code = train(config, folder)
      if code == DONE:
        after(folder)
      return stopping.ended(code)

  if not flags.distributed:
    return work()
  processes.join()
  with processes.leaving_at_once():
    return work()


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code; errors are one line on stderr."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  huge_pages.ask()
  sys.exit(main(sys.argv[1:]))
