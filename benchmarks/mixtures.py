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

A line for each arm and seed, with the seconds that it took, is appended to --output, by default
mixtures.jsonl beside the other results. What has a line of the same flags there is not run again:
delete the line to repeat it (the checkpoint of --init_from counts by its path). A run that was
broken off goes on. The tables are of the flags that the newest line shares with others.
"""

import json
import pathlib
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax

from benchmarks import record
from data.scenes.captions import CAPTIONS_PER_SCENE
from data.scenes.record import SPLITS
from pixelbert_jax import commandline, files, jsons
from pixelbert_jax.evaluate import metrics_file

RESULTS = pathlib.Path(__file__).with_name('results') / 'mixtures.jsonl'
Fields = dict[str, Any]
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


class Run(NamedTuple):
  """An arm with a seed.

  Attributes:
    arm: its name in ARMS.
    seed: of weights, order and draws.
    shared: flags of `pixelbert_jax.main` that all arms have.
    own: flags in which it differs from other arms and seeds.
  """

  arm: str
  seed: int
  shared: str
  own: str

  def folder(self, runs: pathlib.Path) -> pathlib.Path:
    """Returns the workdir, which no run with other flags has."""
    digest = jsons.digest([self.shared, self.own])[:8]
    return runs / f'{self.arm.replace(" ", "_")}-s{self.seed}-{digest}'

  def __call__(self, runs: pathlib.Path) -> dict[str, dict[str, float]]:
    """Trains and evaluates; returns METRICS by corpus.

    Raises:
      subprocess.CalledProcessError: a command failed, and has said why.
    """
    workdir = self.folder(runs)
    beside = workdir.with_name(f'{workdir.name}-scarce')
    train = [*shlex.split(self.shared), *shlex.split(self.own)]
    # Of a field that is given twice, the last value counts.
    scarce = [*train, *flags({'data.name': SCARCE, 'data.shares': '()'}), '--mode=evaluate']
    scarce += [f'--checkpoint={workdir}', f'--workdir={beside}']
    for words in ([*train, f'--workdir={workdir}'], scarce):
      subprocess.run([sys.executable, '-m', 'pixelbert_jax.main', *words], check=True)
    *_, report = map(json.loads, (workdir / 'metrics.jsonl').read_text().splitlines())
    found = files.read_json(metrics_file(beside / 'predictions/test.json'))
    return {
      corpus: {name: round(metrics[name], 4) for name in METRICS}
      for corpus, metrics in {COMMON: report, SCARCE: found}.items()
    }


def flags(fields: Fields) -> list[str]:
  """Formats fields of a configuration as flags."""
  return [f'--config.{name}={value}' for name, value in fields.items()]


def study(config: str, init_from: str, steps: int, seeds: int) -> Iterator[Run]:
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


def read(path: pathlib.Path) -> list[dict[str, Any]]:
  """Reads the lines of a file of results, of which there may be none."""
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def waiting(runs: Iterator[Run], path: pathlib.Path) -> list[Run]:
  """Returns the runs that a file of results has no line of."""
  done = {(line['shared'], line['own']) for line in read(path)}
  return [run for run in runs if (run.shared, run.own) not in done]


def spread(values: Sequence[float], form: str = '.3f') -> str:
  """Formats the mean of values with the least and the largest of them."""
  mean, least, most = (f'{x:{form}}' for x in (statistics.mean(values), min(values), max(values)))
  return f'{mean} ({least} to {most})' if len(values) > 1 else mean


def page(path: pathlib.Path = RESULTS) -> str:
  """Formats the runs of the newest recipe in a file of results, as BENCHMARKS.md has them.

  The first table has the scores of each arm over its seeds; the second by how much they exceed
  those of the default arm with the same seed.
  """
  lines = read(path)
  found: dict[str, dict[int, dict]] = {arm: {} for arm in ARMS}
  for line in lines:
    if line['shared'] == lines[-1]['shared']:
      found[line['arm']][line['seed']] = line['results']
  default = found[DEFAULT]
  head = [_row('arm', 'test split of', *METRICS.values()), '|---' * 5 + '|']
  scores, differences = head.copy(), head.copy()
  for arm, seeds in found.items():
    paired = [(results, default[seed]) for seed, results in seeds.items() if seed in default]
    for corpus in (COMMON, SCARCE):
      columns = {name: [x[corpus][name] for x in seeds.values()] for name in METRICS}
      if seeds:
        scores.append(_row(arm, corpus, *map(spread, columns.values())))
      if paired and arm != DEFAULT:
        more = [[a[corpus][name] - b[corpus][name] for a, b in paired] for name in METRICS]
        differences.append(_row(arm, corpus, *(spread(x, '+.3f') for x in more)))
  return '\n'.join([*scores, '', *differences])


def _row(*cells: str) -> str:
  return f'| {" | ".join(cells)} |'


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
  runs = study(values.config, values.init_from, values.steps, values.seeds)
  for run in waiting(runs, values.output):
    print(f'{run.arm}, seed {run.seed}', flush=True)
    began = time.monotonic()
    try:
      results = run(values.runs)
    except subprocess.CalledProcessError as error:
      print(f'{run.arm}, seed {run.seed}, stopped as said above; run again to go on')
      return error.returncode
    seconds = round(time.monotonic() - began)
    about = {'jax': jax.__version__, **run._asdict(), 'seconds': seconds}
    record.append(values.output, **about, results=results)
  print(page(values.output))
  return 0


if __name__ == '__main__':
  sys.exit(commandline.answer(command, sys.argv[1:]))
