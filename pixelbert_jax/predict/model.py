"""A trained model on one's own images: `load` one, then call its methods.

Images are paths, Pillow images or uint8 arrays, one or several, of any sizes. What comes out for
one of them does not depend on what else is asked for in the same call.
"""

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from pixelbert_jax import UserError
from pixelbert_jax.checkpoints import checkpoint, provenance
from pixelbert_jax.experiment import make_model, make_task
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.image import ImageError
from pixelbert_jax.input.text import TextError, Tokenizer, tokens_of
from pixelbert_jax.predict import heatmap
from pixelbert_jax.predict import photos as photos_lib
from pixelbert_jax.predict.heatmap import Heatmap
from pixelbert_jax.predict.photos import Photo
from pixelbert_jax.predict.runner import Encoded, Runner
from pixelbert_jax.tasks.vqa import Vqa

Photos = Photo | Sequence[Photo]
Texts = str | Sequence[str]
Answers = list[list[tuple[str, float]]]

# What each method needs among a checkpoint's parameters, and its flag.
HEADS = {'answer': 'vqa', 'match': 'itm', 'fill': 'mlm_bias'}
FLAGS = {'answer': '--question', 'match': '--text', 'fill': '--fill'}


class HeadError(UserError):
  """A checkpoint that cannot do what it is asked; the message says what it can."""


def load(spec: str | os.PathLike, batch_size: int = 16) -> 'Model':
  """The model of a checkpoint; warns where it knows no photographs.

  Args:
    spec: a workdir, WORKDIR@STEP, or the output of `convert`.
    batch_size: images, and pairs, that are computed at once.

  Raises:
    CheckpointError: there is no such checkpoint, or none that is whole.
  """
  model = Model(checkpoint.load(spec), batch_size)
  if model.note:
    warnings.warn(model.note, stacklevel=2)
  return model


