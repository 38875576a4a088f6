"""Compiles the programs of a configuration for chips that are not here, and says what they cost.

    python -m pixelbert_jax.plan --config=configs/pretrain.py:r50 --topology=v5e:2x4

docs/plan.md says how to read what it prints. --config.a.b=value sets a field of the configuration.
"""

import argparse
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from pixelbert_jax import commandline, configuration, jsons
from pixelbert_jax.plan import target


def _positive(text: str) -> int:
  number = int(text)
  if number < 1:
    raise argparse.ArgumentTypeError(f'{text} is less than 1')
  return number


def _share(text: str) -> float:
  share = float(text)
  if not 0 <= share < 1:
    raise argparse.ArgumentTypeError(f'{text} is not from 0 to below 1')
  return share


def parser() -> commandline.Parser:
  """Makes the parser of the flags."""
  made = commandline.Parser('pixelbert_jax.plan', __doc__, fields=configuration.fields_like)
  add = made.add_argument
  add('--config', type=commandline.any_path, required=True, help='configs/NAME.py[:VARIANT]')
  add('--topology', required=True, help=target.EXAMPLES)
  add('--mode', choices=('train', 'evaluate'), help='default: both')
  add('--images_per_chip', type=_positive, help="at a time, instead of the configuration's batch")
  add('--all_canvases', action='store_true', help='all canvases, not the largest alone')
  add('--fit', action='store_true', help='find the largest training batch that fits')
  add('--spare', type=_share, default=0.15, help='share of memory that --fit leaves free')
  add('--mfu', type=_share, default=0.4, help='hours are given for this MFU besides')
  add('--texts', type=_positive, default=0, help='of an epoch, where they are not published')
  add('--dump', type=commandline.path, help='folder for the compiled programs, as text')
  add('--json', action='store_true', help='print one JSON object')
  add('--record', type=commandline.path, help='file that the JSON object is appended to')
  return made


def command(argv: Sequence[str]) -> None:
  """Plans a configuration and prints the result."""
  flags, overrides = parser().parse_overrides(argv)
  if not flags.mfu:
    parser().error('--mfu=0: give a share above 0')
  if flags.fit and flags.mode == 'evaluate':
    parser().error('--fit is for training: leave --mode=evaluate out')
  config = configuration.load(flags.config, overrides)
  config.init_from = config.init_from or 'C'  # No weights are read.
  configuration.check(config)
  chosen = target.parse(flags.topology)
  target.prepare()
  with commandline.interruptible():
    described = plan(config, chosen, flags)
  if overrides:
    described['overrides'] = list(overrides)
  line = jsons.text(described)
  if flags.record:
    _append(pathlib.Path(flags.record), line)
  if flags.json:
    print(line)
  else:
    from pixelbert_jax.plan import report

    print(report.text(described))


def plan(config: Any, chosen: target.Target, flags: argparse.Namespace) -> dict[str, Any]:
  """Compiles what the flags ask for, and describes it."""
  # They import JAX, which reads the environment.
  from pixelbert_jax.plan import measure, program, report

  some = 2 * measure.FIRST if flags.fit else 0  # The batch is to be found.
  of = program.setting(config, chosen, flags.images_per_chip or some)
  dump = pathlib.Path(flags.dump) if flags.dump else None
  described = report.head(of) | {'mfu': flags.mfu, 'programs': []}
  if flags.fit:
    found = measure.fit(of, flags.spare, dump)
    described['fit'] = report.fitted(of, found, flags.spare, config.batch_size)
    if not found.groups:
      return described
    of = of.of_size(found.groups)
    described['programs'].append(report.measured(of, 'train', found.programs, flags))
  for canvas in program.canvases(of.config) if flags.all_canvases else [of.canvas]:
    for mode in [flags.mode] if flags.mode else ['train', 'evaluate']:
      here = of.on(canvas).of_mode(mode)
      done = [(p['mode'], tuple(p['canvas'])) for p in described['programs']]
      if (mode, here.canvas) not in done:
        made = list(measure.programs(here, mode, dump))
        described['programs'].append(report.measured(here, mode, made, flags))
  return described


def _append(path: pathlib.Path, line: str) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  with path.open('a') as file:
    file.write(line + '\n')


def main(argv: Sequence[str]) -> int:
  """Runs the command; returns the exit code. Errors are printed in one line."""
  return commandline.answer(command, argv)


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
