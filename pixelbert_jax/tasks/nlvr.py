"""NLVR2 (paper section 4.3) and NLVR: classifiers of texts as true or false of two images, or one.

A batch has B images, or pairs of images, with K texts each, of T tokens:
  image, source_size, size, canvas and optionally flip as in `tasks/pretraining.py`; for pairs they
    have 2 B rows, left and right in turn, and canvas may be of two shapes (`input/pairs.py`)
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  label [B, K] bool, True if the text is true
  weight [B, K] float32, 0 for padding
  statement [B, K] int32, its index in the split
  with micro-batches nlvr_total [B] float32, the weight of the whole batch in each row
"""

import abc
import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optax

from pixelbert_jax import UserError, files, jsons, processes
from pixelbert_jax.input.negatives import Negatives
from pixelbert_jax.input.order import Plan, plan_epoch, plan_texts
from pixelbert_jax.input.pipeline import Batch, Batches
from pixelbert_jax.input.sidecar import Sidecar, Statements
from pixelbert_jax.metrics import Metrics, compare
from pixelbert_jax.models.heads import MatchingModel, Model, Nlvr2Model
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.score import annotations, bootstrap, nlvr, nlvr2, predictions
from pixelbert_jax.tasks.base import Arrays, Rows, Run, Task, token_row
from pixelbert_jax.tasks.evaluator import counted
from pixelbert_jax.tasks.shortfall import shortfall
from pixelbert_jax.tasks.sums import Sums, finish, total

NLVR_IMAGE = re.compile(r'[a-z]+-(\d+-\d+-\d+)')


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class StatementBatches(Batches):
  """Batches of statements, with the names that their corpus gives them."""

  @abc.abstractmethod
  def name(self, i: int) -> str:
    """Returns the name of text i in a file of predictions."""

  def mismatched(self) -> dict[str, str]:
    """Returns by a text's name the id of the image it is shown with, where not all are its own."""
    return {}

  def _weights(self, plan: Plan, number: int, step: int) -> dict[str, np.ndarray]:
    return {'nlvr': plan.weight[number]}

  def _texts(self, plan: Plan, number: int, mine: np.ndarray, step: int) -> Batch:
    texts = plan.text[number, mine]
    ids, mask = self.tokens(texts)
    return {
      'token_ids': ids,
      'token_mask': mask,
      'label': plan.matched[number, mine],
      'weight': plan.weight[number, mine],
      'statement': texts.astype(np.int32),
    }


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class NlvrBatches(StatementBatches):
  """Batches of captions of one image each: labelled true or false, or else mismatched at random."""

  def _plan(self, epoch: int) -> Plan:
    sidecar = self.split.sidecar
    return plan_epoch(sidecar, self, epoch, negatives=Negatives(sidecar, self.truth))

  @functools.cached_property
  def _image(self) -> np.ndarray:
    return self.split.sidecar.caption_image

  def name(self, i: int) -> str:
    return caption_name(self.split.sidecar, i, int(self._image[i]))

  def mismatched(self) -> dict[str, str]:
    sidecar, plan = self.split.sidecar, self.plan(0)
    if not sidecar.label.all():  # They are judged by their own images.
      return {}
    images = np.broadcast_to(plan.image[..., None], plan.text.shape)
    shown = zip(plan.text[plan.weight > 0], images[plan.weight > 0], strict=True)
    return {self.name(i): sidecar.image_id[image].decode() for i, image in shown}


def caption_name(sidecar: Sidecar, i: int, image: int) -> str:
  """Names caption i as NLVR does, such as '1572-0-3'; elsewhere image index, caption index, 0."""
  official = NLVR_IMAGE.fullmatch(sidecar.image_id[image].decode())
  return official[1] if official else f'{image}-{i - int(sidecar.captions.start[image])}-0'


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class Nlvr2Batches(StatementBatches):
  """Batches of statements about two images; a batch has 2 B images, left and right alternating."""

  @property
  def table(self) -> Statements:
    """The statements of the split."""
    return self.split.sidecar.statements

  @functools.cached_property
  def _runs(self) -> tuple[np.ndarray, np.ndarray]:
    """Finds the runs of statements about the same images: the first [G], the images [G, 2]."""
    pair = np.stack([self.table.left, self.table.right], axis=1)
    first = np.flatnonzero(np.any(np.diff(pair, axis=0, prepend=-1), axis=1))
    return first, pair[first]

  @property
  def starts(self) -> np.ndarray:
    """The first statement of each run; the last is the number of statements."""
    return np.append(self._runs[0], len(self.table))

  @property
  def _sizes(self) -> np.ndarray:
    return self.split.sidecar.size[self._runs[1]]

  def _plan(self, epoch: int) -> Plan:
    if not len(self.table):
      raise UserError('the split has no statements about two images: name an NLVR2 dataset')
    return plan_texts(
      self,
      epoch,
      start=self.starts,
      image=self._runs[1],
      canvas=self.canvases.choose(self._sizes),
      label=self.table.label,
    )

  def name(self, i: int) -> str:
    return self.table.identifier[i].decode()


class Nlvr(Task):
  """NLVR, statements about one image.

  Attributes:
    sentence: returns the sentence in the name of a text; consistency groups the texts by it.
  """

  LOGGED = ('nlvr_loss', 'nlvr_accuracy')
  SHOWN = ('loss', 'nlvr_accuracy')
  CHOSEN_BY = 'nlvr_accuracy'
  ASKED = 'match'

  sentence: Callable[[str], str] = staticmethod(nlvr.sentence)

  def model(self, backbone: PixelBert) -> Model:
    return MatchingModel(backbone)

  def batches(self, role: str, **fields: Any) -> StatementBatches:
    return NlvrBatches(**fields)

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

  sentence = staticmethod(nlvr2.sentence)
  summarise = staticmethod(nlvr2.summarise)

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
