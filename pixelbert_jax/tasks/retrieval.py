"""Image and text retrieval (paper section 4.4): an image's caption is to score above 20 others.

A batch has B images of K captions, the first of them the image's own, of T tokens:
  image, source_size, size, canvas and perhaps flip as of `tasks/pretraining.py`
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  weight [B, K] float32: of the first, whether the image counts; of the others, 0 where also its own
  with micro-batches retrieval_total [B] float32, the images that count in the whole batch

It is not evaluated by such batches: `ranker.py` scores every image of a gallery with every caption.
"""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import files, processes
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth
from pixelbert_jax.metrics import Metrics, table
from pixelbert_jax.models.heads import MatchingModel, Model
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.score import matrix as matrix_file
from pixelbert_jax.score import recall
from pixelbert_jax.tasks.base import Arrays, Run, Task
from pixelbert_jax.tasks.gallery import Gallery, RankingBatches
from pixelbert_jax.tasks.ranker import BLOCK, Ranker
from pixelbert_jax.tasks.sums import Sums, total

TOP = 10  # captions listed for an image, and images for a caption
RECALLS = tuple(f'{name}_recall_at_{k}' for name in ('text', 'image') for k in recall.CUTOFFS)
# What stands beside the model's recalls, by the end of its metrics' names.
BESIDE = {
  '_1k': 'mean of five folds of 1,000',
  '/image_blind': 'image-blind',
  '/text_blind': 'text-blind',
  '/chance': 'chance',
  '/truth': 'true ones first',
  '/ceiling': '..., the rarest before',
}
DRAWS = 10  # of the order of what ties, for the ceiling


