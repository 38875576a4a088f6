"""The evaluation of retrieval in two stages: a first stage ranks, the matching head its shortlist.

The first stage reads each image and each caption once, by itself: its scores are products of their
vectors. The CNN runs twice an image, in all; a stopped evaluation repeats the first stage, which is
cheap, and goes on with the second where it was.
"""

import dataclasses
import functools
import pathlib

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pixelbert_jax import sharding
from pixelbert_jax.input.pipeline import Threads
from pixelbert_jax.models.heads import MatchingModel
from pixelbert_jax.score.shortlist import shortlist
from pixelbert_jax.tasks.chunks import lengths, packed
from pixelbert_jax.tasks.gallery import RankingBatches
from pixelbert_jax.tasks.ranker import EveryPair, Pixels, Ranker, Ranking, gather, rows_of


class TwoStageRanker(Ranker):
  """A ranker whose model has a first stage: it gives its scores, too, or chooses pairs by them."""

  def __init__(
    self,
    model: MatchingModel,
    mesh: Mesh,
    threads: Threads,
    captions: int,
    limit: int = 0,
    rerank: int = 0,
  ):
    """Defines the programs; arguments as for `Ranker`.

    In a call with a file, `rerank` is the number of captions of each image and of images of each
    caption that are scored exactly; 0, and a call without a file, scores all pairs.
    """
    super().__init__(model, mesh, threads, captions, limit)
    self.width, self._rerank = model.first_stage_width, rerank
    self.of_image = jax.jit(functools.partial(model.apply, train=False, method=model.image_vector))
    self.of_text = jax.jit(functools.partial(model.apply, train=False, method=model.text_vector))
    self.score_listed = jax.jit(functools.partial(model.apply, method=model.score_listed))

  def compile(self, variables: dict, batches: RankingBatches, whole: bool = False) -> None:
    """Compiles the programs of a call ahead of it; `whole` is one with a file."""
    gallery = batches if whole else self._limited(batches)
    self.prepare(variables, gallery, _Alone(self, gallery))
    if not whole or not self._rerank:
      super().compile(variables, batches, whole)
      return
    shape = len(gallery.gallery.image), len(gallery.gallery.caption)
    pairs = ListedPairs(self, gallery, self._rerank, np.zeros(shape, bool))
    self.prepare(variables, gallery, pairs)

  def __call__(
    self, variables: dict, batches: RankingBatches, path: pathlib.Path | None = None
  ) -> Ranking:
    """Ranks a gallery, as `Ranker` does, by the first stage and, all of it or a part, exactly."""
    if path is None:
      batches = self._limited(batches)
    first = self.first(variables, batches)
    k = self._rerank if path else 0
    listed = shortlist(first, k) if k else np.ones(first.shape, bool)
    if k and jax.process_count() > 1:
      # Rounding might give processes different programs to run.
      listed = multihost_utils.broadcast_one_to_all(listed)
    if listed.all():
      ranking = super().__call__(variables, batches, path)
      return dataclasses.replace(ranking, first=first)
    identity = self.identity(variables, batches) | {'rerank': k}
    pairs = ListedPairs(self, batches, k, listed)
    ranking = self._filled(variables, batches, pairs, path, identity)
    return dataclasses.replace(ranking, first=first, listed=listed)

  def first(self, variables: dict, batches: RankingBatches) -> np.ndarray:
    """Computes the first stage's scores of a gallery, the cosines [I, T] float32.

    Raises:
      UserError: a vector is not finite.
      Stopped: a signal asked for it.
    """
    alone, (rows, real) = _Alone(self, batches), rows_of(batches)
    variables = sharding.whole(self.mesh, variables)
    images = np.empty((len(batches.gallery.image), self.width), np.float32)
    for number, pixels in self.blocks(variables, batches, range(len(rows)), alone):
      images[rows[number]] = gather([self.of_image(variables, *pixels)])[0][real[number]]
    parts = [self.of_text(variables, *chunk) for chunk in alone.chunks]
    texts = np.concatenate(gather(parts))[alone.place]
    scores = images @ texts.T
    return np.minimum(scores, 1, out=scores)  # Rounding may go beyond.


class _Alone(EveryPair):
  """What the first stage needs of a gallery: every image and every caption, but no pair."""

  _ranker: 'TwoStageRanker'

  def prepare(self, variables: dict, batch: dict, place: str = '') -> None:
    """Compiles, and says so, what a block and the captions need by themselves."""
    ranker = self._ranker
    title, pixels = ranker.prepare_images(variables, batch, place)
    ranker.prepare_once(ranker.of_image, variables, *pixels, title=f'{title}, first stage')
    for ids, mask in self.chunks:
      words = f'first stage of {len(ids)} texts of {ids.shape[1]} tokens'
      ranker.prepare_once(ranker.of_text, variables, ids, mask, title=words)


class ListedPairs:
  """Scores the pairs of a shortlist; all others get minus infinity."""

  def __init__(self, ranker: TwoStageRanker, batches: RankingBatches, k: int, listed: np.ndarray):
    """Takes the shortlist [I, T] bool of the best `k` captions and images."""
    self._ranker, self._listed, self._rows = ranker, listed, batches.images
    self._ids, self._mask = batches.tokens(batches.gallery.caption)
    self._length, self._limits = lengths(self._mask)
    images, texts = listed.shape
    self.pairs = round(listed.sum() / images)
    # Captions in a row of a call; about as many as an image has, since the last row is padded.
    self._size = min(ranker.captions, k + -(-k * texts // images))

  def prepare(self, variables: dict, batch: dict, place: str = '') -> None:
    """Compiles, and says so, what a block and its pairs need and no earlier one needed."""
    ranker, split = self._ranker, sharding.batch_sharding(self._ranker.mesh)
    title, pixels = ranker.prepare_images(variables, batch, place)
    image = jax.ShapeDtypeStruct((self._rows,), np.int32, sharding=split)
    for limit in self._limits.tolist():
      shape = self._rows, self._size, limit
      ids, mask = (jax.ShapeDtypeStruct(shape, x, sharding=split) for x in (np.int32, bool))
      words = f'{title} with {self._size} listed texts of {limit} tokens'
      arguments = variables, *pixels, image, ids, mask
      ranker.prepare_once(ranker.score_listed, *arguments, title=words)

  def scores(
    self, variables: dict, pixels: Pixels, rows: np.ndarray, real: np.ndarray
  ) -> np.ndarray:
    """Scores a block, of which the images `real` [B] are the `rows` [R], [R, T]."""
    calls = packed(self._listed[rows], self._length, self._size, self._rows)
    place = np.flatnonzero(real).astype(np.int32)
    parts = []
    for image, text, _ in calls:
      limit = self._limits[np.searchsorted(self._limits, self._length[text].max())]
      arrays = place[image], self._ids[text, :limit], self._mask[text, :limit]
      parts.append(self._ranker.score_listed(variables, *pixels, *map(self._split, arrays)))
    block = np.full((len(rows), self._listed.shape[1]), -np.inf, np.float32)
    for (image, text, counts), scores in zip(calls, gather(parts), strict=True):
      block[np.broadcast_to(image[:, None], text.shape)[counts], text[counts]] = scores[counts]
    return block

  def _split(self, x: np.ndarray) -> jax.Array:
    """Splits an array, which every process has whole, along its first axis."""
    split = sharding.batch_sharding(self._ranker.mesh)
    return jax.make_array_from_callback(x.shape, split, lambda index: x[index])
