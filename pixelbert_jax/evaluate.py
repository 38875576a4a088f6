"""Evaluation on held-out pairs, with their own images and with every image swapped."""

import dataclasses
import math

import jax
import numpy as np
from jax.sharding import Mesh

from pixelbert_jax.input import pipeline
from pixelbert_jax.input.pipeline import PairBatches
from pixelbert_jax.input.visual import KINDS
from pixelbert_jax.metrics import Metrics, table
from pixelbert_jax.models.heads import PretrainingModel
from pixelbert_jax.sharding import global_batch
from pixelbert_jax.tasks import pretraining


class Evaluator:
  """Runs a model over a split; compiled once for each shape of batch."""

  def __init__(self, model: PretrainingModel, mesh: Mesh, threads: int, most: int = 0):
    """Of a split with more than `most` batches (0: any), that many are taken, evenly spread."""
    self._mesh, self._threads, self._most = mesh, threads, most

    @jax.jit
    def step(variables, batch):
      outputs = pretraining.forward(model, variables, batch, train=False)
      return pretraining.losses(outputs, batch) | pretraining.accuracies(outputs, batch)

    self._step = step

  def __call__(self, variables: dict, batches: PairBatches) -> Metrics:
    """Means over all pairs of a split; what never occurs is not a number.

    Every text is seen twice: whole for matching, with words hidden for the rest.
    """
    whole = self._run(variables, dataclasses.replace(batches, whole_share=1.0))
    hidden = self._run(variables, dataclasses.replace(batches, whole_share=0.0))
    return finish({k: (whole if k.startswith('itm') else hidden)[k] for k in hidden})

  def _run(self, variables: dict, batches: PairBatches) -> pretraining.Sums:
    total = None
    count = min(self._most or len(batches), len(batches))
    numbers = np.linspace(0, len(batches) - 1, count).round().astype(int)
    for batch in pipeline.read(batches, numbers, self._threads):
      sums = self._step(variables, global_batch(self._mesh, batch))
      total = sums if total is None else jax.tree.map(lambda a, b: a + b, total, sums)
    return jax.device_get(total)

  def with_swapped(self, variables: dict, batches: PairBatches) -> Metrics:
    """The same, and again (`..._swapped`) with every image swapped for another."""
    swapped = self(variables, dataclasses.replace(batches, swapped=True))
    return self(variables, batches) | {f'{name}_swapped': x for name, x in swapped.items()}


def finish(sums: pretraining.Sums) -> dict[str, float]:
  """Divides totals [sum, weight] by their weights, once; what never occurs is not a number.

  Adds the whole `loss`, to which a task that never occurs adds nothing, as in training.
  """
  means = {k: float(s / w) if w else float('nan') for k, (s, w) in sums.items()}
  losses = [means[name] for name in ('mlm_loss', 'itm_loss')]
  return means | {'loss': sum(loss for loss in losses if math.isfinite(loss))}


def result_table(split: str, metrics: Metrics) -> str:
  """Accuracies on a split beside those with swapped images and a guess from the text alone."""
  rows = {'image-text matching': 'itm_accuracy', 'hidden words': 'mlm_accuracy'}
  rows |= {'visual words, determined': 'mlm_visual_accuracy'}
  rows |= {f'  {kind}': f'mlm_{kind}_accuracy' for kind in KINDS}
  missing = float('nan')
  return table(
    f'accuracy on {split}',
    ['own image', 'swapped image', 'text alone'],
    [
      (title, [metrics.get(name + end, missing) for end in ('', '_swapped', '_text_only')])
      for title, name in rows.items()
      if math.isfinite(metrics.get(name, missing))
    ],
  )
