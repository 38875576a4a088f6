"""The evaluation of retrieval, which scores every image of a gallery with every caption.

The CNN runs once per image. The devices hold a block of images, split among them, and all captions
in chunks. Each block is scored with each chunk; a chunk has captions of similar length, so that
little is padding, and enough of them to fill the devices. `two_stage.py` scores fewer pairs.
"""

import dataclasses
import functools
import hashlib
import pathlib
import time
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

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
from pixelbert_jax.tasks.chunks import chunk_captions
from pixelbert_jax.tasks.gallery import Gallery, RankingBatches

BLOCK = 16  # images per device at a time; more would only add padding
REPORT_SECONDS = 10

Pixels = tuple[jax.Array, jax.Array]  # of a block of images, from `MatchingModel.embed`


@dataclasses.dataclass(frozen=True)
class Ranking:
  """What an evaluation ranks, and by which scores.

  Attributes:
    matrix: the scores of the matching head.
    gallery: the images and captions of its rows and columns.
    first: [I, T] float32, scores of the first stage, at most 1; None without one.
    listed: [I, T] bool, the pairs that the matching head scored, if these are not all.
  """

  matrix: Matrix
  gallery: Gallery
  first: np.ndarray | None = None
  listed: np.ndarray | None = None


class Pairs(Protocol):
  """Chooses which captions each image is scored with, and scores them."""

  pairs: int  # per image, on average

  def prepare(self, variables: dict, batch: dict, place: str = '') -> None:
    """Compiles what a block of images needs."""

  def scores(
    self, variables: dict, pixels: Pixels, rows: np.ndarray, real: np.ndarray
  ) -> np.ndarray:
    """Scores a block, of which the images `real` [B] are the `rows` [R] of the matrix, [R, T]."""


class Ranker:
  """A scorer of images with captions, compiled once per canvas and caption length."""

  def __init__(
    self, model: MatchingModel, mesh: Mesh, threads: Threads, captions: int, limit: int = 0
  ):
    """Defines the programs, which score a block of images with `captions` captions at a time.

    `limit` bounds the images of a call without a file; they are evenly spread (0: all).
    """
    self._model, self.mesh, self._threads = model, mesh, threads
    self.captions, self._limit = captions, limit

    @jax.jit
    def embed(variables, batch):
      image = model_input(batch, model.backbone.mean, model.backbone.deviation)
      return model.apply(variables, image, batch['size'], method=model.embed)

    self._embed = embed
    self.score = jax.jit(functools.partial(model.apply, method=model.score))
    self.join = jax.jit(functools.partial(jnp.concatenate, axis=1))
    self._compiled, self._embedded = set[tuple](), dict[tuple, Pixels]()

  def compile(self, variables: dict, batches: RankingBatches, whole: bool = False) -> None:
    """Compiles the programs of a call ahead of it; `whole` is one with a file."""
    batches = batches if whole else self._limited(batches)
    self.prepare(variables, batches, EveryPair(self, batches))

  def prepare(self, variables: dict, batches: RankingBatches, pairs: Pairs) -> None:
    """Compiles what the blocks of a gallery need."""
    variables = sharding.abstract(variables, sharding.replicated(self.mesh))
    shapes = batches.shapes(range(len(batches)))
    for number, batch in enumerate(shapes, 1):
      place = f'({number} of {len(shapes)})'
      pairs.prepare(variables, sharding.global_shapes(self.mesh, batch), place)

  def prepare_images(self, variables: dict, batch: dict, place: str = '') -> tuple[str, Pixels]:
    """Compiles the embedding of a block once; returns a title, and what `embed` will return."""
    shape = len(batch['image']), *model_canvas(batch)
    title = f'evaluation, images {"x".join(map(str, shape))}'
    key = shape, batch['image'].shape
    if key not in self._embedded:
      program = compiled(self._embed, variables, batch, title=title, place=place)
      shapes = jax.eval_shape(self._embed, variables, batch)
      self._embedded[key] = sharding.abstract(shapes, program.output_shardings)
    return title, self._embedded[key]

  def prepare_once(self, jitted: Any, *arguments: Any, title: str) -> None:
    """Compiles a program for arguments of these shapes, unless it is compiled."""
    key = jitted, *(x.shape for x in jax.tree.leaves(arguments[1:]))
    if key not in self._compiled:
      compiled(jitted, *arguments, title=title)
      self._compiled.add(key)

  def _limited(self, batches: RankingBatches) -> RankingBatches:
    limit = min(filter(None, (batches.most_images, self._limit)), default=0)
    return dataclasses.replace(batches, most_images=limit)

  def lower(self, variables: dict, batch: dict) -> dict[str, jax.stages.Lowered]:
    """Lowers its programs, by name, for arrays described with their shardings.

    `batch` is a block of images; captions are as long as its texts.
    """
    split, whole = sharding.batch_sharding(self.mesh), sharding.replicated(self.mesh)
    pixels = sharding.abstract(jax.eval_shape(self._embed, variables, batch), split)
    shape = self.captions, batch['token_ids'].shape[-1]
    ids, mask = (jax.ShapeDtypeStruct(shape, kind, sharding=whole) for kind in (jnp.int32, bool))
    return {
      'embedding': self._embed.lower(variables, batch),
      'scoring': self.score.lower(variables, *pixels, ids, mask),
    }

  def __call__(
    self, variables: dict, batches: RankingBatches, path: pathlib.Path | None = None
  ) -> Ranking:
    """Scores the images of a gallery with its captions.

    With `path`, the file that the caller will write the scores to, the whole gallery is scored, and
    finished rows are kept beside that file. A call after a crash resumes at the first unfinished
    block of images, with bitwise equal scores.
    """
    if path is None:
      batches = self._limited(batches)
    identity = self.identity(variables, batches) if path else {}
    return self._filled(variables, batches, EveryPair(self, batches), path, identity)

  def _filled(
    self,
    variables: dict,
    batches: RankingBatches,
    pairs: Pairs,
    path: pathlib.Path | None,
    identity: dict[str, Any],
  ) -> Ranking:
    """Scores pairs; `identity`, which all processes compute, is what the scores depend on."""
    gallery = batches.gallery
    shape = len(gallery.image), len(gallery.caption)
    if path and processes.is_first():
      matrix: Matrix = PartialMatrix(path, identity, shape)
    else:
      matrix = Matrix(shape)
    self.fill(matrix, variables, batches, pairs)
    return Ranking(matrix, gallery)

  def fill(self, matrix: Matrix, variables: dict, batches: RankingBatches, pairs: Pairs) -> None:
    """Scores those images of the gallery that are not in `matrix` yet.

    Raises:
      UserError: a score is not finite.
      Stopped: a signal asked for it; rows that are done stay done.
    """
    _agree(matrix)
    rows, real = rows_of(batches)
    variables = sharding.whole(self.mesh, variables)
    left = [n for n in range(len(rows)) if not matrix.finished[rows[n]].all()]
    progress = Progress(int(matrix.finished.sum()), len(batches.gallery.image), 'images')
    last = time.monotonic()
    for number, pixels in self.blocks(variables, batches, left, pairs):
      matrix.write(rows[number], pairs.scores(variables, pixels, rows[number], real[number]))
      if time.monotonic() - last > REPORT_SECONDS:
        last, done = time.monotonic(), int(matrix.finished.sum())
        progress.show(done, {'pairs/s': progress.examples_per_second(done, pairs.pairs)})

  def blocks(
    self, variables: dict, batches: RankingBatches, numbers: Sequence[int], pairs: Pairs
  ) -> Iterator[tuple[int, Pixels]]:
    """Yields the blocks of images of these numbers, embedded, with their numbers."""
    made = pipeline.read(batches, numbers, self._threads) if numbers else ()
    for number, block in zip(numbers, made, strict=True):
      stopping.leave_if_asked()
      batch = sharding.global_batch(self.mesh, block)
      pairs.prepare(variables, batch)
      yield number, self._embed(variables, batch)

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
      'blocks': [batches.images, self.captions, *self.mesh.devices.shape],
      'device': self.mesh.devices.flat[0].device_kind,
    }


