"""Trains on NLVR's own files at hand, with what might help, beside baselines that see half of it.

    python -m data.build boxes
    python -m data.build nlvr --splits=dev,test --manual_dir=M
    python -m benchmarks.nlvr [--arm=NAME] [--seed=N]

M is the folder with the corpus (DATA.md). The arms, each with every seed:

    recipe               `configs/nlvr.py:nlvr` for four epochs, from scratch
    augmented            boxes mirrored, colours exchanged in image and words (`augment`)
    scenes               `configs/pretrain.py` with the words of NLVR in its vocabulary
    boxes                `configs/pretrain.py:boxes` from `scenes`: generated pictures and
                         sentences like NLVR's
    started              the recipe, from `boxes`
    started, augmented   both
    text alone           the recipe with every image blank, in evaluation too (`blank=image`)
    image alone          the same with every text blank

Pre-training is scored by matching on its own test split; the others at the step that is best on the
directory that is held out: there, and on `dev`, with the interval over sentences.

A line for each arm and seed is appended to --output, by default nlvr.jsonl beside the other
results. What has a line of the same flags is not run again: delete the line to repeat it. A run
that was broken off goes on. Arms that start from others need the runs of these in --runs.
"""

import pathlib
import shlex
import sys
from collections.abc import Iterator, Mapping, Sequence

from benchmarks import study
from benchmarks.study import Fields, Line, Run, flags
from pixelbert_jax import commandline

RESULTS = pathlib.Path(__file__).with_name('results') / 'nlvr.jsonl'
SHARED = shlex.join(
  ['--config=configs/nlvr.py:nlvr', *flags({'epochs': 4.0, 'optimizer.decay_epochs': '(3.0,)'})]
)
SEEDS = (0, 1, 2)
AUGMENT: Fields = {'augment': 1.0}
# In what arms differ. Of a flag that is given twice, the last value counts.
ARMS: Mapping[str, Fields] = {
  'recipe': {},
  'augmented': AUGMENT,
  'scenes': {
    'text.vocabulary': 'data/boxes/vocab.txt',
    'epochs': 7.0,
    'optimizer.decay_epochs': '(4.2,6.0)',
  },
  'boxes': {'epochs': 12.0, 'optimizer.decay_epochs': '(7.2,10.2)'},
  'started': {},
  'started, augmented': AUGMENT,
  'text alone': {'blank': 'image'},
  'image alone': {'blank': 'text'},
}
# Those that are pre-training, and of the others those that start from another one.
PRETRAINING = {'scenes': 'configs/pretrain.py', 'boxes': 'configs/pretrain.py:boxes'}
SOURCES = {'boxes': 'scenes', 'started': 'boxes', 'started, augmented': 'boxes'}
COLUMNS = (
  'arm',
  'seeds',
  'held-out directory',
  'dev',
  '95% over sentences',
  'consistency',
  'minutes',
)


def runs(arms: Sequence[str], seeds: Sequence[int], folder: pathlib.Path) -> Iterator[Run]:
  """Yields the runs of arms, seed by seed; `folder` has the workdirs."""
  for seed in seeds:
    made: dict[str, Run] = {}
    for arm, fields in ARMS.items():
      config = [f'--config={PRETRAINING[arm]}'] if arm in PRETRAINING else []
      own = {'seed': seed} | fields
      if arm in SOURCES:
        own |= {'init_from': str(made[SOURCES[arm]].folder(folder))}
      made[arm] = Run(arm, seed, SHARED, shlex.join([*config, *flags(own)]))
    yield from (made[arm] for arm in arms)


def execute(run: Run, folder: pathlib.Path) -> dict[str, float]:
  """Trains a run; returns its scores, and the seconds that it trained.

  Raises:
    subprocess.CalledProcessError: it failed, and has said why.
  """
  workdir = run.folder(folder)
  study.train(*run.words, f'--workdir={workdir}')
  lines = study.logged(workdir)
  return scores(run.arm, lines[-1]) | {'seconds': study.seconds(workdir, lines)}


def scores(arm: str, report: Line) -> dict[str, float]:
  """Returns the scores of a run of an arm, rounded, given the last line of its log."""
  if arm in PRETRAINING:
    found = {'accuracy': report['itm_accuracy'], 'words': report['mlm_accuracy']}
  else:
    names = ('accuracy', 'accuracy/low', 'accuracy/high', 'accuracy/majority', 'consistency')
    found = {name: report[f'nlvr_{name}'] for name in names}
    found |= {'held_out': report['validation_nlvr_accuracy'], 'step': report['chosen_step']}
  return {name: round(value, 4) for name, value in found.items()}


def table(path: pathlib.Path = RESULTS) -> str:
  """Formats a file of results, as RESULTS.md has it."""
  lines = study.read(path)
  rows, majority = study.head(COLUMNS), []
  for arm, seeds in study.newest(lines, ARMS).items():
    if not seeds:
      continue
    column = {name: [x[name] for x in seeds.values()] for name in next(iter(seeds.values()))}
    accuracy = study.spread(column['accuracy'])
    if arm in PRETRAINING:
      cells = ['', f'matching {accuracy}', '', '']
    else:
      ends = min(column['accuracy/low']), max(column['accuracy/high'])
      consistency = study.spread(column['consistency'])
      cells = [
        study.spread(column['held_out']),
        accuracy,
        '{:.3f} to {:.3f}'.format(*ends),
        consistency,
      ]
      majority = [f'{column["accuracy/majority"][0]:.3f}']
    minutes = study.spread([x / 60 for x in column['seconds']], '.0f')
    rows.append(study.row([arm, str(len(seeds)), *cells, minutes]))
  rows += [study.row(['commoner label', '', '', share, '', '', '']) for share in majority]
  return '\n'.join(rows)


def command(argv: Sequence[str]) -> int:
  """Runs what has no line yet, appends their lines, and prints the table."""
  parser = commandline.Parser('benchmarks.nlvr', __doc__.splitlines()[0])
  parser.add_argument('--arm', choices=list(ARMS), help='by default all')
  parser.add_argument('--seed', type=int, help=f'by default {SEEDS}')
  parser.add_argument('--runs', type=pathlib.Path, default='runs/nlvr', help='for workdirs')
  parser.add_argument('--output', type=pathlib.Path, default=RESULTS, help='file of results')
  values = parser.parse_args(argv)
  arms = list(ARMS) if values.arm is None else [values.arm]
  seeds = SEEDS if values.seed is None else [values.seed]
  left = study.waiting(runs(arms, seeds, values.runs), values.output)
  if code := study.go(left, lambda run: execute(run, values.runs), values.output):
    return code
  print(table(values.output))
  return 0


if __name__ == '__main__':
  sys.exit(commandline.answer(command, sys.argv[1:]))
