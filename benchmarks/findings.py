"""The findings that `benchmarks.ablation` tests, and what counts as found.

A finding is an effect: by how much a metric of one cell exceeds that of another with the same seed.
"""

import math
import pathlib
import shlex
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from scipy import stats

from benchmarks import study
from benchmarks.study import Line

RESULTS = pathlib.Path(__file__).with_name('results') / 'ablation.jsonl'
SEEDS = range(3)  # of what is compared; others are of calibration and tuning
FULL, NONE = 'MLM+ITM', 'none'  # cells: as the paper pre-trains, and without pre-training
LEARNT = 0.80  # in matching, else nothing counts
CONFIDENCE = 0.95
# No effect below a point is resolved, however alike a few seeds happen to be.
LEAST = 0.01

# Of each part of a piece, what is compared and what says why; a pre-training without MLM or ITM
# lacks what it did not learn.
METRICS: Mapping[str, Mapping[str, str]] = {
  'pretrain': {'itm_accuracy': 'matching', 'mlm_visual_accuracy': 'visual words'},
  'vqa': {
    'vqa_accuracy': 'VQA',
    'vqa_accuracy/question_type/is there a': '`is there a`',
    'vqa_accuracy/question_type/what shape is': '`what shape is`',
  },
  'retrieval': {'text_recall_at_1': 'text R@1', 'image_recall_at_1': 'image R@1'},
  'nlvr2': {'nlvr_accuracy': 'NLVR2'},
}


class Finding(NamedTuple):
  """A finding of the paper, as the effect of what one cell has and another lacks.

  Attributes:
    what: the finding.
    more, less: the two cells.
    task, metric: by which they are compared, as in METRICS.
    paper: the paper's effect, of 1; NaN where it has none. Its MLM and ITM on VQA are tested both
      beside the other task and alone.
    stuck: the metric of what has not learnt; None but where the finding is that `less` does not.
  """

  what: str
  more: str
  less: str
  task: str
  metric: str
  paper: float
  stuck: float | None = None

  def value(self, results: Mapping[str, Any]) -> float:
    """Returns the metric of a piece."""
    return results[self.task][self.metric]


VQA, NLVR2 = ('vqa', 'vqa_accuracy'), ('nlvr2', 'nlvr_accuracy')
TEXT, IMAGE = (('retrieval', f'{side}_recall_at_1') for side in ('text', 'image'))
FINDINGS = (
  Finding('MLM helps VQA', FULL, 'ITM', *VQA, paper=0.076),
  Finding('MLM alone helps VQA', 'MLM', NONE, *VQA, paper=0.076),
  Finding('ITM helps VQA', FULL, 'MLM', *VQA, paper=0.016),
  Finding('ITM alone helps VQA', 'ITM', NONE, *VQA, paper=0.016),
  Finding('ITM helps to find texts', FULL, 'MLM', *TEXT, paper=0.13),
  Finding('ITM helps to find images', FULL, 'MLM', *IMAGE, paper=0.13),
  Finding('NLVR2 is not learnt without MLM', FULL, 'ITM', *NLVR2, paper=math.nan, stuck=0.5),
  Finding('pixel sampling helps VQA', FULL, 'all pixels', *VQA, paper=0.005),
  Finding('pixel sampling helps to find texts', FULL, 'all pixels', *TEXT, paper=0.02),
  Finding('pixel sampling helps to find images', FULL, 'all pixels', *IMAGE, paper=0.02),
  Finding('training the CNN helps VQA', FULL, 'fixed CNN', *VQA, paper=math.nan),
  Finding('training the CNN helps to find texts', FULL, 'fixed CNN', *TEXT, paper=math.nan),
  Finding('training the CNN helps to find images', FULL, 'fixed CNN', *IMAGE, paper=math.nan),
)


def beside(output: pathlib.Path, name: str) -> pathlib.Path:
  """Returns a further file of results, beside the lines of pieces."""
  return output.with_name(f'{output.stem}_{name}.jsonl')


def smallest(values: Sequence[float]) -> float:
  """Computes the smallest difference of two cells that is resolved, from one cell's seeds.

  Both cells are taken to spread alike, and to have as many seeds; the bound is Student's, two-sided
  at CONFIDENCE, for a deviation that is known from this one cell. It is at least LEAST.
  """
  n = len(values)
  quantile = stats.t.ppf((1 + CONFIDENCE) / 2, n - 1)
  return max(float(quantile * statistics.stdev(values) * math.sqrt(2 / n)), LEAST)


def resolution(pieces: Sequence[Mapping[str, Any]]) -> dict[str, float]:
  """Computes the smallest effect on each metric, from the results of MLM+ITM with every seed."""
  compared = {(finding.task, finding.metric) for finding in FINDINGS}
  return {metric: smallest([x[task][metric] for x in pieces]) for task, metric in sorted(compared)}


def resolved(output: pathlib.Path, shared: str) -> dict[str, float] | None:
  """Reads the smallest effects of a recipe; the first that were written count."""
  lines = study.read(beside(output, 'resolution'))
  return next((line['smallest'] for line in lines if line['shared'] == shared), None)


class Effect(NamedTuple):
  """A finding as it was found here.

  Attributes:
    finding: the finding.
    differences: of the two cells, by seed.
    smallest: that is resolved; NaN if unknown.
    word: the verdict.
  """

  finding: Finding
  differences: list[float]
  smallest: float
  word: str


