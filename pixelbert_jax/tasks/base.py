"""The task contract: what the training loop, which is the same for all tasks, asks of a task."""

import abc
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Self

import jax
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import UserError
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.pipeline import Batches, Threads
from pixelbert_jax.metrics import Metrics, compare
from pixelbert_jax.models.heads import Model
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.tasks.evaluator import Evaluator
from pixelbert_jax.tasks.sums import Sums, finish

Array = jax.Array
Arrays = dict[str, Array]
Rows = dict[str, np.ndarray]
Run = Callable[..., Any]  # an evaluator with the variables of a model


class Task(abc.ABC):
  """A task: its model, its batches, its losses and its scores.

  Attributes:
    LOGGED: names of the sums that a step returns, `..._loss` and `..._accuracy`.
    SHOWN: names of the metrics on the progress line; those without a value are skipped.
    REPEATED: names of validation metrics of the chosen step that the report repeats.
    CHOSEN_BY: the validation metric by which a step is chosen, larger is better; '' chooses the
      last step.
    MIXES: True if it trains on mixtures of datasets.
    USE: what a run says at its end about how its model is used.
    ASKED: the method of `predict.Model` with which it shows that; '' for none.
  """

  LOGGED: ClassVar[tuple[str, ...]]
  SHOWN: ClassVar[tuple[str, ...]]
  REPEATED: ClassVar[tuple[str, ...]] = ()
  CHOSEN_BY: ClassVar[str] = ''
  MIXES: ClassVar[bool] = False
  ASKED: ClassVar[str] = ''
  USE: ClassVar[str] = 'docs/predict.md shows how to use it'

  @classmethod
  def of(cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]) -> Self:
    """Makes the task of a configuration.

    Args:
      config: resolved; only this method reads the task's fields of it.
      splits: by role (train, validation, test); empty if the model is used without its data.
      files: those of the run that is resumed, evaluated or started from, by name.

    Raises:
      UserError: the task needs something that neither of these contains.
    """
    return cls()

  def files(self) -> dict[str, bytes]:
    """Returns the files that a run keeps with its configuration, by name, for `of` to read."""
    return {}

  @abc.abstractmethod
  def model(self, backbone: PixelBert) -> Model:
    """Makes the model."""

  @abc.abstractmethod
  def batches(self, role: str, **fields: Any) -> Batches:
    """Makes the batches of a split, given its role and the fields that all `Batches` have."""

  def row(self, texts: int, length: int, training: bool) -> Rows:
    """Makes a row of a batch, all but its image, from zeros: arrays [1, K, ...] by name.

    With it a program can be compiled without data (`python -m pixelbert_jax.plan`).

    Args:
      texts: K, texts of an image.
      length: T, tokens of a text.
      training: whether the batch is one of training.

    Raises:
      UserError: the task does not define it.
    """
    raise UserError(f'the task {type(self).__name__} has no `row`: define it to plan its programs')

  def summary(self, batches: Mapping[str, Any]) -> list[str]:
    """Describes what a run should be told of its batches, by role, before it starts: lines."""
    return []

  @property
  def logged(self) -> tuple[str, ...]:
    """The names of the sums that a step returns, as the task is configured; LOGGED by default."""
    return self.LOGGED

  @property
  def weights(self) -> Mapping[str, float]:
    """The weights of losses in the sum that is minimised, by name; 1 unless named."""
    return {}

  @abc.abstractmethod
  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes [sum, weight] of each loss by name; the weighted sum of their means is minimised."""

  @abc.abstractmethod
  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes [sum, weight] of each accuracy by name."""

  def items(self, outputs: Arrays, batch: Arrays) -> Arrays:
    """Selects the arrays [B, ...] that an evaluation gathers over batches and processes."""
    return {}

  def evaluator(self, model: Model, mesh: Mesh, threads: Threads, limit: int = 0) -> Any:
    """Makes the evaluator of the model over a split, over at most `limit` images (0: all).

    It is called with variables and batches; `evaluate` and `report` get it with variables bound.
    Its method `compile(variables, batches, whole)` compiles what such a call needs ahead of it.
    """

    def measure(outputs: Arrays, batch: Arrays) -> tuple[Sums, Arrays]:
      sums = self.losses(outputs, batch) | self.accuracies(outputs, batch)
      return sums, self.items(outputs, batch)

    return Evaluator(measure, model, mesh, threads, limit)

  def evaluate(self, run: Run, batches: Any) -> Metrics:
    """Computes the metrics of a split during training."""
    return finish(run(batches)[0])

  def report(self, run: Run, batches: Any, path: pathlib.Path) -> Metrics:
    """Computes the metrics of a whole split after training; may write predictions to `path`."""
    return finish(run(batches, whole=True)[0])

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats what `report` returned."""
    return compare(f'on {split}', {'': ''}, {name: name for name in metrics}, metrics)


def token_row(texts: int, length: int) -> Rows:
  """Makes the tokens of a row (`Task.row`): those of K texts of T tokens."""
  shape = 1, texts, length
  return {'token_ids': np.zeros(shape, np.int32), 'token_mask': np.zeros(shape, bool)}