class Model:
  """A trained model. It computes in float32, whatever it was trained in.

  Attributes:
    config: of the run that trained it.
    module: the Flax module, one of `models/heads.py`.
    params: its parameters; with the statistics of BatchNorm they are `variables`.
    answers: that it chooses from, if it answers questions.
    trained_on: names of datasets; none where it was put together from weights and not trained.
    note: what to keep in mind of all it says; '' if nothing.
    heads: which of `answer`, `match` and `fill` it has.
  """

  def __init__(self, loaded: checkpoint.Loaded, batch_size: int = 16):
    self.config = ConfigDict(loaded.config)
    task = make_task(self.config, files=loaded.files)
    self.answers = task.answers if isinstance(task, Vqa) else []
    self.trained_on = provenance.datasets(loaded.files, loaded.config)
    self.note = provenance.caveat(self.trained_on)
    self._folder = loaded.folder
    self._tokenizer = Tokenizer(loaded.vocabulary, self.config.text.length)
    c = self.config.copy_and_resolve_references()
    c.dtype = 'float32'
    self.module = make_model(c, len(self._tokenizer.words), task)
    self.variables = jax.device_put(loaded.variables)
    self.params = self.variables['params']
    self.heads = [name for name, array in HEADS.items() if array in self.params]
    shapes = tuple(map(tuple, c.image.canvases))
    canvases = Canvases(c.image.shorter, c.image.longer, shapes)
    reader = photos_lib.Reader(canvases, c.cnn.total_stride)
    self._runner = Runner(self.module, self.variables, reader, batch_size)

  def answer(self, images: Photos, questions: Texts, k: int = 5) -> Answers:
    """The k likeliest answers of the list to each question, with their probabilities.

    Args:
      images: as many as questions; or one, or one question, for all of the others.
      questions: one or several.
      k: how many answers.

    Raises:
      HeadError: the checkpoint answers no questions.
      ImageError, TextError: one of these cannot be used.
    """
    return self._beside('answer', images, questions, lambda row: _best(row, self.answers, k))

  def match(
    self, images: Photos, texts: Texts, pairs: bool = False, logits: bool = False
  ) -> np.ndarray:
    """How probable it is that texts are true of images; errors as of `answer`.

    Args:
      images: I of them.
      texts: T of them.
      pairs: take each image with the text beside it, as `answer` does, not all with all.
      logits: give those instead of probabilities.

    Returns:
      [I, T] float32; with `pairs` [N].
    """
    if pairs:
      found = np.array(self._beside('match', images, texts), np.float32)
    else:
      images, texts = photos_lib.listed(images), _listed(texts)
      image, text = np.indices((len(images), len(texts))).reshape(2, -1)
      found = np.array(self._rows('match', images, texts, image=image, text=text), np.float32)
      found = found.reshape(len(images), len(texts))
    return found if logits else 0.5 + 0.5 * np.tanh(0.5 * found)

  def fill(self, images: Photos, texts: Texts, k: int = 5) -> Answers:
    """The k likeliest words under the one [MASK] of each text; arguments, errors as of `answer`.

    Probabilities are over the whole vocabulary. Where that is of pieces, '##s' ends a word.
    """
    self._need('fill')
    texts, ordinary = _listed(texts), np.flatnonzero(~self._tokenizer.special)
    words = [self._tokenizer.words[i] for i in ordinary]
    masks = (tokens_of(self._tokenizer, texts).ids == self._tokenizer.mask_id).sum(1)
    for text, count in zip(texts, masks, strict=True):
      if count != 1:
        raise TextError(f'{text!r} has {count or "no"} [MASK]: write one, for the hidden word')
    return self._beside('fill', images, texts, lambda row: _best(row[ordinary], words, k))

  def heatmap(
    self, image: Photo, text: str, layers: int | None = None, rollout: bool = False
  ) -> Heatmap:
    """How much each word of a text attends to each place of an image, as a mean over heads.

    Args:
      image: one.
      text: one.
      layers: how many of the last layers the mean is over, too; all, as by default, find a phrase's
        object most often (docs/predict.md).
      rollout: the attention through all layers instead (`heatmap.rollout`).

    Raises:
      ImageError, TextError: one of these cannot be used.
    """
    tokens = tokens_of(self._tokenizer, [text])
    weights, mask, placed = self._runner.attention(image, tokens)
    seen = heatmap.rollout(weights) if rollout else heatmap.mean_of_last(weights, layers)
    words, places = zip(*self._tokenizer.read(text)[0], strict=True)
    cells = heatmap.of_words(seen, places, mask)
    whole, cnn = photos_lib.pixels_of(image), self.module.backbone.cnn
    rows, columns = (
      heatmap.cell_places(own, side, cnn.total_stride, cnn.first_centre)
      for own, side in zip(whole.shape[:2], placed.size, strict=True)
    )
    return Heatmap(words, cells, whole, rows, columns, note=self.note, title=text)

  def pixel_features(self, images: np.ndarray) -> np.ndarray:
    """Features [B, h, w, C] of the CNN, before the projection.

    Args:
      images: [B, H, W, 3] float, normalised (`input/image.py: normalise`), at the size at which
        the model shall see them.

    Raises:
      ImageError: they are something else.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype.kind != 'f':
      raise ImageError(
        f'pixel_features: an array {list(images.shape)} of {images.dtype}: give normalised floats '
        '[batch, height, width, 3]'
      )
    return self._runner.features(images.astype(np.float32))

  def encode(self, images: Photos | None, texts: Texts) -> Encoded:
    """Contextual tokens and pixels of pairs; arguments and errors as of `answer`.

    Without images the Transformer is given the texts alone.
    """
    if images is None:
      tokens = tokens_of(self._tokenizer, _listed(texts))
      rows = [row for out in self._runner.texts(tokens) for row in zip(*out, strict=True)]
    else:
      rows = self._beside('encode', images, texts)
    if not rows:
      raise TextError('encode: there is nothing to encode, give a text')
    return Encoded.of(rows)

  def _need(self, head: str) -> None:
    if head not in self.heads:
      can = ', '.join(f'{name} ({FLAGS[name]})' for name in self.heads)
      raise HeadError(
        f'{self._folder} is of {self.config.name} and cannot {head} ({FLAGS[head]}): it can '
        f'{can or "give heat maps and encode, from Python"}'
      )

  def _beside(
    self, head: str, images: Photos, texts: Texts, finish: Callable = lambda row: row
  ) -> list[Any]:
    """A head's rows for images and the texts beside them, each at once finished."""
    images, texts = photos_lib.listed(images), _listed(texts)
    if 1 not in (len(images), len(texts)) and len(images) != len(texts):
      raise TextError(f'{len(images)} images with {len(texts)} texts: give as many, or one')
    image, text = np.broadcast_arrays(np.arange(len(images)), np.arange(len(texts)))
    return self._rows(head, images, texts, image=image, text=text, finish=finish)

  def _rows(
    self,
    head: str,
    images: list[Photo],
    texts: list[str],
    *,
    image: np.ndarray,
    text: np.ndarray,
    finish: Callable = lambda row: row,
  ) -> list[Any]:
    """As `_beside`, for pairs of image [N] and text [N], by number."""
    if head in HEADS:
      self._need(head)
    images, which = photos_lib.distinct(images)
    image, rows = np.array(which, int)[image], [None] * len(image)
    tokens = tokens_of(self._tokenizer, texts)
    for numbers, out in self._runner.pairs(head, images, tokens, image, text):
      several = zip(*out, strict=True) if isinstance(out, tuple) else out
      for number, row in zip(numbers.tolist(), several, strict=True):
        rows[number] = finish(row)
    return rows


def _listed(texts: Texts) -> list[str]:
  return [texts] if isinstance(texts, str) else list(texts)


def _best(probability: np.ndarray, names: Sequence[str], k: int) -> list[tuple[str, float]]:
  order = np.argsort(-probability, kind='stable')[:k]
  return [(names[i], float(probability[i])) for i in order]
