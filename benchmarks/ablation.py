"""Tests the paper's findings on pre-training, on scenes: the ablation of its last section.

    python -m benchmarks.ablation --init_from=C --resolve    # first, and commit what it wrote
    python -m benchmarks.ablation --init_from=C [--cell=NAME] [--seed=N]

C is a CNN trained on labels, as by `configs/labels.py:paper_small` on the same scenes. A piece is a
cell with a seed: pre-training by `configs/pretrain.py:paper_small`, then each fine-tuning of the
cell by that variant. Without --cell and --seed these are all cells, each with every seed of SEEDS.

    MLM+ITM     as the paper pre-trains
    MLM, ITM    one of the two tasks; without ITM every pair is true, without MLM no word is hidden
    none        no pre-training: the fine-tunings start from C, with a random Transformer
    all pixels  without pixel sampling
    fixed CNN   the CNN of C, in pre-training and in the fine-tunings

A line for each piece is appended to --output, by default ablation.jsonl beside the other results.
What has a line of the same flags is not run again: delete the line to repeat it, as after a change
of C, which counts by its path, or of a variant, by its name. A piece that was broken off goes on.

What counts: `--resolve` runs MLM+ITM with every seed, and takes from the spread between them the
smallest effect that this many seeds resolve (findings.py: `smallest`). It appends these to
ablation_resolution.jsonl, without which no other cell is run. A mean effect that is smaller, or
that has not one sign with all seeds, is `inconclusive`. Nothing counts where MLM+ITM is below
0.80 in matching with some seed.

Calibration and tuning have other seeds, as in `--cell=none --seed=100 --data=scenes/hard`. Such
pieces need no --resolve, and are in a table of their own; nothing counts if `none` has fewer of
them than MLM+ITM. All cells have one recipe, so no other cell can be tuned by itself.

`--again` repeats pieces that have a line, in another folder, compares bitwise all that they logged
with what they logged before, and appends the outcome to ablation_again.jsonl.
"""

import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks import findings, record, study
from benchmarks.findings import FULL, METRICS, NONE, RESULTS, SEEDS
from benchmarks.study import Fields, Line, Run, flags
from data.scenes.captions import CAPTIONS_PER_SCENE
from data.scenes.record import SPLITS
from pixelbert_jax import UserError, commandline, jsons

PAIRS = CAPTIONS_PER_SCENE * SPLITS['train']  # of an epoch
BATCH = 128
DECAYS = (25 / 40, 35 / 40)  # of pre-training, after which its rates fall (section 4.1)


class Cell(NamedTuple):
  """A cell of the table.

  Attributes:
    pretraining: fields in which its pre-training differs; None if it has none.
    tuning: those in which its fine-tunings differ.
    tasks: that it is fine-tuned for, as named by the files in configs/.
  """

  pretraining: Fields | None
  tuning: Fields
  tasks: tuple[str, ...] = ('vqa', 'retrieval')


FIXED: Fields = {'optimizer.cnn_rule': 'none'}
CELLS: Mapping[str, Cell] = {
  FULL: Cell({}, {}, ('vqa', 'retrieval', 'nlvr2')),
  'MLM': Cell({'itm_weight': 0}, {}),
  'ITM': Cell({'mlm_weight': 0}, {}, ('vqa', 'retrieval', 'nlvr2')),
  NONE: Cell(None, {}),
  'all pixels': Cell({'sampled_pixels': 0}, {}),
  'fixed CNN': Cell(FIXED, FIXED),
}


class Recipe(NamedTuple):
  """What all cells share.

  Attributes:
    init_from: a run of labels.
    data: the dataset.
    steps: of pre-training.
    variant: of the files in configs/.
  """

  init_from: str
  data: str
  steps: int
  variant: str

  @property
  def shared(self) -> str:
    """The flags of pre-training, from which those of the fine-tunings follow."""
    epochs = self.steps * BATCH / PAIRS
    fields = {
      'init_from': self.init_from,
      'data.name': self.data,
      'steps': self.steps,
      'eval_every': self.steps + 1,  # Only the report counts.
      'optimizer.decay_epochs': f'({",".join(f"{share * epochs:.4g}" for share in DECAYS)})',
    }
    return shlex.join([f'--config=configs/pretrain.py:{self.variant}', *flags(fields)])

  def run(self, name: str, seed: int) -> Run:
    """Returns a piece."""
    fields = {'seed': seed} | (CELLS[name].pretraining or {})
    return Run(name, seed, self.shared, shlex.join(flags(fields)))

  def parts(self, run: Run, folder: pathlib.Path) -> Iterator[tuple[str, pathlib.Path, list[str]]]:
    """Yields the name, workdir and flags of each part of a piece, in their order."""
    cell, base, start = CELLS[run.arm], run.folder(folder), self.init_from
    if cell.pretraining is not None:
      workdir = base.with_name(f'{base.name}-pretrain')
      yield 'pretrain', workdir, [*run.words, f'--workdir={workdir}']
      start = str(workdir)
    for task in cell.tasks:
      workdir = base.with_name(f'{base.name}-{task}')
      fields = {
        'seed': run.seed,
        'init_from': start,
        'data.name': self.data,
        **cell.tuning,
      }
      config = f'--config=configs/{task}.py:{self.variant}'
      yield task, workdir, [config, *flags(fields), f'--workdir={workdir}']

  def execute(self, run: Run, folder: pathlib.Path) -> dict[str, dict[str, Any]]:
    """Trains a piece; returns by part its METRICS, digest of its log, and seconds.

    Raises:
      subprocess.CalledProcessError: a part failed, and has said why.
    """
    results = {}
    for part, workdir, words in self.parts(run, folder):
      study.train(*words)
      lines = study.logged(workdir)
      found = {name: lines[-1][name] for name in METRICS[part] if name in lines[-1]}
      about = {'log_sha256': digest(lines), 'seconds': study.seconds(workdir, lines)}
      results[part] = found | about
    return results


