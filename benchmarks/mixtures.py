"""Compares three open choices of pre-training on a mixture of corpora of other style and weight.

    python -m benchmarks.mixtures --init_from=runs/labels-s0 [--seeds=3] [--steps=1000]

Nine in ten pairs are of scenes/easy, one in ten of scenes/hard, whose images are larger and
cluttered and show more things, and whose texts have more words. The arms, each with every seed:

    default           untrue texts of their own corpus, MLM on true pairs, BatchNorm frozen
    across            `itm.negatives=across`: untrue texts of either corpus
    all pairs         `mlm.pairs=all`: MLM on untrue pairs too
    batch statistics  `cnn.batch_norm=batch`: BatchNorm by the batch

Each is a run in --runs that starts from the same CNN. It is scored on the test split of both
corpora, where untrue texts are of the same corpus: of scenes/easy the run's report counts, of
scenes/hard there is an evaluation.

`data.shares` makes scenes/hard scarce: it has as many images as scenes/easy, as Visual Genome has
as many as COCO, and an epoch shows another ninth of its pairs. No selection makes it smaller, since
a selection takes the same splits of both. 1,000 steps are 1.8 epochs, in which a corpus of a ninth
of the size would differ by repeats alone.

A line for each arm and seed is appended to --output, by default mixtures.jsonl beside the other
results. What has a line of the same flags there is not run again: delete the line to repeat it (the
checkpoint of --init_from counts by its path). A run that was broken off goes on. The tables are of
the flags that the newest line shares with others.
"""

import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

from benchmarks import study
from benchmarks.study import Fields, Run, flags
from data.scenes.captions import CAPTIONS_PER_SCENE
from data.scenes.record import SPLITS
from pixelbert_jax import commandline, files
from pixelbert_jax.evaluate import metrics_file

RESULTS = pathlib.Path(__file__).with_name('results') / 'mixtures.jsonl'
COMMON, SCARCE = 'scenes/easy', 'scenes/hard'
SHARE = 0.1  # of the pairs of an epoch that are of the scarce corpus
# Of an epoch, which has all pairs of the common corpus.
PAIRS = CAPTIONS_PER_SCENE * SPLITS['train'] / (1 - SHARE)

# What all arms share, but for the end of the schedule: to be tuned for --steps.
RECIPE: Fields = {
  'texts_per_image': 8,
  'batch_size': 128,
  'itm.hard': 0,  # foils would be of the image's own corpus in every arm
  'itm_weight': 1,
  'optimizer.cnn_rate': 4e-3,
  'optimizer.cnn_warmup_steps': 50,
  'optimizer.transformer_rate': 2e-3,
  'optimizer.transformer_warmup_steps': 300,
  'optimizer.decay_factor': 0.1,
}
DECAY = 0.8  # of the steps, after which rates fall

DEFAULT = 'default'
CHOICES: Fields = {'itm.negatives': 'within', 'mlm.pairs': 'matched', 'cnn.batch_norm': 'frozen'}
ARMS: Mapping[str, Fields] = {
  DEFAULT: {},
  'across': {'itm.negatives': 'across'},
  'all pairs': {'mlm.pairs': 'all'},
  'batch statistics': {'cnn.batch_norm': 'batch'},
}
METRICS = {
  'itm_accuracy': 'matching',
  'itm_hard_accuracy': 'nearly true texts',
  'mlm_visual_accuracy': 'visual words',
}


def execute(run: Run, folder: pathlib.Path) -> dict[str, dict[str, float]]:
  """Trains and evaluates a run; returns METRICS by corpus.

  Raises:
    subprocess.CalledProcessError: a command failed, and has said why.
  """
  workdir = run.folder(folder)
  beside = workdir.with_name(f'{workdir.name}-scarce')
  study.train(*run.words, f'--workdir={workdir}')
  # Of a flag that is given twice, the last value counts.
  scarce = [*run.words, *flags({'data.name': SCARCE, 'data.shares': '()'}), '--mode=evaluate']
  study.train(*scarce, f'--checkpoint={workdir}', f'--workdir={beside}')
  *_, report = study.logged(workdir)
  found = files.read_json(metrics_file(beside / 'predictions/test.json'))
  return {
    corpus: {name: round(metrics[name], 4) for name in METRICS}
    for corpus, metrics in {COMMON: report, SCARCE: found}.items()
  }


def runs(config: str, init_from: str, steps: int, seeds: int) -> Iterator[Run]:
  """Yields the runs of all arms, seed by seed."""
  decay = DECAY * steps * RECIPE['batch_size'] / PAIRS
  shared = RECIPE | {
    'init_from': init_from,
    'steps': steps,
    'eval_every': steps + 1,  # Only the report counts.
    'optimizer.decay_epochs': f'({decay:.3g},)',
    'data.name': f'{COMMON}+{SCARCE}',
    'data.shares': f'({1 - SHARE:g},{SHARE:g})',
  }
  words = shlex.join([f'--config={config}', *flags(shared)])
  for seed in range(seeds):
    for arm, fields in ARMS.items():
      yield Run(arm, seed, words, shlex.join(flags({'seed': seed} | CHOICES | fields)))


def page(path: pathlib.Path = RESULTS) -> str:
  """Formats the runs of the newest recipe in a file of results, as BENCHMARKS.md has them.

  The first table has the scores of each arm over its seeds; the second by how much they exceed
  those of the default arm with the same seed.
  """
  found = study.newest(study.read(path), ARMS)
  default = found[DEFAULT]
  scores, differences = (
    [*study.head(['arm', 'test split of', *METRICS.values()])] for _ in range(2)
  )
  for arm, seeds in found.items():
    pairs = study.paired(seeds, default)
    for corpus in (COMMON, SCARCE):
      columns = {name: [x[corpus][name] for x in seeds.values()] for name in METRICS}
      if seeds:
        scores.append(study.row([arm, corpus, *map(study.spread, columns.values())]))
      if pairs and arm != DEFAULT:
        more = [[a[corpus][name] - b[corpus][name] for a, b in pairs] for name in METRICS]
        differences.append(study.row([arm, corpus, *(study.spread(x, '+.3f') for x in more)]))
  return '\n'.join([*scores, '', *differences])


def command(argv: Sequence[str]) -> int:
  """Runs what has no line yet, appends their lines, and prints the tables."""
  parser = commandline.Parser('benchmarks.mixtures', __doc__.splitlines()[0])
  parser.add_argument('--init_from', type=commandline.path, required=True, help='or: scratch')
  parser.add_argument('--config', default='configs/pretrain.py', help='FILE[:VARIANT]')
  parser.add_argument('--seeds', type=int, default=3, help='0, 1, ... of each arm')
  parser.add_argument('--steps', type=int, default=1000, help='of each run')
  parser.add_argument('--runs', type=pathlib.Path, default='runs/mixtures', help='for workdirs')
  parser.add_argument('--output', type=pathlib.Path, default=RESULTS, help='file of results')
  values = parser.parse_args(argv)
  if min(values.seeds, values.steps) < 1:
    parser.error('--seeds and --steps are at least 1')
  every = runs(values.config, values.init_from, values.steps, values.seeds)
  left = study.waiting(every, values.output)
  if code := study.go(left, lambda run: execute(run, values.runs), values.output):
    return code
  print(page(values.output))
  return 0


if __name__ == '__main__':
  sys.exit(commandline.answer(command, sys.argv[1:]))
