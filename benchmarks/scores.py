"""Formats the tables of RESULTS.md, and of README.md what it has of them, from recorded runs.

    python -m benchmarks.scores    # prints them

A run is a file of results/runs: its metrics.jsonl, whose last line is the report on the test split.
That of seed 0 has the run's name alone, those of other seeds end in _s1, _s2 and so on. A figure of
several seeds is their mean, with the least and the largest of them.
"""

import json
import pathlib
import statistics
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from benchmarks import findings, nlvr, study
from benchmarks.study import Line

RUNS = pathlib.Path(__file__).with_name('results') / 'runs'
BEFORE = 'before.jsonl'  # reports of the default runs as they were at the commit that it names
RECALLS = [f'{side}_recall_at_{k}' for side in ('text', 'image') for k in (1, 5, 10)]
WORDS = ('colour', 'shape', 'size', 'count', 'place')
# Of retrieval without looking: texts by scores that see no image, images by ones that read no text.
BLIND = [f'{name}/{"image" if name.startswith("text") else "text"}_blind' for name in RECALLS]


class Score(NamedTuple):
  """A score of a default run.

  Attributes:
    title: the task and what of it.
    run: the name of its file.
    metric, blind, oracle: names in a report: the score, what is had without looking, and what an
      oracle has. Of several names, the mean counts.
  """

  title: str
  run: str
  metric: Sequence[str]
  blind: Sequence[str]
  oracle: Sequence[str] = ()


ITM, VISUAL = 'itm_accuracy', 'mlm_visual_accuracy'
RAREST = [f'{name}/oracle_rarest' for name in RECALLS]
SCORES = (
  Score('pre-training, matching', 'pretrain', [ITM], [f'{ITM}_swapped']),
  Score('pre-training, visual words', 'pretrain', [VISUAL], [f'{VISUAL}_text_only']),
  Score('VQA, accuracy', 'vqa', ['vqa_accuracy'], ['vqa_accuracy/guess'], ['vqa_accuracy/ceiling']),
  Score('NLVR2, accuracy', 'nlvr2', ['nlvr_accuracy'], ['nlvr_accuracy/majority']),
  Score('NLVR, accuracy', 'nlvr', ['nlvr_accuracy'], ['nlvr_accuracy/majority']),
  Score('retrieval, mean of six recalls', 'retrieval', ['recall_mean'], BLIND, RAREST),
)

# The paper's table: benchmark, metric, with ResNet-50, with ResNeXt-152, and the command for the
# former. `C` is what `convert` makes, then what pre-training leaves.
PAPER = (
  ('VQA v2', 'test-dev / test-std', '71.35 / 71.42', '74.45 / 74.55', 'vqa.py:r50_trainval'),
  ('NLVR2', 'dev / test-P', '71.7 / 72.4', '76.5 / 77.2', 'nlvr2.py:r50'),
  ('Flickr30K', 'text R@1, 5, 10', '75.7 94.7 97.1', '87.0 98.9 99.5', 'retrieval.py:r50_f30k'),
  ('Flickr30K', 'image R@1, 5, 10', '59.8 85.5 91.6', '71.5 92.1 95.8', 'retrieval.py:r50_f30k'),
  ('COCO, 5,000', 'text R@1, 5, 10', '53.4 80.4 88.5', '63.6 87.5 93.6', 'retrieval.py:r50_coco'),
  ('COCO, 5,000', 'image R@1, 5, 10', '41.1 69.7 80.5', '50.1 77.6 86.2', 'retrieval.py:r50_coco'),
)


def files(run: str) -> list[pathlib.Path]:
  """Returns the files of a run, seed by seed."""
  first = RUNS / f'{run}.jsonl'
  return [first] * first.exists() + sorted(RUNS.glob(f'{run}_s[0-9].jsonl'))


def reports(run: str) -> list[Line]:
  """Returns the reports of a run, seed by seed."""
  return [study.read(path)[-1] for path in files(run)]


def figure(lines: Iterable[Line], names: Sequence[str]) -> str:
  """Formats the mean of some metrics, over seeds; '' if there are none."""
  found = [[line[name] for name in names if name in line] for line in lines]
  return study.spread([statistics.mean(values) for values in found if values])


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Formats a table in Markdown."""
  return '\n'.join([*study.head(heads), *map(study.row, rows)])


def paper() -> str:
  """Formats the paper's scores beside the command for each, which was not run."""
  rows = [
    [*row, f'not reproduced, command: `--config=configs/{command} --config.init_from=C`']
    for *row, command in PAPER
  ]
  return table(['benchmark', 'metric', 'paper, R50', 'paper, X152', 'here, R50'], rows)


