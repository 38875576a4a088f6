"""Trains what a configuration describes, resumes the run in a workdir, or evaluates a checkpoint.

    python -m pixelbert_jax.main --config=configs/pretrain.py
    python -m pixelbert_jax.main --config=configs/pretrain.py --config.seed=1 --workdir=runs/x
    python -m pixelbert_jax.main --config=configs/vqa.py:r50 --config.init_from=C
    python -m pixelbert_jax.main --config=configs/vqa.py --mode=evaluate --checkpoint=runs/vqa-s0

--config.a.b=value sets a field of the configuration. configs/base.py describes the fields that all
configurations have; the file of a configuration describes its own, and the scores to expect.
"""

import contextlib
import pathlib
import sys
from collections.abc import Sequence

from absl import logging
from ml_collections import ConfigDict

from pixelbert_jax import commandline, configuration, huge_pages, predict, require_checkout


def make_parser() -> commandline.Parser:
  """Defines the flags."""
  parser = commandline.Parser(
    'pixelbert_jax.main', __doc__, configuration.listing, configuration.fields_like
  )
  any_path = commandline.any_path
  parser.add_argument('--config', type=any_path, required=True, help='configs/NAME.py[:VARIANT]')
  name = 'runs/<config>-<variant>-s<seed>[-evaluate-<step>]'
  parser.add_argument('--workdir', type=commandline.path, help=f'default: {name}')
  parser.add_argument('--mode', choices=('train', 'evaluate'), default='train')
  parser.add_argument(
    '--quiet', action='store_true', help='print warnings, errors and the final table alone'
  )
  parser.add_argument(
    '--distributed',
    action='store_true',
    help='run as one of several processes, all with the same arguments',
  )
  parser.add_argument(
    '--checkpoint', type=any_path, help='to evaluate: a workdir, WORKDIR@STEP, or a folder'
  )
  return parser


def command(argv: Sequence[str]) -> int:
  """Parses the flags, checks the configuration, and trains or evaluates; returns the exit code."""
  require_checkout()
  parser = make_parser()
  flags, overrides = parser.parse_overrides(argv)
  config = configuration.load(flags.config, overrides)
  if (flags.mode == 'evaluate') != bool(flags.checkpoint):
    parser.error('--mode=evaluate and --checkpoint=C go together')
  config.init_from = flags.checkpoint or config.init_from
  configuration.check(config)
  with commandline.interruptible():  # JAX is imported only once the configuration is right.
    from pixelbert_jax import compilation, number_type, processes, stopping
    from pixelbert_jax.checkpoints.workdir import default, owned
    from pixelbert_jax.evaluate import evaluate
    from pixelbert_jax.loop import DONE
    from pixelbert_jax.report import after
    from pixelbert_jax.train import train

  logging.set_verbosity(logging.WARNING)  # Orbax logs every step of a save.
  workdir = flags.workdir and pathlib.Path(flags.workdir).absolute()

  def work() -> int:
    if not any(word.startswith('dtype=') for word in overrides):
      run = None if flags.checkpoint else workdir or default(config)
      config.dtype = number_type.chosen(config, run)
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
        print(use(config, folder), flush=True)
      return stopping.ended(code)

  hidden = commandline.quiet if flags.quiet else contextlib.nullcontext
  if not flags.distributed:
    with hidden():
      return work()
  processes.join()
  with processes.leaving_at_once(), hidden():
    return work()


def use(config: ConfigDict, workdir: pathlib.Path) -> str:
  """Says where a model is and how it is used, with a command that asks it something."""
  from pixelbert_jax.experiment import TASKS
  from pixelbert_jax.input.dataset import is_embedded

  task, here = TASKS[config.name], pathlib.Path.cwd()
  folder = str(workdir.relative_to(here) if workdir.is_relative_to(here) else workdir)
  said = f'the model is in {folder}; {task.USE}'
  if not task.ASKED:
    return said
  image = 'docs/scene.jpg' if is_embedded(config.data.name) else 'PHOTO.jpg'
  return f'{said}\n{predict.example(task.ASKED, folder, image)}'


def main(argv: Sequence[str]) -> int:
  """Runs the command and returns its exit code; errors are one line on stderr."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  huge_pages.ask()
  sys.exit(main(sys.argv[1:]))
