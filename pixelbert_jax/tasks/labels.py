"""Labels: what an image shows, told by the CNN alone, to train it before all else.

The paper starts from a ResNet that was trained on ImageNet (section 4.1). The labels are the claims
of a dataset: canonical statements, of which it is known of which images they are true.

A batch has B images, and of L labels:
  image, source_size, size, canvas and optionally flip as in `tasks/pretraining.py`
  label [B, L] bool, True where it is true of the image
  weight [B, 1] float32, 0 for padding
  with micro-batches labels_total [B] float32, the weight of the whole batch in each row
"""

import dataclasses
import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from pixelbert_jax import UserError, jsons
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.order import Plan, plan_texts
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.metrics import Metrics, table
from pixelbert_jax.models.heads import LabelModel
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.tasks.base import Array, Arrays, Rows, Run, Task
from pixelbert_jax.tasks.sums import Sums, finish, total

FILE = 'labels.json'  # of a run: its labels
# What is true of hardly any image, or of nearly all, is no label: shares of the training images.
LEAST, MOST = 0.01, 0.99
SCORES = ('balanced', 'true', 'false')  # columns of the table


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class LabelBatches(Batches):
  """The batches of `tasks/labels.py`; in the place of texts each image has its claims.

  Attributes:
    labels: the L labels.
  """

  labels: Sequence[str]

  @property
  def texts(self) -> int:
    """0: no text is read."""
    return 0

  @property
  def starts(self) -> np.ndarray:
    return np.arange(len(self.split.sidecar.image_id) + 1)

  def text(self, i: int) -> str:
    """Returns the claims of image i: mirrored, it might have others if one names a side."""
    sidecar = self.split.sidecar
    return '; '.join(map(sidecar.strings.text, sidecar.claims[i]))

  @functools.cached_property
  def true(self) -> np.ndarray:
    """Which labels are true of which images of the split, [I, L] bool."""
    return true_labels(self.split.sidecar, self.labels)

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    images = np.arange(len(sidecar.image_id))
    return plan_texts(
      self,
      epoch,
      start=self.starts,
      image=images,
      canvas=self.canvases.choose(sidecar.size),
      label=np.ones(len(images), bool),
    )

  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    return {'labels': plan.weight[number]}

  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    return {
      'label': self.true[plan.image[number, mine]],
      'weight': plan.weight[number, mine],
    }