class EveryPair:
  """Scores each image with all captions, in chunks that the devices hold."""

  def __init__(self, ranker: Ranker, batches: RankingBatches):
    """Puts the captions on the devices, in the form that `chunk_captions` returns."""
    ids, mask = batches.tokens(batches.gallery.caption)
    chunks, self.place = chunk_captions(ids, mask, ranker.captions)
    whole = sharding.replicated(ranker.mesh)
    self.chunks = jax.make_array_from_process_local_data(whole, chunks)
    self.pairs, self._ranker = len(ids), ranker

  def prepare(self, variables: dict, batch: dict, place: str = '') -> None:
    """Compiles, and says so, what a block and the captions need and no earlier one needed."""
    title, pixels = self._ranker.prepare_images(variables, batch, place)
    for ids, mask in self.chunks:
      words = f'{title} with {len(ids)} texts of {ids.shape[1]} tokens'
      self._ranker.prepare_once(self._ranker.score, variables, *pixels, ids, mask, title=words)

  def scores(
    self, variables: dict, pixels: Pixels, rows: np.ndarray, real: np.ndarray
  ) -> np.ndarray:
    """Scores a block, of which the images `real` [B] count, with all captions."""
    parts = [self._ranker.score(variables, *pixels, *chunk) for chunk in self.chunks]
    (block,) = gather([self._ranker.join(parts)])
    return block[real][:, self.place]


def gather(parts: list[jax.Array]) -> list[np.ndarray]:
  """Gathers arrays, whole or split along their first axis, from all processes.

  Raises:
    UserError: a number is not finite.
  """
  arrays = [multihost_utils.process_allgather(x, tiled=True) for x in parts]
  if not all(np.isfinite(x).all() for x in arrays):
    raise UserError(
      'scores of images with captions are not finite: the model has diverged, take another step'
    )
  return arrays


def rows_of(batches: RankingBatches) -> tuple[list[np.ndarray], np.ndarray]:
  """Returns the rows of the images of each block, and which of its images count, [S, B] bool."""
  plan = batches.plan(0)
  real, row = plan.weight[..., 0] > 0, np.searchsorted(batches.gallery.image, plan.image)
  return [r[counts] for r, counts in zip(row, real, strict=True)], real


def _agree(matrix: Matrix) -> None:
  """Copies the rows that the first process has from an earlier run to all processes."""
  if jax.process_count() == 1:
    return
  finished = multihost_utils.broadcast_one_to_all(matrix.finished)
  if finished.any():
    scores = multihost_utils.broadcast_one_to_all(np.asarray(matrix.scores))
    if not processes.is_first():
      matrix.write(np.flatnonzero(finished), scores[finished])
