"""The evaluator: runs a model over a split and collects the sums and items of its task."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pixelbert_jax import sharding, stopping
from pixelbert_jax.compilation import compiled
from pixelbert_jax.input import pipeline
from pixelbert_jax.input.image import model_canvas
from pixelbert_jax.input.pipeline import Batches, Threads
from pixelbert_jax.models.forward import forward
from pixelbert_jax.models.heads import Model
from pixelbert_jax.tasks.sums import Sums


class Evaluator:
  """An evaluator of a model over a split, compiled once per batch shape."""

  def __init__(self, measure: Callable, model: Model, mesh: Mesh, threads: Threads, limit: int = 0):
    """Defines the program.

    Args:
      measure: computes sums and items (`Task`) of outputs and a batch.
      model: is applied to each batch.
      mesh: the devices.
      threads: that make batches.
      limit: of the images it runs over, evenly spread; 0 takes all.
    """
    self._mesh, self._threads, self._limit = mesh, threads, limit

    @jax.jit
    def step(variables, batch):
      outputs = forward(model, variables, batch, train=False)
      return measure(outputs, batch)

    self._step, self._compiled = step, set[tuple]()

  def compile(self, variables: dict, batches: Batches, whole: bool = False) -> None:
    """Compiles the programs of a call ahead of it; a signal is heard as in one."""
    variables = sharding.abstract(variables, sharding.replicated(self._mesh))
    shapes = batches.shapes(self._numbers(batches, whole))
    for number, batch in enumerate(shapes, 1):
      place = f'({number} of {len(shapes)})'
      self._prepare(variables, sharding.global_shapes(self._mesh, batch), place)

  def _prepare(self, variables: dict, batch: dict[str, Any], place: str = '') -> None:
    shape = len(batch['image']), *model_canvas(batch)
    key = tuple((name, x.shape) for name, x in sorted(batch.items()))
    if key not in self._compiled:
      title = f'evaluation, images {"x".join(map(str, shape))}'
      compiled(self._step, variables, batch, title=title, place=place)
      self._compiled.add(key)

  def _numbers(self, batches: Batches, whole: bool) -> list[int]:
    limit = 0 if whole else -(-self._limit // batches.images)
    count = min(limit or len(batches), len(batches))
    return np.linspace(0, len(batches) - 1, count).round().astype(int).tolist()

  def lower(self, variables: dict, batch: dict) -> dict[str, jax.stages.Lowered]:
    """Lowers its programs, by name, for arrays described with their shardings."""
    return {'evaluation': self._step.lower(variables, batch)}

  def __call__(
    self, variables: dict, batches: Batches, whole: bool = False
  ) -> tuple[Sums, dict[str, np.ndarray]]:
    """Runs over the batches up to the limit; with `whole` over all of them.

    Returns:
      The task's sums, and its items [N, ...], gathered from all processes.

    Raises:
      Stopped: a signal asked for it.
    """
    total, items, running = None, [], None
    variables = sharding.whole(self._mesh, variables)
    for made in pipeline.read(batches, self._numbers(batches, whole), self._threads):
      stopping.leave_if_asked()
      batch = sharding.global_batch(self._mesh, made)
      self._prepare(variables, batch)
      sums, rows = self._step(variables, batch)
      jax.block_until_ready(running)  # As in training, two batches at most are on the devices.
      running = sums
      total = sums if total is None else jax.tree.map(lambda a, b: a + b, total, sums)
      if rows:
        items.append(multihost_utils.process_allgather(rows, tiled=True))
    stacked = jax.tree.map(lambda *parts: np.concatenate(parts), *items) if items else {}
    return jax.device_get(total), stacked


def counted(items: Mapping[str, np.ndarray], number: str) -> dict[str, np.ndarray]:
  """Selects the items [N] of the texts that count, in the order of the split.

  Args:
    items: [B, K] each; `weight` is 0 for texts that do not count.
    number: name of the item that holds the index of each text in the split.
  """
  real = items['weight'] > 0
  order = np.argsort(items[number][real])
  return {name: x[real][order] for name, x in items.items()}