def compared(lines: Sequence[Line]) -> dict[str, dict[int, Any]]:
  """Returns results by cell and seed, of the newest recipe, calibration and tuning left out."""
  pieces = [line for line in lines if line['seed'] in SEEDS]
  arms = [FULL, *(line['arm'] for line in pieces)]
  return study.newest(pieces, arms)


def effects(output: pathlib.Path = RESULTS) -> list[Effect]:
  """Tests the findings of which there are pieces, of the newest recipe in a file of results."""
  lines = study.read(output)
  found = compared(lines)
  recipes = [line['shared'] for line in lines if line['seed'] in SEEDS]
  bounds = (recipes and resolved(output, recipes[-1])) or {}
  doubt = flaw(found, lines)
  tested = []
  for finding in FINDINGS:
    pairs = study.paired(found.get(finding.more, {}), found.get(finding.less, {}))
    values = [(finding.value(a), finding.value(b)) for a, b in pairs]
    if values:
      bound = bounds.get(finding.metric, math.nan)
      word = doubt or verdict(finding, values, bound)
      tested.append(Effect(finding, [a - b for a, b in values], bound, word))
  return tested


def flaw(found: Mapping[str, Mapping[int, Any]], lines: Sequence[Line]) -> str:
  """Returns why nothing counts; '' if it does."""
  least = min((x['pretrain'].get('itm_accuracy', 0) for x in found[FULL].values()), default=0)
  if least < LEARNT:
    return f'does not count: {FULL} has {least:.3f} in matching'
  tried = {name: trials(lines, name) for name in (FULL, NONE)}
  if tried[NONE] < tried[FULL]:
    return f'does not count: {tried[NONE]} trials of {NONE}, {tried[FULL]} of {FULL}'
  return ''


def trials(lines: Sequence[Line], name: str) -> int:
  """Counts the pieces of a cell that calibrated or tuned the recipe."""
  return sum(line['arm'] == name and line['seed'] not in SEEDS for line in lines)


def verdict(finding: Finding, values: Sequence[tuple[float, float]], bound: float) -> str:
  """Returns the word for a finding, from its metric in both cells, by seed."""
  if len(values) < len(SEEDS):
    return f'{len(values)} of {len(SEEDS)} seeds'
  differences = [a - b for a, b in values]
  mean = statistics.mean(differences)
  one_sign = min(differences) > 0 or max(differences) < 0
  if not (one_sign and abs(mean) >= bound):  # which holds of no bound that is NaN
    return 'inconclusive'
  learnt = finding.stuck is not None and max(b for _, b in values) >= finding.stuck + bound
  return 'reproduced' if mean > 0 and not learnt else 'not reproduced'


def tables(output: pathlib.Path = RESULTS) -> list[str]:
  """Formats three tables, of the newest recipe in a file of results: scores, findings, calibration.

  The last has the pieces of all recipes, and is left out where there is none.
  """
  lines = study.read(output)
  found = [scores(compared(lines)), tested(effects(output)), tried(lines)]
  return ['\n'.join(table) for table in found if table]


COLUMNS = {title: (part, name) for part, x in METRICS.items() for name, title in x.items()}


def scores(found: Mapping[str, Mapping[int, Any]]) -> list[str]:
  """Formats the metrics of each cell over its seeds."""
  table = study.head(['cell', 'seeds', *COLUMNS, 'minutes of pre-training'])
  for name, seeds in found.items():
    if not seeds:
      continue
    minutes = [x['pretrain']['seconds'] / 60 for x in seeds.values() if 'pretrain' in x]
    cells = [
      study.spread([x[part][metric] for x in seeds.values() if metric in x.get(part, {})])
      for part, metric in COLUMNS.values()
    ]
    table.append(study.row([name, str(len(seeds)), *cells, study.spread(minutes, '.1f')]))
  return table


def tested(found: Sequence[Effect]) -> list[str]:
  """Formats what was found of each finding."""
  table = study.head(
    ['finding', 'cells', 'metric', 'paper', 'here', 'smallest resolved', 'verdict']
  )
  titles = {column: title for title, column in COLUMNS.items()}
  for finding, differences, bound, word in found:
    cells = f'{finding.more} - {finding.less}', titles[finding.task, finding.metric]
    paper = '' if math.isnan(finding.paper) else f'{finding.paper:+.3f}'
    least = '' if math.isnan(bound) else f'{bound:.3f}'
    here = study.spread(differences, '+.3f')
    table.append(study.row([finding.what, *cells, paper, here, least, word]))
  return table


def tried(lines: Sequence[Line]) -> list[str]:
  """Formats the pieces of calibration and tuning; returns no table where there is none."""
  table = study.head(['calibration and tuning', 'scenes', 'steps', 'seed', *COLUMNS])
  before = len(table)
  for line in lines:
    if line['seed'] not in SEEDS:
      words = dict(word.split('=', 1) for word in shlex.split(line['shared']))
      about = words['--config.data.name'], words['--config.steps'], str(line['seed'])
      found = [line['results'].get(part, {}) for part, _ in COLUMNS.values()]
      names = [metric for _, metric in COLUMNS.values()]
      cells = [study.spread([x[n]] if n in x else []) for x, n in zip(found, names, strict=True)]
      table.append(study.row([line['arm'], *about, *cells]))
  return table if len(table) > before else []
