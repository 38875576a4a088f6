"""NLVR2 (paper section 4.3) and NLVR: classifiers of texts as true or false of two images, or one.

`statements.py` describes their batches.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import optax
from ml_collections import ConfigDict

from pixelbert_jax import files, jsons, processes
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.metrics import Metrics, compare
from pixelbert_jax.models.heads import MatchingModel, Model, Nlvr2Model
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.score import annotations, bootstrap, nlvr, nlvr2, predictions
from pixelbert_jax.tasks.base import Arrays, Rows, Run, Task, token_row
from pixelbert_jax.tasks.evaluator import counted
from pixelbert_jax.tasks.shortfall import shortfall
from pixelbert_jax.tasks.statements import Nlvr2Batches, NlvrBatches, StatementBatches
from pixelbert_jax.tasks.sums import Sums, finish, total


@dataclasses.dataclass(frozen=True)
class Nlvr(Task):
  """NLVR, statements about one image.

  Attributes:
    augment: share of the training images whose boxes are changed, with their texts (`boxes.py`).
    blank: 'image' or 'text' shows the model none, in training and evaluation; or 'none'.
  """

  LOGGED = ('nlvr_loss', 'nlvr_accuracy')
  SHOWN = ('loss', 'nlvr_accuracy')
  CHOSEN_BY = 'nlvr_accuracy'
  ASKED = 'match'

  augment: float = 0.0
  blank: str = 'none'

  @classmethod
  def of(cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]) -> Self:
    # NLVR2 has no such fields, nor have earlier checkpoints.
    return cls(config.get('augment', 0.0), config.get('blank', 'none'))

  def model(self, backbone: PixelBert) -> Model:
    return MatchingModel(backbone)

  def batches(self, role: str, **fields: Any) -> StatementBatches:
    return NlvrBatches(augment=self.augment, blank=self.blank, **fields)

  def row(self, texts: int, length: int, training: bool) -> Rows:
    return {
      **token_row(texts, length),
      'label': np.zeros((1, texts), bool),
      'weight': np.zeros((1, texts), np.float32),
      'statement': np.zeros((1, texts), np.int32),
    }

  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the binary cross-entropy in nats, as a total over texts."""
    label = batch['label'].astype(outputs['match_logits'].dtype)
    each = optax.sigmoid_binary_cross_entropy(outputs['match_logits'], label)
    return {'nlvr_loss': total(each, batch['weight'])}

  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Counts the texts that are judged correctly, as a total."""
    correct = (outputs['match_logits'] > 0) == batch['label']
    return {'nlvr_accuracy': total(correct, batch['weight'])}

  def items(self, outputs: Arrays, batch: Arrays) -> Arrays:
    """Selects the logit of 'true' of each text [B, K], its label, and which texts count."""
    names = ('statement', 'label', 'weight')
    return {'logit': outputs['match_logits'], **{name: batch[name] for name in names}}

  def evaluate(self, run: Run, batches: StatementBatches) -> Metrics:
    """Computes loss and the official scores: accuracy, consistency, and for NLVR2 subsets."""
    return self._judge(run, batches)[2]

  def report(self, run: Run, batches: StatementBatches, path: pathlib.Path) -> Metrics:
    """Evaluates on all texts; writes `<split>.csv` in the official form, and the logits as JSON.

    Where texts are mismatched at random, `<split>_pairs.json` has the image and the label of each.

    The metrics include the 95% interval of the accuracy, by a bootstrap over sentences because the
    texts of one sentence are not independent, and the accuracy of the majority class.
    """
    logits, labels, metrics = self._judge(run, batches, whole=True)
    predicted = {name: logit > 0 for name, logit in logits.items()}
    if processes.is_first():
      self.write(path.with_suffix('.csv'), predicted, path.stem.partition('[')[0])
      files.write_text(path.with_name(f'{path.stem}_logits.json'), jsons.text(logits))
      if shown := batches.mismatched():
        pairs = {name: [shown[name], label] for name, label in labels.items()}
        files.write_text(path.with_name(f'{path.stem}_pairs.json'), jsons.text(pairs))
    correct = np.array([predicted[name] == label for name, label in labels.items()], float)
    sentence = np.array([self.sentence(name) for name in labels])
    low, high = bootstrap.paired_difference(correct, np.zeros(len(correct)), sentence).interval
    majority = collections.Counter(labels.values()).most_common(1)[0][1] / len(labels)
    return metrics | {
      'nlvr_accuracy/low': low,
      'nlvr_accuracy/high': high,
      'nlvr_accuracy/majority': majority,
    }

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats the scores; accuracy with its 95% interval and the majority class."""
    names = [n for n in metrics if n.startswith('nlvr_') and '/' not in n and n != 'nlvr_loss']
    rows = {name.removeprefix('nlvr_').replace('_', ' '): name for name in names}
    columns = {'model': '', '95% from': '/low', 'to': '/high', 'majority class': '/majority'}
    return compare(f'on {split}', columns, rows, metrics)

  @staticmethod
  def sentence(name: str) -> str:
    """Returns the sentence in the name of a text; consistency groups the texts by it."""
    return nlvr.sentence(name)

  @staticmethod
  def summarise(correct: dict[str, bool], labels: Mapping[str, bool]) -> dict[str, float]:
    """Computes the official scores in 0..1, given which predictions are correct."""
    return nlvr.summarise(correct)

  def write(self, path: pathlib.Path, predicted: dict[str, bool], split: str) -> None:
    """Writes predictions in the official form."""
    predictions.write_nlvr(path, predicted, split)

  def _judge(
    self, run: Run, batches: StatementBatches, whole: bool = False
  ) -> tuple[dict[str, float], dict[str, bool], Metrics]:
    """Returns the logit and the label of each text by name, in the order of the split; metrics."""
    sums, items = run(batches, whole=whole)
    items = counted(items, 'statement')
    names = [batches.name(i) for i in items['statement']]
    labels = dict(zip(names, items['label'].tolist(), strict=True))
    predicted = dict(zip(names, items['logit'] > 0, strict=True))
    summary = self.summarise(nlvr.correct(predicted, labels), labels)
    scores = {f'nlvr_{name}': value for name, value in summary.items()}
    logits = dict(zip(names, items['logit'].tolist(), strict=True))
    return logits, labels, finish({'nlvr_loss': sums['nlvr_loss']}) | scores


class Nlvr2(Nlvr):
  """NLVR2, statements about two images."""

  ASKED = ''
  USE = 'its answers to the test split are in predictions/'

  summarise = staticmethod(nlvr2.summarise)

  @staticmethod
  def sentence(name: str) -> str:
    return nlvr2.sentence(name)

  def model(self, backbone: PixelBert) -> Model:
    return Nlvr2Model(backbone)

  def batches(self, role: str, **fields: Any) -> StatementBatches:
    return Nlvr2Batches(**fields)

  def report(self, run: Run, batches: StatementBatches, path: pathlib.Path) -> Metrics:
    """Evaluates as `Nlvr` does.

    Of a split that lacks statements it also writes the labels of those it has, as
    `<split>_annotations.json`: a score by all published ones is refused for those without a
    prediction.
    """
    metrics = super().report(run, batches, path)
    if shortfall(batches.split) and processes.is_first():
      table = batches.split.sidecar.statements
      names = [name.decode() for name in table.identifier]
      labels = dict(zip(names, table.label.tolist(), strict=True))
      annotations.write_nlvr2(path.with_name(f'{path.stem}_annotations.json'), labels)
    return metrics

  def write(self, path: pathlib.Path, predicted: dict[str, bool], split: str) -> None:
    predictions.write_nlvr2(path, predicted)