def _others(outputs: Arrays, batch: Arrays) -> jax.Array:
  """[B, K - 1] logits of the other captions, minus infinity for those that do not count."""
  return jnp.where(batch['weight'][:, 1:] > 0, outputs['match_logits'][:, 1:], -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Retrieval(Task):
  """Image and text retrieval.

  Attributes:
    hardest: how many of the other captions an image learns from.
    captions: how many captions an evaluation scores with an image at a time.
    gallery: fields of `RankingBatches`, which images and captions an evaluation ranks.
  """

  LOGGED = ('retrieval_loss', 'retrieval_accuracy')
  SHOWN = ('loss', 'retrieval_accuracy', 'recall_mean', 'text_recall_at_1', 'image_recall_at_1')
  CHOSEN_BY = 'recall_mean'

  hardest: int
  captions: int
  gallery: Mapping[str, int] = dataclasses.field(default_factory=dict)

  @classmethod
  def of(
    cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]
  ) -> 'Retrieval':
    gallery = {'most_images': config.eval_images, 'most_captions': config.eval_captions}
    return cls(config.hardest, config.texts_per_image, gallery)

  def model(self, backbone: PixelBert) -> MatchingModel:
    return MatchingModel(backbone)

  def batches(self, role: str, **fields: Any) -> RankingBatches:
    if role != 'train':
      fields['images'] = min(fields['images'], BLOCK * jax.device_count())
    return RankingBatches(**self.gallery, **fields)

  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the softmax cross-entropy of the own caption and the hardest others, in nats."""
    own, others = outputs['match_logits'][:, :1], -jnp.sort(-_others(outputs, batch))
    candidates = jnp.concatenate([own, others[:, : self.hardest]], axis=1)
    each = jax.nn.logsumexp(candidates, axis=1) - own[:, 0]
    return {'retrieval_loss': total(each, batch['weight'][:, 0])}

  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Counts the images whose own caption scores above all others; ties count as misses."""
    first = outputs['match_logits'][:, 0] > _others(outputs, batch).max(axis=1)
    return {'retrieval_accuracy': total(first, batch['weight'][:, 0])}

  def evaluator(self, model: Model, mesh: Mesh, threads: int, limit: int = 0) -> Ranker:
    return Ranker(model, mesh, threads, self.captions, limit)

  def evaluate(self, run: Run, batches: RankingBatches) -> Metrics:
    """Computes the recalls over no more images than an evaluation in training takes."""
    matrix, gallery = run(batches)
    return recalls(matrix.scores, gallery)

  def report(self, run: Run, batches: RankingBatches, path: pathlib.Path) -> Metrics:
    """Computes the recalls over all images, and all that they are judged by.

    Writes the scores to `<split>.npz`, as `python -m pixelbert_jax.score retrieval` reads them, and
    to `path` the best captions of each image and the best images of each caption.
    """
    sidecar = batches.split.sidecar
    matrix, gallery = run(batches, path=path.with_suffix('.npz'))
    metrics = report(matrix.scores, gallery, sidecar)
    if processes.is_first():
      image_ids = [sidecar.image_id[i].decode() for i in gallery.image]
      text_ids = sidecar.captions.values[gallery.caption].tolist()
      texts = [batches.text(i) for i in gallery.caption]
      matrix_file.write(path.with_suffix('.npz'), matrix.scores, image_ids, text_ids)
      lists = json.dumps(top_lists(matrix.scores, image_ids, text_ids, texts), indent=1)
      files.write_text(path, lists)
    matrix.remove()
    return metrics

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats the recalls of the model beside those of baselines, and what they are over."""
    missing = float('nan')
    rows = {'': 'model'} | {
      end: name for end, name in BESIDE.items() if any(f'{r}{end}' in metrics for r in RECALLS)
    }
    images, texts, existing = (round(metrics[n]) for n in ('images', 'texts', 'texts_existing'))
    recalls_table = table(
      f'recall on {split}',
      [name.replace('_recall_at_', ' R@') for name in RECALLS],
      [(name, [metrics.get(f'{r}{end}', missing) for r in RECALLS]) for end, name in rows.items()],
    )
    convention = recall.convention(texts, existing)
    return f'{recalls_table}\nof {images:,} images with {texts:,} captions: {convention}'


def recalls(scores: np.ndarray, gallery: Gallery) -> Metrics:
  """Recalls at 1, 5 and 10 both ways from scores [I, T], and their mean, `recall_mean`."""
  found = recall.recalls(*recall.ranks(scores, gallery.row), gallery.row)
  return found | {'recall_mean': float(np.mean(list(found.values())))}


def report(scores: np.ndarray, gallery: Gallery, sidecar: Sidecar) -> Metrics:
  """The recalls, and what else is needed to judge them.

  Of 5,000 images the means of five folds (`..._1k`). From the same scores, what is left of a model
  that does not see the image, each caption having its mean over all images, or that does not read
  the caption; all ties count against these two. What chance gives. And where it is known which
  captions are true of which images, what can be expected of putting the true ones first (`/truth`),
  and among them the rarer, as the more likely (`/ceiling`).
  """
  metrics, shape = dict(recalls(scores, gallery)), scores.shape
  if len(scores) == recall.COCO_IMAGES:
    fold = recall.consecutive_folds(len(scores), recall.FOLD)
    folded = recall.recalls(*recall.ranks(scores, gallery.row, fold), gallery.row, fold)
    metrics |= {f'{name}_1k': x for name, x in folded.items()}
  blind = {'image_blind': scores.mean(0, np.float64), 'text_blind': scores.mean(1, np.float64)}
  blind['text_blind'] = blind['text_blind'][:, None]
  beside = {name: recalls(np.broadcast_to(x, shape), gallery) for name, x in blind.items()}
  # By chance all is as good as true.
  beside['chance'] = _expected(np.broadcast_to(True, shape[::-1]), gallery)
  if len(sidecar.claim):
    true = _true(gallery, sidecar)
    beside |= {'truth': _expected(true, gallery), 'ceiling': _rarest_first(true.T, gallery)}
  for name, found in beside.items():
    metrics |= {f'{metric}/{name}': found[metric] for metric in RECALLS}
  sizes = {'images': shape[0], 'texts': shape[1], 'texts_existing': gallery.existing}
  return metrics | sizes


def _true(gallery: Gallery, sidecar: Sidecar) -> np.ndarray:
  """[T, I] bool: which captions are true of which images."""
  truth = Truth(sidecar)
  captions, images = np.meshgrid(gallery.caption, gallery.image, indexing='ij')
  return truth(images.reshape(-1), captions.reshape(-1)).reshape(captions.shape)


def _expected(true: np.ndarray, gallery: Gallery) -> Metrics:
  """Of a model that puts first whatever is `true`, [T, I], and can tell no more."""
  own = np.bincount(gallery.row)
  return {
    f'text_recall_at_{k}': recall.expected_text_recall(true, own, k) for k in recall.CUTOFFS
  } | {f'image_recall_at_{k}': recall.expected_image_recall(true, k) for k in recall.CUTOFFS}


def _rarest_first(true: np.ndarray, gallery: Gallery) -> Metrics:
  """Of a model that knows what is `true`, [I, T], and what of little: that is likelier the pair.

  What is as likely comes in a random order.
  """
  likely = true / (true.sum(0) * true.sum(1, keepdims=True))
  rng = np.random.default_rng(0)
  draws = [recalls(likely * (1 + 1e-6 * rng.random(true.shape)), gallery) for _ in range(DRAWS)]
  return {name: float(np.mean([found[name] for found in draws])) for name in RECALLS}


def top_lists(
  scores: np.ndarray, image_ids: list[str], text_ids: list[int], texts: list[str]
) -> dict[str, dict]:
  """For people: the best captions of each image and the best images of each caption.

  Returns:
    `captions`, by image id: [text id, text, score], the best first; and `images`, by text id:
    [image id, score].
  """
  captions, images = {}, {}
  for row, name in enumerate(image_ids):
    captions[name] = [
      [text_ids[t], texts[t], round(float(scores[row, t]), 4)] for t in _best(scores[row])
    ]
  for column, number in enumerate(text_ids):
    images[str(number)] = [
      [image_ids[i], round(float(scores[i, column]), 4)] for i in _best(scores[:, column])
    ]
  return {'captions': captions, 'images': images}


def _best(scores: np.ndarray) -> np.ndarray:
  """The numbers of the TOP highest, the highest first."""
  few = np.argpartition(-scores, TOP)[:TOP] if len(scores) > TOP else np.arange(len(scores))
  return few[np.argsort(-scores[few], kind='stable')]