def default() -> str:
  """Formats the scores of the default runs, beside what they are to be compared with."""
  before = {line['run']: line for line in study.read(RUNS / BEFORE)}
  return table(
    ['score on test', 'seeds', 'here', 'without looking', 'oracle', 'from scratch', 'before'],
    [
      [
        score.title,
        str(len(files(score.run))),
        figure(reports(score.run), score.metric),
        figure(reports(score.run)[:1], score.blind),
        figure(reports(score.run)[:1], score.oracle),
        figure(reports(f'{score.run}_scratch'), score.metric),
        figure([before[score.run]], score.metric),
      ]
      for score in SCORES
    ],
  )


def first_screen() -> list[str]:
  """Formats the figures in README's table, row by row: those of seed 0, and without looking."""
  rows = []
  for run in ('pretrain', 'vqa', 'nlvr2', 'nlvr'):
    own, first = [x for x in SCORES if x.run == run], reports(run)[:1]
    named = ', '.join(f'{x.title.split(", ")[1]} {figure(first, x.metric)}' for x in own)
    rows.append(f'| {named} | {", ".join(figure(first, x.blind) for x in own)} |')
  for report in (reports('retrieval')[0], untuned()):
    texts, images, *blind = (figure([report], [x]) for x in (RECALLS + BLIND)[2::3])
    rows.append(f'| R@10 of texts {texts}, of images {images} | {", ".join(blind)} |')
  return rows


def easy_vqa() -> str:
  """Formats the accuracies on easy-VQA, seed by seed, as README has them."""
  return ', '.join(f'{line["vqa_accuracy"]:.4f}' for line in reports('easy_vqa'))


def pretraining() -> str:
  """Formats what pre-training learns, by the kind of word."""
  lines = reports('pretrain')
  rows = {
    'image-text matching': 'itm_accuracy',
    'and nearly true texts': 'itm_hard_accuracy',
    'hidden words': 'mlm_accuracy',
    'visual words, determined': 'mlm_visual_accuracy',
  } | {word: f'mlm_{word}_accuracy' for word in WORDS}
  return table(
    ['accuracy on test', 'own image', 'swapped image', 'text alone'],
    [
      [
        title,
        figure(lines, [name]),
        figure(lines[:1], [f'{name}_swapped']),
        figure(lines[:1], [f'{name}_text_only']),
      ]
      for title, name in rows.items()
    ],
  )


def paper_small() -> str:
  """Formats what the paper's rules come to on a small model."""
  runs = [reports(f'pretrain_paper_small{end}') for end in ('', '_scratch')]
  rows = {
    'image-text matching': 'itm_accuracy',
    'and nearly true texts': 'itm_hard_accuracy',
    'visual words, determined': 'mlm_visual_accuracy',
  } | {word: f'mlm_{word}_accuracy' for word in WORDS}
  heads = ['accuracy on test', 'from the CNN that knows labels', 'from scratch']
  return table(heads, [[title, *(figure(x, [n]) for x in runs)] for title, n in rows.items()])


def questions() -> str:
  """Formats the accuracy of VQA by the question's first words."""
  lines, start = reports('vqa'), 'vqa_accuracy/question_type/'
  kinds = [name for name in lines[0] if name.startswith(start) and name.count('/') == 2]
  return table(
    ['question', 'accuracy on test', 'without looking'],
    [
      [f'`{kind.removeprefix(start)}`', figure(lines, [kind]), figure(lines[:1], [f'{kind}/guess'])]
      for kind in kinds
    ],
  )


def untuned() -> Line:
  """Returns the report of retrieval with pre-training's matching as it is."""
  return json.loads((RUNS / 'retrieval_untuned.json').read_text())


def recalls() -> str:
  """Formats the recalls of retrieval, beside what there is to reach."""
  lines = reports('retrieval')

  def rows() -> Iterator[tuple[str, list[Line], Sequence[str]]]:
    yield 'fine-tuned', lines, RECALLS
    yield "pre-training's matching, as it is", [untuned()], RECALLS
    yield 'from scratch', reports('retrieval_scratch'), RECALLS
    yield 'fine-tuned, blind to the image / the text', lines[:1], BLIND
    for title, end in {
      'chance': 'chance',
      'oracle: true pairs first': 'oracle',
      'oracle: the rarest first': 'oracle_rarest',
    }.items():
      yield title, lines[:1], [f'{name}/{end}' for name in RECALLS]

  return table(
    ['recall on test', 'text R@1', 'R@5', 'R@10', 'image R@1', 'R@5', 'R@10'],
    [[title, *(figure(x, [name]) for name in names)] for title, x, names in rows()],
  )


def tables() -> list[str]:
  """Formats the tables of RESULTS.md."""
  runs = [paper(), default(), pretraining(), paper_small(), questions(), recalls()]
  return [*runs, *findings.tables(), nlvr.table()]


if __name__ == '__main__':
  print('\n\n'.join([*tables(), *first_screen(), easy_vqa()]))
