"""Image and text retrieval (paper section 4.4): an image's caption has to score above 20 others.

A batch has B images with K captions each, the image's own first, of T tokens:
  image, source_size, size, canvas and optionally flip as in `tasks/pretraining.py`
  token_ids [B, K, T] int32, token_mask [B, K, T] bool
  weight [B, K] float32: first, 1 if the image counts; then 0 for a caption that is also its own
  with micro-batches retrieval_total [B] float32, the number of images that count in the whole batch
  with a first stage own [B, B, K] bool, whether it is an image's own caption (first axis) that is
    shown with an image (second); with micro-batches first_stage_total [B], as retrieval_total

Evaluation does not use such batches: `ranker.py` scores all images of a gallery with all captions,
`two_stage.py` those that a first stage lists.
"""

import dataclasses
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from ml_collections import ConfigDict

from pixelbert_jax import files, jsons, processes
from pixelbert_jax.input.dataset import Split
from pixelbert_jax.input.pipeline import Threads
from pixelbert_jax.input.sidecar import Sidecar
from pixelbert_jax.input.truth import Truth
from pixelbert_jax.metrics import Metrics, table
from pixelbert_jax.models.heads import MatchingModel
from pixelbert_jax.models.pixelbert import PixelBert
from pixelbert_jax.score import matrix as matrix_file
from pixelbert_jax.score import recall
from pixelbert_jax.tasks import first_stage
from pixelbert_jax.tasks.base import Arrays, Rows, Run, Task, token_row
from pixelbert_jax.tasks.gallery import Gallery, RankingBatches
from pixelbert_jax.tasks.ranker import BLOCK, Ranker
from pixelbert_jax.tasks.sums import Sums, total
from pixelbert_jax.tasks.two_stage import TwoStageRanker

TOP = 10  # captions listed for an image, and images for a caption
RECALLS = tuple(f'{name}_recall_at_{k}' for name in ('text', 'image') for k in recall.CUTOFFS)
# The rows below the model's in the table, by the suffix of their metrics' names.
BESIDE = {
  '_1k': 'mean of five folds of 1,000',
  '/first_stage': 'first stage alone',
  '/image_blind': 'image-blind',
  '/text_blind': 'text-blind',
  '/chance': 'chance',
  '/oracle': 'oracle: true pairs first',
  '/oracle_rarest': 'oracle: the rarest first',
}
DRAWS = 10  # random orders of ties that `/oracle_rarest` is averaged over


def _others(outputs: Arrays, batch: Arrays) -> jax.Array:
  """Returns the logits [B, K - 1] of the other captions, minus infinity for weight 0."""
  return jnp.where(batch['weight'][:, 1:] > 0, outputs['match_logits'][:, 1:], -jnp.inf)


