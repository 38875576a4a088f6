"""Draws the curves of the recorded runs; `python -m benchmarks.curves` writes docs/curves_*.svg.

What is drawn are the files in benchmarks/results/runs, each a copy of a run's `metrics.jsonl`. The
description in a drawing is the SHA-256 of its file, so that an old drawing is noticed
(tests/docs/test_benchmarks.py).
"""

import json
import pathlib
from collections.abc import Mapping

from matplotlib import pyplot as plt

from benchmarks.drawing import DOCS, save
from benchmarks.drawing import digest as digest_of
from pixelbert_jax.report.curves import series

RUNS = pathlib.Path(__file__).with_name('results') / 'runs'
Panels = Mapping[str, tuple[str, Mapping[str, str]]]

# Panels by title: each a split with the metrics that it shows.
PRETRAINING: Panels = {
  'loss in training, nats': ('train', {'hidden words': 'mlm_loss', 'matching': 'itm_loss'}),
  'accuracy on val': (
    'val',
    {
      'matching': 'itm_accuracy',
      'colour': 'mlm_colour_accuracy',
      'shape': 'mlm_shape_accuracy',
      'size': 'mlm_size_accuracy',
      'count': 'mlm_count_accuracy',
      'place': 'mlm_place_accuracy',
    },
  ),
}
DRAWN: Mapping[str, Panels] = {
  'pretrain': PRETRAINING,
  'pretrain_paper_small': PRETRAINING,
  'pretrain_paper_small_scratch': PRETRAINING,
}


def source(run: str) -> pathlib.Path:
  """Returns the file of a run."""
  return RUNS / f'{run}.jsonl'


def drawing(run: str) -> pathlib.Path:
  """Returns the drawing of a run."""
  return DOCS / f'curves_{run}.svg'


def digest(run: str) -> str:
  """Returns the SHA-256 of the file of a run, in hexadecimal."""
  return digest_of(source(run))


def draw(run: str) -> None:
  """Draws a run, a panel beside the other."""
  lines = [json.loads(line) for line in source(run).read_text().splitlines()]
  panels = DRAWN[run]
  figure, axes = plt.subplots(1, len(panels), figsize=(4.8 * len(panels), 3.6))
  for axis, (title, (split, metrics)) in zip(axes, panels.items(), strict=True):
    for name, metric in metrics.items():
      axis.plot(*series(lines, split, metric), label=name, marker='.' if split != 'train' else '')
    axis.set(title=title, xlabel='step')
    axis.set_ylim(bottom=0)
    axis.grid(alpha=0.3)
    axis.legend(fontsize='small')
  save(figure, drawing(run), digest(run))


def main() -> None:
  """Draws all runs."""
  for run in DRAWN:
    draw(run)
    print(drawing(run))


if __name__ == '__main__':
  main()
