"""Draws the effects that were found in the ablation; `python -m benchmarks.effects` writes an SVG.

A line for each finding: a dot for each seed, a bar for their mean, a diamond for the paper's
effect, and in grey what is too small to be resolved. The description in the drawing is the SHA-256
of the files that it was drawn from, so that an old drawing is noticed.
"""

import math
import pathlib
import statistics

from matplotlib import pyplot as plt

from benchmarks import findings
from benchmarks.drawing import DOCS, save
from benchmarks.drawing import digest as digest_of

DRAWING = DOCS / 'ablation.svg'


def digest(output: pathlib.Path) -> str:
  """Returns the SHA-256 of a file of results and of its smallest effects, in hexadecimal."""
  return digest_of(output, findings.beside(output, 'resolution'))


def draw(output: pathlib.Path = findings.RESULTS, drawing: pathlib.Path = DRAWING) -> None:
  """Draws the effects in a file of results."""
  found = findings.effects(output)
  figure, axis = plt.subplots(figsize=(8, 1.2 + 0.38 * len(found)))
  for place, effect in enumerate(found):
    if not math.isnan(effect.smallest):
      axis.barh(place, 2 * effect.smallest, 0.8, left=-effect.smallest, color='0.88')
    axis.plot(effect.differences, [place] * len(effect.differences), '.', color='C0')
    axis.plot(statistics.mean(effect.differences), place, '|', color='C0', markersize=14)
    axis.plot(effect.finding.paper, place, 'D', color='C1', markersize=5, fillstyle='none')
  names = [f'{effect.finding.what}\n{effect.word}' for effect in found]
  axis.set_yticks(range(len(found)), names, fontsize='small')
  axis.invert_yaxis()
  axis.axvline(0, color='0.5', linewidth=0.8)
  axis.set_xlabel('effect, of 1: each seed and mean; diamonds are the paper; grey is not resolved')
  save(figure, drawing, digest(output))


def main() -> None:
  """Draws the recorded results."""
  draw()
  print(DRAWING)


if __name__ == '__main__':
  main()