@dataclasses.dataclass(frozen=True)
class Retrieval(Task):
  """Image and text retrieval.

  Attributes:
    hardest: number of the other captions, those with the highest scores, in an image's loss.
    captions: number of captions that an evaluation scores with a block of images at a time.
    gallery: the fields of `RankingBatches` that choose what an evaluation ranks.
    first_stage: width of the space in which a first stage ranks; 0 has none.
    rerank: how many captions of each image, and images of each caption, the first stage lists for a
      report to score; 0 scores all pairs.
    contrasted: images of a (micro-)batch, which the first stage learns to tell apart.
  """

  LOGGED = ('retrieval_loss', 'retrieval_accuracy')
  SHOWN = (
    *('loss', 'retrieval_accuracy', 'recall_mean', 'text_recall_at_1', 'image_recall_at_1'),
    'chosen_k',
  )
  REPEATED = ('chosen_k',)
  CHOSEN_BY = 'recall_mean'
  ASKED = 'match'

  hardest: int
  captions: int
  gallery: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  first_stage: int = 0
  rerank: int = 0
  contrasted: int = 0

  @classmethod
  def of(
    cls, config: ConfigDict, splits: Mapping[str, Split], files: Mapping[str, bytes]
  ) -> 'Retrieval':
    gallery = {'most_images': config.eval_images, 'most_captions': config.eval_captions}
    return cls(
      hardest=config.hardest,
      captions=config.texts_per_image,
      gallery=gallery,
      first_stage=config.get('first_stage', 0),  # which earlier checkpoints lack
      rerank=config.get('rerank', 0),
      contrasted=config.batch_size // config.texts_per_image // config.micro_batches,
    )

  @property
  def logged(self) -> tuple[str, ...]:
    return (*self.LOGGED, 'first_stage_loss') if self.first_stage else self.LOGGED

  def model(self, backbone: PixelBert) -> MatchingModel:
    return MatchingModel(backbone, self.first_stage)

  def batches(self, role: str, **fields: Any) -> RankingBatches:
    if role != 'train':
      fields['images'] = min(fields['images'], BLOCK * jax.device_count())
    return RankingBatches(**self.gallery, contrast=self.first_stage > 0, **fields)

  def row(self, texts: int, length: int, training: bool) -> Rows:
    texts = texts if training else 1  # A gallery's images come with their first caption.
    row = {**token_row(texts, length), 'weight': np.zeros((1, texts), np.float32)}
    if training and self.first_stage:
      row['own'] = np.zeros((1, self.contrasted, texts), bool)
    return row

  def losses(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Computes the softmax cross-entropy of the own caption against the hardest others, in nats.

    With a first stage also its own loss, over the images of the (micro-)batch on all devices.
    """
    own, others = outputs['match_logits'][:, :1], -jnp.sort(-_others(outputs, batch))
    candidates = jnp.concatenate([own, others[:, : self.hardest]], axis=1)
    each = jax.nn.logsumexp(candidates, axis=1) - own[:, 0]
    counts = batch['weight'][:, 0]
    sums = {'retrieval_loss': total(each, counts)}
    if self.first_stage:
      sums['first_stage_loss'] = total(first_stage.contrast(outputs, batch), counts)
    return sums

  def accuracies(self, outputs: Arrays, batch: Arrays) -> Sums:
    """Counts the images whose own caption scores above all others; ties count as misses."""
    first = outputs['match_logits'][:, 0] > _others(outputs, batch).max(axis=1)
    return {'retrieval_accuracy': total(first, batch['weight'][:, 0])}

  def evaluator(self, model: Any, mesh: Mesh, threads: Threads, limit: int = 0) -> Ranker:
    if self.first_stage:
      return TwoStageRanker(model, mesh, threads, self.captions, limit=limit, rerank=self.rerank)
    return Ranker(model, mesh, threads, self.captions, limit)

  def evaluate(self, run: Run, batches: RankingBatches) -> Metrics:
    """Computes the recalls over the images of an evaluation during training, from all pairs."""
    ranking = run(batches)
    metrics = recalls(ranking.matrix.scores, ranking.gallery)
    return metrics | first_stage.validated(ranking)

  def report(self, run: Run, batches: RankingBatches, path: pathlib.Path) -> Metrics:
    """Computes the recalls over all images, with baselines and oracles.

    Writes the scores to `<split>.npz`, which `python -m pixelbert_jax.score retrieval` reads, and
    to `path` the best captions of each image and the best images of each caption.
    """
    sidecar = batches.split.sidecar
    ranking = run(batches, path=path.with_suffix('.npz'))
    scores, gallery = first_stage.scores_of(ranking), ranking.gallery
    metrics = report(scores, gallery, sidecar, every_pair=ranking.listed is None)
    metrics |= first_stage.reported(ranking)
    if processes.is_first():
      image_ids = [sidecar.image_id[i].decode() for i in gallery.image]
      text_ids = sidecar.captions.values[gallery.caption].tolist()
      texts = [batches.text(i) for i in gallery.caption]
      matrix_file.write(path.with_suffix('.npz'), scores, image_ids, text_ids)
      lists = jsons.text(top_lists(scores, image_ids, text_ids, texts), indent=1)
      files.write_text(path, lists)
    ranking.matrix.remove()
    return metrics

  def table(self, split: str, metrics: Metrics) -> str:
    """Formats the recalls of the model and of baselines, and the number of images and captions."""
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
    text = f'{recalls_table}\nof {images:,} images with {texts:,} captions: {convention}'
    return text + first_stage.table_of(split, metrics)


def recalls(scores: np.ndarray, gallery: Gallery) -> Metrics:
  """Computes recalls at 1, 5 and 10 both ways from scores [I, T], and their mean `recall_mean`."""
  values = recall.recalls(*recall.ranks(scores, gallery.row), gallery.row)
  return values | {'recall_mean': float(np.mean(list(values.values())))}


def report(
  scores: np.ndarray, gallery: Gallery, sidecar: Sidecar, every_pair: bool = True
) -> Metrics:
  """Computes the recalls, and those of baselines and oracles to compare them with.

  - `_1k`: the means over five folds, for 5,000 images.
  - `/image_blind`: the image-blind baseline, where each caption has its mean score over all images;
    ties count as misses. `/text_blind` likewise has the mean over all captions. Both need scores of
    every pair.
  - `/chance`: the expectation for a random order.
  - `/oracle`: the expectation for an order that puts true pairs first. This and `/oracle_rarest`
    need a split that knows which captions are true of which images.
  - `/oracle_rarest`: as `/oracle`, but of the true pairs those come first whose image and caption
    are true of few others, because they are more likely to belong together. No upper bound either.

  Args:
    scores: [I, T] float32.
    gallery: the images and captions of the scores.
    sidecar: of the split.
    every_pair: whether all scores are those of the matching head.
  """
  metrics, shape = dict(recalls(scores, gallery)), scores.shape
  metrics |= recall.five_folds(scores, gallery.row, np.arange(len(scores)))
  means = {}
  if every_pair:
    means['image_blind'] = scores.mean(0, np.float64)
    means['text_blind'] = scores.mean(1, np.float64)[:, None]
  baselines = {name: recalls(np.broadcast_to(x, shape), gallery) for name, x in means.items()}
  # A random order is one in which all pairs are equally true.
  baselines['chance'] = _expected(np.broadcast_to(True, shape[::-1]), gallery)
  if len(sidecar.claim):
    true = _true(gallery, sidecar)
    baselines['oracle'] = _expected(true, gallery)
    baselines['oracle_rarest'] = _rarest_first(true.T, gallery)
  for name, values in baselines.items():
    metrics |= {f'{metric}/{name}': values[metric] for metric in RECALLS}
  sizes = {'images': shape[0], 'texts': shape[1], 'texts_existing': gallery.existing}
  return metrics | sizes


def _true(gallery: Gallery, sidecar: Sidecar) -> np.ndarray:
  """Computes which captions are true of which images, [T, I] bool."""
  truth = Truth(sidecar)
  captions, images = np.meshgrid(gallery.caption, gallery.image, indexing='ij')
  return truth(images.reshape(-1), captions.reshape(-1)).reshape(captions.shape)


def _expected(true: np.ndarray, gallery: Gallery) -> Metrics:
  """Computes the expected recalls of an order with true pairs, [T, I], first, else random."""
  count = np.bincount(gallery.row)  # of each image's own captions
  return {
    f'text_recall_at_{k}': recall.expected_text_recall(true, count, k) for k in recall.CUTOFFS
  } | {f'image_recall_at_{k}': recall.expected_image_recall(true, k) for k in recall.CUTOFFS}


def _rarest_first(true: np.ndarray, gallery: Gallery) -> Metrics:
  """Computes the recalls of an order with true pairs, [I, T], first, the rarest before the others.

  A pair is rarer the fewer other pairs its image and its caption have. Ties are in random order.
  """
  rarity = true / (true.sum(0) * true.sum(1, keepdims=True))
  rng = np.random.default_rng(0)
  draws = [recalls(rarity * (1 + 1e-6 * rng.random(true.shape)), gallery) for _ in range(DRAWS)]
  return {name: float(np.mean([values[name] for values in draws])) for name in RECALLS}


def top_lists(
  scores: np.ndarray, image_ids: list[str], text_ids: list[int], texts: list[str]
) -> dict[str, dict]:
  """Lists, for people to read, the best captions of each image and the best images of each caption.

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
  """Returns the indices of the TOP highest scores, the highest first."""
  top = np.argpartition(-scores, TOP)[:TOP] if len(scores) > TOP else np.arange(len(scores))
  return top[np.argsort(-scores[top], kind='stable')]
