"""A model over a split, for the numbers of its task."""

import functools
import pathlib
from types import ModuleType

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pixelbert_jax import sharding
from pixelbert_jax.input import pipeline
from pixelbert_jax.input.pipeline import Batches
from pixelbert_jax.metrics import Metrics
from pixelbert_jax.models.heads import Model
from pixelbert_jax.step import forward
from pixelbert_jax.tasks.sums import Sums


class Evaluator:
  """Runs a model over a split; compiled once for each shape of batch."""

  def __init__(self, task: ModuleType, model: Model, mesh: Mesh, threads: int, most: int = 0):
    """Of a split with more than `most` batches (0: any), that many are taken, evenly spread."""
    self._task, self._mesh, self._threads, self._most = task, mesh, threads, most

    @jax.jit
    def step(variables, batch):
      outputs = forward(model, variables, batch, train=False)
      sums = task.losses(outputs, batch) | task.accuracies(outputs, batch)
      return sums, task.items(outputs, batch)

    self._step = step

  def __call__(self, variables: dict, batches: Batches) -> Metrics:
    """The metrics of a split."""
    return self._task.evaluate(functools.partial(self.run, variables), batches)

  def result(self, variables: dict, batches: Batches, path: pathlib.Path) -> Metrics:
    """Those of the end, predictions written to `path` where the task has any."""
    return self._task.result(functools.partial(self.run, variables), batches, path)

  def run(
    self, variables: dict, batches: Batches, whole: bool = False
  ) -> tuple[Sums, dict[str, np.ndarray]]:
    """Sums over the batches (`whole`: all there are), and the task's items [N, ...] of all rows."""
    total, items = None, []
    count = len(batches) if whole else min(self._most or len(batches), len(batches))
    numbers = np.linspace(0, len(batches) - 1, count).round().astype(int)
    for batch in pipeline.read(batches, numbers, self._threads):
      sums, found = self._step(variables, sharding.global_batch(self._mesh, batch))
      total = sums if total is None else jax.tree.map(lambda a, b: a + b, total, sums)
      if found:
        items.append(multihost_utils.process_allgather(found, tiled=True))
    stacked = jax.tree.map(lambda *parts: np.concatenate(parts), *items) if items else {}
    return jax.device_get(total), stacked