@dataclasses.dataclass(frozen=True)
class Labels(Task):
  """Multi-label classification of images by the CNN alone.

  Attributes:
    labels: the L labels.
  """

  LOGGED = ('labels_loss', 'labels_accuracy')
  SHOWN = ('loss', 'labels_accuracy', 'labels_balanced_accuracy')
  CHOSEN_BY = 'labels_balanced_accuracy'
  USE = 'pre-training starts from its CNN by --config.init_from'

  labels: Sequence[str]

  @classmethod
  def of(
    cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]
  ) -> 'Labels':
    """Makes the task with the labels of the files, else with the frequent claims of `train`.

    Raises:
      UserError: a split has no claims, or there is nothing to take labels from.
    """
    for role, split in splits.items():
      if not len(split.sidecar.claims.values):
        raise UserError(
          f'data.name: {config.data.name} has no labels, since {config.data[role]} has no claims '
          'of what its images show: take scenes, or start from an ImageNet CNN (docs/pytorch.md)'
        )
    if FILE in files:
      return cls(jsons.parse(files[FILE], list))
    if 'train' not in splits:
      raise UserError(f'the labels are missing: they are in {FILE} of a run, or in the train split')
    return cls(frequent_claims(splits['train'].sidecar))

  def files(self) -> dict[str, bytes]:
    text = jsons.text(list(self.labels), indent=0, ensure_ascii=False) + '\n'
    return {FILE: text.encode()}

  def model(self, backbone: PixelBert) -> LabelModel:
    return LabelModel(backbone, len(self.labels))

  def batches(self, role: str, **fields: Any) -> LabelBatches:
    return LabelBatches(labels=self.labels, **fields)

  def row(self, texts: int, length: int, training: bool) -> Rows:
    return {
      'label': np.zeros((1, len(self.labels)), bool),
      'weight': np.zeros((1, texts), np.float32),
    }

  def summary(self, batches: Mapping[str, Any]) -> list[str]:
    """Says how many labels there are, and how many are true of an image."""
    each = batches['train'].true.sum(1).mean()
    return [
      f'labels      {len(self.labels):,}, {each:.1f} of them true of an image; no text is read'
    ]

  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the binary cross-entropy in nats, summed over labels, as a total over images.

    A mean over labels would make the gradients of SGD as many times smaller, and the CNN learn
    next to nothing at the paper's rate.
    """
    each = optax.sigmoid_binary_cross_entropy(outputs['label_logits'], batch['label'])
    return {'labels_loss': total(each.sum(-1, keepdims=True), batch['weight'])}

  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the share of labels that are judged correctly, as a total over images.

    `of_true` and `of_false`, of which an evaluation makes its scores, are totals [2, L]: of each
    label over the images of which it is true, and over the others.
    """
    right = (outputs['label_logits'] > 0) == batch['label']
    weight = jnp.broadcast_to(batch['weight'], right.shape)
    return {
      'labels_accuracy': total(right.mean(-1, keepdims=True), batch['weight']),
      'of_true': _totals(right, weight * batch['label']),
      'of_false': _totals(right, weight * ~batch['label']),
    }

  def evaluate(self, run: Run, batches: LabelBatches) -> Metrics:
    """Computes loss and accuracies, which a model that is blind would have at 0.5.

    The accuracy of a label is that over images of which it is true
    (`labels_true_accuracy`), or false (`labels_false_accuracy`), or the mean of both
    (`labels_balanced_accuracy`); means over labels, of all and of each kind of claim. Labels that
    are true of no image of the split, or of all, are left out of them.
    """
    return self._scores(run(batches)[0])

  def report(self, run: Run, batches: LabelBatches, path: pathlib.Path) -> Metrics:
    """Evaluates on all images as `evaluate` does; writes nothing."""
    return self._scores(run(batches, whole=True)[0])

  def _scores(self, sums: Sums) -> Metrics:
    true, false = (np.asarray(sums[name]) for name in ('of_true', 'of_false'))
    judged = (true[1] > 0) & (false[1] > 0)
    metrics = finish({name: sums[name] for name in self.LOGGED})
    kind = np.array([label.partition(' ')[0] for label in self.labels])
    of = {'': judged} | {f'/{k}': judged & (kind == k) for k in sorted(set(kind))}
    for end, chosen in of.items():
      if chosen.any():
        shares = [float((x[0, chosen] / x[1, chosen]).mean()) for x in (true, false)]
        values = zip(SCORES, [sum(shares) / 2, *shares], strict=True)
        metrics |= {f'labels_{name}_accuracy{end}': value for name, value in values}
    return metrics

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats the accuracies of all labels, and of each kind of claim."""
    start = f'labels_{SCORES[0]}_accuracy'
    ends = [name.removeprefix(start) for name in metrics if name.startswith(start)]
    rows = [
      (
        end.removeprefix('/') or 'all labels',
        [metrics[f'labels_{name}_accuracy{end}'] for name in SCORES],
      )
      for end in ends
    ]
    return table(f'accuracy on {split}, chance 0.500', list(SCORES), rows)


def _totals(value: Array, weight: Array) -> Array:
  """Computes [weighted sums of values, sums of weights], [2, L], over the first axis."""
  weight = weight.astype(jnp.float32)
  return jnp.stack([(value * weight).sum(0), weight.sum(0)])


def frequent_claims(sidecar: Sidecar) -> list[str]:
  """Lists the claims that are true of a share of LEAST to MOST of the images, in their order."""
  images = len(sidecar.image_id)
  claims, counts = np.unique(sidecar.claims.values, return_counts=True)
  frequent = claims[(counts / images >= LEAST) & (counts / images <= MOST)]
  return sorted(map(sidecar.strings.text, frequent))


def true_labels(sidecar: Sidecar, labels: Sequence[str]) -> np.ndarray:
  """Tells, [I, L] bool, which labels are true of which images."""
  place = {label: i for i, label in enumerate(labels)}
  claims, number = np.unique(sidecar.claims.values, return_inverse=True)
  column = np.array([place.get(sidecar.strings.text(c), -1) for c in claims], int)[number]
  row = np.repeat(np.arange(len(sidecar.claims)), np.diff(sidecar.claims.start))
  true = np.zeros((len(sidecar.claims), len(labels)), bool)
  true[row[column >= 0], column[column >= 0]] = True
  return true
