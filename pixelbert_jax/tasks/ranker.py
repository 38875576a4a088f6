"""The evaluation of retrieval, which scores every image of a gallery with every caption.

The CNN runs once per image. The devices hold a block of images, split among them, and all captions
in chunks. Each block is scored with each chunk; a chunk has captions of similar length, so that
little is padding, and enough of them to fill the devices.
"""

import dataclasses
import functools
import hashlib
import pathlib
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from pixelbert_jax import UserError, processes, sharding, stopping
from pixelbert_jax.checkpoints.checksum import checksums
from pixelbert_jax.compilation import compiled
from pixelbert_jax.input import pipeline
from pixelbert_jax.input.image import model_canvas, model_input
from pixelbert_jax.input.pipeline import Threads
from pixelbert_jax.metrics import Progress
from pixelbert_jax.models.heads import MatchingModel
from pixelbert_jax.score.partial import Matrix, PartialMatrix
from pixelbert_jax.tasks.gallery import Gallery, RankingBatches

BLOCK = 16  # images per device at a time; more would only add padding
# Captions are padded to one of these quantiles of their lengths; each costs a compiled program.
QUANTILES = (0.5, 0.95, 1.0)
REPORT_SECONDS = 10


class Ranker:
  """A scorer of images with captions, compiled once per canvas and caption length."""

  def __init__(
    self, model: MatchingModel, mesh: Mesh, threads: Threads, captions: int, limit: int = 0
  ):
    """Defines the programs, which score a block of images with `captions` captions at a time.

    `limit` bounds the images of a call without a file; they are evenly spread (0: all).
    """
    self._model, self._mesh, self._threads = model, mesh, threads
    self._captions, self._limit = captions, limit

    @jax.jit
    def embed(variables, batch):
      image = model_input(batch, model.backbone.mean, model.backbone.deviation)
      return model.apply(variables, image, batch['size'], method=model.embed)

    self._embed = embed
    self._score = jax.jit(functools.partial(model.apply, method=model.score))
    self._join = jax.jit(functools.partial(jnp.concatenate, axis=1))
    self._compiled = set[tuple]()

  def compile(self, variables: dict, batches: RankingBatches, whole: bool = False) -> None:
    """Compiles the programs of a call ahead of it; `whole` is one with a file."""
    batches = batches if whole else self._limited(batches)
    chunks, _ = self._chunks(batches)
    variables = sharding.abstract(variables, sharding.replicated(self._mesh))
    shapes = batches.shapes(range(len(batches)))
    for number, batch in enumerate(shapes, 1):
      place = f'({number} of {len(shapes)})'
      self._prepare(variables, sharding.global_shapes(self._mesh, batch), chunks, place)

  def _prepare(self, variables: dict, batch: dict, chunks: list, place: str = '') -> None:
    """Compiles, and says so, what a batch and the captions need and no earlier one needed."""
    shape = len(batch['image']), *model_canvas(batch)
    key, pixels = (shape, batch['image'].shape), None
    title = f'evaluation, images {"x".join(map(str, shape))}'
    for ids, mask in chunks:
      if (*key, ids.shape) in self._compiled:
        continue
      if pixels is None:
        embed = compiled(self._embed, variables, batch, title=title, place=place)
        shapes = jax.eval_shape(self._embed, variables, batch)
        pixels = sharding.abstract(shapes, embed.output_shardings)
      words = f'{title} with {len(ids)} texts of {ids.shape[1]} tokens'
      compiled(self._score, variables, *pixels, ids, mask, title=words)
      self._compiled.add((*key, ids.shape))

  def _limited(self, batches: RankingBatches) -> RankingBatches:
    limit = min(filter(None, (batches.most_images, self._limit)), default=0)
    return dataclasses.replace(batches, most_images=limit)

  def lower(self, variables: dict, batch: dict) -> dict[str, jax.stages.Lowered]:
    """Lowers its programs, by name, for arrays described with their shardings.

    `batch` is a block of images; captions are as long as its texts.
    """
    split, whole = sharding.batch_sharding(self._mesh), sharding.replicated(self._mesh)
    pixels = sharding.abstract(jax.eval_shape(self._embed, variables, batch), split)
    shape = self._captions, batch['token_ids'].shape[-1]
    ids, mask = (jax.ShapeDtypeStruct(shape, kind, sharding=whole) for kind in (jnp.int32, bool))
    return {
      'embedding': self._embed.lower(variables, batch),
      'scoring': self._score.lower(variables, *pixels, ids, mask),
    }

  def __call__(
    self, variables: dict, batches: RankingBatches, path: pathlib.Path | None = None
  ) -> tuple[Matrix, Gallery]:
    """Scores the images of a gallery with its captions.

    With `path`, the file that the caller will write the scores to, the whole gallery is scored, and
    finished rows are kept beside that file. A call after a crash resumes at the first unfinished
    block of images, with bitwise equal scores.

    Returns:
      The matrix of scores [I, T], and the gallery of its rows and columns.
    """
    if path is None:
      batches = self._limited(batches)
    gallery = batches.gallery
    shape = len(gallery.image), len(gallery.caption)
    if path is None:
      matrix = Matrix(shape)
    else:
      identity = self.identity(variables, batches)  # computed by all processes
      matrix = PartialMatrix(path, identity, shape) if processes.is_first() else Matrix(shape)
    self.fill(matrix, variables, batches)
    return matrix, gallery

  def fill(self, matrix: Matrix, variables: dict, batches: RankingBatches) -> None:
    """Scores those images of the gallery that are not in `matrix` yet.

    Raises:
      UserError: a score is not finite.
      Stopped: a signal asked for it; rows that are done stay done.
    """
    _agree(matrix)
    plan, gallery = batches.plan(0), batches.gallery
    variables = sharding.whole(self._mesh, variables)
    real, row = plan.weight[..., 0] > 0, np.searchsorted(gallery.image, plan.image)
    rows = [r[counts] for r, counts in zip(row, real, strict=True)]
    left = [n for n in range(len(plan)) if not matrix.finished[rows[n]].all()]
    chunks, place = self._chunks(batches)
    progress = Progress(int(matrix.finished.sum()), len(gallery.image), 'images')
    blocks = pipeline.read(batches, left, self._threads) if left else ()
    last = time.monotonic()
    for number, made in zip(left, blocks, strict=True):
      stopping.leave_if_asked()
      batch = sharding.global_batch(self._mesh, made)
      self._prepare(variables, batch, chunks)
      pixels = self._embed(variables, batch)
      parts = [self._score(variables, *pixels, *chunk) for chunk in chunks]
      block = multihost_utils.process_allgather(self._join(parts), tiled=True)
      scores = block[real[number]][:, place]
      if not np.isfinite(scores).all():
        raise UserError(
          'scores of images with captions are not finite: the model has diverged, take another step'
        )
      matrix.write(rows[number], scores)
      if time.monotonic() - last > REPORT_SECONDS:
        last, done = time.monotonic(), int(matrix.finished.sum())
        speed = progress.examples_per_second(done, len(gallery.caption))
        progress.show(done, {'pairs/s': speed})

  def _chunks(
    self, batches: RankingBatches
  ) -> tuple[list[tuple[jax.Array, jax.Array]], np.ndarray]:
    """Puts the captions on the devices, in the form that `chunk_captions` returns."""
    ids, mask = batches.tokens(batches.gallery.caption)
    chunks, place = chunk_captions(ids, mask, self._captions)
    whole = sharding.replicated(self._mesh)
    return jax.make_array_from_process_local_data(whole, chunks), place

  def identity(self, variables: dict, batches: RankingBatches) -> dict[str, Any]:
    """Describes everything that the scores depend on, to the last bit."""
    sidecar, gallery = batches.split.sidecar, batches.gallery
    inputs = hashlib.sha256()
    for array in (
      *(sidecar.image_id[gallery.image], sidecar.size[gallery.image]),
      *batches.tokens(gallery.caption),
    ):
      inputs.update(np.ascontiguousarray(array).tobytes())
    return {
      'arrays': checksums(variables),
      'model': repr(self._model),
      'shown': inputs.hexdigest(),
      'canvases': repr(batches.canvases),
      'blocks': [batches.images, self._captions, *self._mesh.devices.shape],
      'device': self._mesh.devices.flat[0].device_kind,
    }