def digest(lines: Sequence[Line]) -> str:
  """Computes the SHA-256 of a log, less what depends on the clock."""
  return jsons.digest([{n: x for n, x in line.items() if 'second' not in n} for line in lines])


def missing(recipe: Recipe, values: Any) -> list[Run]:
  """Returns the pieces that are asked for and have no line yet.

  Raises:
    UserError: of a cell that is compared the smallest effect is not written yet.
  """
  names = [FULL] if values.resolve else [values.cell] if values.cell else list(CELLS)
  seeds = list(SEEDS) if values.seed is None else [values.seed]
  runs = study.waiting((recipe.run(n, s) for n in names for s in seeds), values.output)
  compared = [run for run in runs if run.arm != FULL and run.seed in SEEDS]
  if compared and findings.resolved(values.output, recipe.shared) is None:
    raise UserError(
      f'{findings.beside(values.output, "resolution")} has no smallest effect of this recipe: '
      f'add --resolve to this command, which runs {FULL} first, and commit what it writes'
    )
  return runs


def resolve(recipe: Recipe, output: pathlib.Path) -> None:
  """Appends the smallest effects, from the lines of MLM+ITM, unless the recipe has some."""
  if findings.resolved(output, recipe.shared) is None:
    wanted = {recipe.run(FULL, seed) for seed in SEEDS}
    results = [line['results'] for line in study.read(output) if run_of(line) in wanted]
    found = findings.resolution(results)
    record.append(findings.beside(output, 'resolution'), shared=recipe.shared, smallest=found)


def again(recipe: Recipe, values: Any) -> int:
  """Repeats the pieces that are asked for; returns 1 if any part was not the same."""
  before = {run_of(line): line['results'] for line in study.read(values.output)}
  asked = [run for run in before if run.shared == recipe.shared]
  asked = [run for run in asked if values.cell in (None, run.arm)]
  asked = [run for run in asked if values.seed in (None, run.seed)]
  if not asked:
    raise UserError(f'{values.output} has no such piece: run it without --again first')
  path = findings.beside(values.output, 'again')

  def compare(run: Run) -> dict[str, bool]:
    found = recipe.execute(run, values.runs / 'again')
    return {part: x['log_sha256'] == before[run][part]['log_sha256'] for part, x in found.items()}

  if code := study.go(study.waiting(asked, path), compare, path):
    return code
  same = {run_of(line): line['results'] for line in study.read(path)}
  for run in asked:
    parts = ', '.join(f'{p} {"the same" if x else "differs"}' for p, x in same[run].items())
    print(f'{run.arm}, seed {run.seed}, again: {parts}')
  return int(not all(all(same[run].values()) for run in asked))


def run_of(line: Line) -> Run:
  """Returns the piece that a line is of."""
  return Run(*(line[name] for name in Run._fields))


def command(argv: Sequence[str]) -> int:
  """Runs what has no line yet, appends their lines, and prints the tables."""
  parser = commandline.Parser('benchmarks.ablation', __doc__.splitlines()[0])
  parser.add_argument('--init_from', type=commandline.path, required=True, help='a run of labels')
  parser.add_argument('--data', default='scenes/easy', help='scenes/easy, medium or hard')
  parser.add_argument('--steps', type=int, default=2200, help='of each pre-training')
  parser.add_argument('--variant', default='paper_small', help='of the files in configs/')
  parser.add_argument('--cell', choices=CELLS, help='by default all')
  parser.add_argument('--seed', type=int, help='by default 0, 1 and 2; others are for calibration')
  parser.add_argument('--resolve', action='store_true', help='write the smallest effects')
  parser.add_argument('--again', action='store_true', help='repeat what has a line, and compare')
  parser.add_argument('--runs', type=pathlib.Path, default='runs/ablation', help='for workdirs')
  parser.add_argument('--output', type=pathlib.Path, default=RESULTS, help='file of results')
  values = parser.parse_args(argv)
  if values.resolve and (values.again or values.cell or values.seed is not None):
    parser.error(f'--resolve is of {FULL} with all seeds: leave out --again, --cell and --seed')
  if values.steps < 1 or (values.seed or 0) < 0:
    parser.error('--steps is at least 1, --seed at least 0')
  recipe = Recipe(values.init_from, values.data, values.steps, values.variant)
  if values.again:
    return again(recipe, values)
  runs = missing(recipe, values)
  if code := study.go(runs, lambda run: recipe.execute(run, values.runs), values.output):
    return code
  if values.resolve:
    resolve(recipe, values.output)
  print('\n\n'.join(findings.tables(values.output)))
  return 0


if __name__ == '__main__':
  sys.exit(commandline.answer(command, sys.argv[1:]))
