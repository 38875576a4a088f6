"""Curves of runs as SVG, drawn the same each time, in the colours of the page around them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

Lines = Sequence[Mapping[str, Any]]  # of `metrics.jsonl`
Curve = tuple[str, list[int], list[float], str, str]  # label, steps, values, colour, marker

INK = '#010203'  # becomes the colour of the page's text
# Of middling lightness: they can be told from white and from black.
COLOURS = ('#3b82c4', '#d9742b', '#2f9e6e', '#b05cc6', '#b8901a', '#d64f76', '#7a7f88', '#12a3b4')
STYLE: dict[Any, Any] = {  # matplotlib's type lists all names
  'svg.fonttype': 'none',
  'text.parse_math': False,
  'font.size': 9,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'legend.frameon': False,
  'legend.fontsize': 8,
  **dict.fromkeys(('text.color', 'axes.labelcolor', 'axes.edgecolor', 'grid.color'), INK),
  **dict.fromkeys(('xtick.color', 'ytick.color'), INK),
}
SCORES = ('accuracy', 'recall', 'consistency')
BASELINE = '_text_only'


def svg(figure: Figure, description: str | None = None) -> str:
  """Draws a figure as an SVG file, the same each time, with a description in its metadata."""
  figure.tight_layout()
  written = io.StringIO()
  # Else ids differ from one call to the next.
  with mpl.rc_context({'svg.hashsalt': 'pixelbert'}):
    about = {'Date': None, 'Description': description}
    figure.savefig(written, format='svg', metadata=about)
  return written.getvalue()


def series(lines: Lines, split: str, metric: str) -> tuple[list[int], list[float]]:
  """Returns the steps at which a metric of a split was logged, and its values."""
  logged = [(x['step'], x[metric]) for x in lines if x['split'] == split and metric in x]
  return [step for step, _ in logged], [value for _, value in logged]


def of_run(lines: Lines, validation: str) -> list[str]:
  """Draws losses, scores (of training and of validation) and learning rates, each as an SVG."""
  drawn = []
  for title, names in _groups(lines, validation).items():
    curves = [
      curve
      for colour, name in zip(_colours(len(names)), names, strict=True)
      for curve in _both(lines, validation, name, name, colour)
    ]
    parts = {title: curves}
    if title == 'scores':  # Together they are too many to tell apart.
      trained = [curve for curve in curves if curve[0].endswith(', train')]
      others = [curve for curve in curves if curve not in trained]
      parts = {'scores in training': trained, f'scores on {validation}': others}
    drawn += [_panel(part, some) for part, some in parts.items() if some]
  return drawn


def of_runs(runs: Mapping[str, tuple[Lines, str]]) -> list[str]:
  """Draws runs over each other, each metric that several have as an SVG element.

  Args:
    runs: by name the lines and the name of the validation split.
  """
  found = [
    (title, name)
    for lines, validation in runs.values()
    for title, names in _groups(lines, validation).items()
    for name in names
  ]
  drawn = []
  for title, name in dict.fromkeys(found):
    if found.count((title, name)) < 2:
      continue
    curves = [
      curve
      for colour, (run, (lines, validation)) in zip(_colours(len(runs)), runs.items(), strict=True)
      for curve in _both(lines, validation, name, run, colour)
    ]
    drawn.append(_panel(name, curves))
  return drawn


def _groups(lines: Lines, validation: str) -> dict[str, list[str]]:
  """Sorts the metrics of training and validation into panels, by title."""
  own = [line for line in lines if line['split'] in ('train', validation)]
  names = [n for n in dict.fromkeys(n for line in own for n in line) if '/' not in n]
  losses = [n for n in names if n == 'loss' or n.endswith('_loss')]
  if len(losses) == 2:  # The sum is the only one.
    losses.remove('loss')
  scores = [n for n in names if any(word in n for word in SCORES) and not n.endswith(BASELINE)]
  rates = [n for n in names if n.startswith('learning_rate_')]
  groups = {'loss, nats': losses, 'scores': scores, 'learning rates': rates}
  return {title: found for title, found in groups.items() if found}


def _both(lines: Lines, validation: str, name: str, label: str, colour: str) -> list[Curve]:
  """Makes the curves of a metric in training and on validation; those without a value are none."""
  found = {split: series(lines, split, name) for split in ('train', validation)}
  return [
    (f'{label}, {split}', steps, values, colour, '' if split == 'train' else 'o')
    for split, (steps, values) in found.items()
    if steps
  ]


def _colours(number: int) -> list[str]:
  return [COLOURS[i % len(COLOURS)] for i in range(number)]


def _panel(title: str, curves: Sequence[Curve]) -> str:
  with mpl.rc_context(STYLE):
    figure = Figure(figsize=(5.2, 3.4 + 0.16 * len(curves)))
    figure.patch.set_alpha(0)
    axis = figure.add_subplot()
    axis.patch.set_alpha(0)
    for label, steps, values, colour, marker in curves:
      marker = marker or ('.' if len(steps) == 1 else '')  # A line of one point is none.
      style = {'marker': marker, 'markersize': 3.5} if marker else {'linewidth': 0.9}
      axis.plot(steps, values, label=label, color=colour, **style)
    axis.set(title=title, xlabel='step')
    axis.grid(alpha=0.15)
    values = [0.0, *(value for curve in curves for value in curve[2])]
    axis.set_ylim(min(values), 1.05 * max(values) or 1)
    names = [str(line.get_label()) for line in axis.lines]  # also those with '_' in front
    axis.legend(axis.lines, names, loc='upper center', bbox_to_anchor=(0.5, -0.16), ncols=2)
    drawn = svg(figure)
  return drawn[drawn.index('<svg') :].replace(INK, 'currentColor')