def chunk_captions(
  ids: np.ndarray, mask: np.ndarray, size: int
) -> tuple[list[tuple[np.ndarray, np.ndarray]], np.ndarray]:
  """Groups captions by length into chunks, padded only to the next of a few lengths.

  Args:
    ids: [N, T] int, token ids.
    mask: [N, T] bool, False for padding.
    size: captions per chunk; the last chunk of a length is padded with that length's first caption.

  Returns:
    The chunks, each ids and mask [size, t], and the place [N] int of each caption in the
    concatenation of all chunks.
  """
  length = ids.shape[1] - mask[:, ::-1].argmax(axis=1)
  limits = np.unique(np.quantile(length, QUANTILES, method='higher'))
  bucket = np.searchsorted(limits, length)
  chunks, place = list[tuple[np.ndarray, np.ndarray]](), np.empty(len(ids), int)
  for number, limit in enumerate(limits):
    members = np.flatnonzero(bucket == number)
    members = members[np.argsort(length[members], kind='stable')]
    place[members] = len(chunks) * size + np.arange(len(members))
    filled = np.append(members, np.repeat(members[:1], -len(members) % size))
    for part in filled.reshape(-1, size):
      chunks.append((ids[part, :limit], mask[part, :limit]))
  return chunks, place


def _agree(matrix: Matrix) -> None:
  """Copies the rows that the first process has from an earlier run to all processes."""
  if jax.process_count() == 1:
    return
  finished = multihost_utils.broadcast_one_to_all(matrix.finished)
  if finished.any():
    scores = multihost_utils.broadcast_one_to_all(np.asarray(matrix.scores))
    if not processes.is_first():
      matrix.write(np.flatnonzero(finished), scores[finished])
