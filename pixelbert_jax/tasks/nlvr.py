"""NLVR2 (paper section 4.3) and NLVR: is a text true of two images, or of one?

A batch has B images, or pairs of them, of K texts, of T tokens:
  image, source_size, size, canvas and perhaps flip as of `tasks/pretraining.py`; of pairs there are
    2 B, left and right one after the other
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  label [B, K] bool, whether the text is true
  weight [B, K] float32, 0 where only filled up
  statement [B, K] int32, its number in the split
  with micro-batches nlvr_total [B] float32, the weight of the whole batch in each row
"""

import collections
import json
import pathlib

import jax
import numpy as np
import optax

from pixelbert_jax import processes
from pixelbert_jax.input.statements import StatementBatches
from pixelbert_jax.metrics import Metrics, choice
from pixelbert_jax.metrics import table as text_table
from pixelbert_jax.scores import bootstrap, files, nlvr
from pixelbert_jax.tasks.sums import Run, Sums, finish, total

Array = jax.Array

LOGGED = ('nlvr_loss', 'nlvr_accuracy')
SHOWN = ('loss', 'nlvr_accuracy')
CHOSEN_BY = 'nlvr_accuracy'


def losses(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """Binary cross-entropy in nats, as a total over texts."""
  label = batch['label'].astype(outputs['match_logits'].dtype)
  each = optax.sigmoid_binary_cross_entropy(outputs['match_logits'], label)
  return {'nlvr_loss': total(each, batch['weight'])}


def accuracies(outputs: dict[str, Array], batch: dict[str, Array]) -> Sums:
  """How many texts are judged right, as a total."""
  right = (outputs['match_logits'] > 0) == batch['label']
  return {'nlvr_accuracy': total(right, batch['weight'])}


def items(outputs: dict[str, Array], batch: dict[str, Array]) -> dict[str, Array]:
  """[B, K]: the logit of 'true' of each text, its label, and which of them count."""
  names = ('statement', 'label', 'weight')
  return {'logit': outputs['match_logits'], **{name: batch[name] for name in names}}


def evaluate(run: Run, batches: StatementBatches) -> Metrics:
  """Loss and official scores: accuracy, consistency, of NLVR2 by subset too."""
  sums, found = run(batches)
  said, labels, _ = judged(found, batches)
  return finish({'nlvr_loss': sums['nlvr_loss']}) | _scores(said, labels, batches)


def result(run: Run, batches: StatementBatches, path: pathlib.Path) -> Metrics:
  """Evaluates on all texts; writes `<split>.csv` in the official form, and the logits as JSON.

  Beside the accuracy stand its interval of 95% (a bootstrap over sentences, as the texts of one are
  not independent), and what the commoner label would reach.
  """
  sums, found = run(batches, whole=True)
  said, labels, logits = judged(found, batches)
  if processes.is_first():
    path.parent.mkdir(parents=True, exist_ok=True)
    batches.write(path.with_suffix('.csv'), said, path.stem.partition('[')[0])
    files.write(
      path.with_name(f'{path.stem}_logits.json'),
      lambda file: file.write(json.dumps(logits).encode()),
    )
  right = np.array([said[name] == label for name, label in labels.items()], float)
  sentence = np.array([batches.sentence(name) for name in labels])
  interval = bootstrap.paired_difference(right, np.zeros(len(right)), sentence)
  commoner = collections.Counter(labels.values()).most_common(1)[0][1] / len(labels)
  return (
    finish({'nlvr_loss': sums['nlvr_loss']})
    | _scores(said, labels, batches)
    | {
      'nlvr_accuracy/low': interval.low,
      'nlvr_accuracy/high': interval.high,
      'nlvr_accuracy/majority': commoner,
    }
  )


def table(split: str, metrics: Metrics) -> str:
  """The scores, accuracy with its interval and beside the commoner label."""
  missing = float('nan')
  names = [n for n in metrics if n.startswith('nlvr_') and '/' not in n and n != 'nlvr_loss']
  ends = ('', '/low', '/high', '/majority')
  shown = text_table(
    f'on {split}',
    ['model', '95% from', 'to', 'commoner label'],
    [
      (
        name.removeprefix('nlvr_').replace('_', ' '),
        [metrics.get(name + end, missing) for end in ends],
      )
      for name in names
    ],
  )
  return shown + choice(metrics, CHOSEN_BY)


def judged(
  found: dict[str, np.ndarray], batches: StatementBatches
) -> tuple[dict[str, bool], dict[str, bool], dict[str, float]]:
  """What is said of each text, its label, and the logit, by its name and in the split's order."""
  counts = found['weight'].reshape(-1) > 0
  number, label, logit = (found[n].reshape(-1)[counts] for n in ('statement', 'label', 'logit'))
  order = np.argsort(number)
  names = [batches.name(i) for i in number[order]]
  return (
    dict(zip(names, (logit[order] > 0).tolist(), strict=True)),
    dict(zip(names, label[order].tolist(), strict=True)),
    dict(zip(names, logit[order].tolist(), strict=True)),
  )


def _scores(said: dict[str, bool], labels: dict[str, bool], batches: StatementBatches) -> Metrics:
  found = batches.summarise(nlvr.correct(said, labels), labels)
  return {f'nlvr_{name}': value for name, value in found.items()}
