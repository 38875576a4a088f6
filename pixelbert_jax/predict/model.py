"""A trained model for your own images: `load` one, then call its methods.

Images are paths, Pillow images or uint8 arrays, one or several, of any sizes. The result for one
image does not depend on the others in the same call.
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
from pixelbert_jax.convert import importer
from pixelbert_jax.experiment import make_model, make_task
from pixelbert_jax.input import text as text_lib
from pixelbert_jax.input.canvases import Canvases
from pixelbert_jax.input.image import ImageError
from pixelbert_jax.input.text import TextError, Tokenizer, Tokens, tokens_of
from pixelbert_jax.predict import FLAGS, HEADS, heatmap
from pixelbert_jax.predict import photos as photos_lib
from pixelbert_jax.predict.heatmap import Heatmap
from pixelbert_jax.predict.photos import Photo
from pixelbert_jax.predict.runner import Encoded, Runner, check_finite, probability
from pixelbert_jax.tasks.labels import Labels
from pixelbert_jax.tasks.vqa import Vqa

Photos = Photo | Sequence[Photo]
Texts = str | Sequence[str]
Answers = list[list[tuple[str, float]]]


class HeadError(UserError):
  """The error that a checkpoint lacks the head for a method; the message lists what it can do."""


def load(spec: str | os.PathLike, batch_size: int = 16) -> 'Model':
  """Loads the model of a checkpoint; warns if it was not trained on photographs.

  Args:
    spec: a workdir, WORKDIR@STEP, the output of `convert`, or an address on the hub (hf://USER/NAME).
    batch_size: images, and pairs, that are computed at once.

  Raises:
    CheckpointError: the checkpoint does not exist or is damaged.
    UserError: it is a CNN alone, or `batch_size` is not a whole number of at least 1.
  """
  check_number('batch_size', batch_size)
  place = str(spec)
  exported = checkpoint.is_export(place)
  loaded = importer.load_export(place)[0] if exported else checkpoint.load(spec)
  model = Model(loaded, batch_size)
  if model.note:
    warnings.warn(model.note, stacklevel=2)
  return model


class Model:
  """A trained model; it computes in float32, whatever dtype it was trained in.

  Attributes:
    config: the configuration of the run that trained it.
    module: the Flax module, one of `models/heads.py`.
    variables: `params` and the statistics of BatchNorm.
    params: its parameters.
    answers: the answers that it chooses from; empty if it answers no questions.
    trained_on: names of datasets; empty if it was converted from weights and not yet trained.
    note: a caveat about all its results; '' if there is none.
    heads: which of `answer`, `match` and `fill` it has.
    folder: of its checkpoint.
    tokenizer: of its vocabulary.
    runner: what computes, given images and tokens (`predict/runner.py`).
  """

  def __init__(self, loaded: checkpoint.Loaded, batch_size: int = 16):
    self.config = ConfigDict(loaded.config)
    task = make_task(self.config, files=loaded.files)
    if isinstance(task, Labels):
      raise UserError(
        f'{loaded.folder} is of labels, a CNN that reads no texts: train a model from it first, by '
        f'`python -m pixelbert_jax.main --config=configs/pretrain.py --config.init_from='
        f'{loaded.folder}`'
      )
    self.answers = task.answers if isinstance(task, Vqa) else []
    self.trained_on = provenance.datasets(loaded.files, loaded.config)
    self.note = provenance.caveat(self.trained_on)
    self.folder = loaded.folder
    self.tokenizer = Tokenizer(loaded.vocabulary, self.config.text.length)
    c = self.config.copy_and_resolve_references()
    c.dtype = 'float32'
    self.module = make_model(c, len(self.tokenizer.words), task)
    self.variables = jax.device_put(loaded.variables)
    self.params = self.variables['params']
    self.heads = [name for name, array in HEADS.items() if array in self.params]
    shapes = tuple(tuple(shape) for shape in c.image.canvases if len(shape) == 2)
    canvases = Canvases(c.image.shorter, c.image.longer, shapes)
    reader = photos_lib.Reader(canvases, c.cnn.total_stride)
    self.runner = Runner(self.module, self.variables, reader, batch_size)

  def answer(self, images: Photos, questions: Texts, k: int = 5) -> Answers:
    """Returns the k most likely answers to each question, with their scores in 0..1.

    Args:
      images: as many as questions; a single image, or a single question, goes with all others.
      questions: one or several.
      k: number of answers, at least 1; all are returned if there are fewer.

    Raises:
      HeadError: the checkpoint answers no questions.
      ImageError, TextError: an image or a question cannot be used.
      UserError: another argument cannot be used.
    """
    check_number('k', k)
    return self._rows('answer', images, questions, lambda row: _best(row, self.answers, k))

  def match(
    self, images: Photos, texts: Texts, pairs: bool = False, logits: bool = False
  ) -> np.ndarray:
    """Computes the probabilities that texts are true of images; raises what `answer` raises.

    Args:
      images: I of them.
      texts: T of them.
      pairs: pair image n with text n, as `answer` does, instead of all with all.
      logits: return logits instead of probabilities.

    Returns:
      [I, T] float32; with `pairs` [N].
    """
    _check_switch('pairs', pairs)
    _check_switch('logits', logits)
    images, texts = photos_lib.listed(images), text_lib.listed(texts)
    values = np.array(self._rows('match', images, texts, pairs=pairs), np.float32)
    values = values if pairs else values.reshape(len(images), len(texts))
    return values if logits else probability(values)

  def fill(self, images: Photos, texts: Texts, k: int = 5) -> Answers:
    """Returns the k most likely words for the one [MASK] of each text, with their probabilities.

    Arguments and errors are those of `answer`. Probabilities are over the whole vocabulary. With a
    vocabulary of word pieces, a word such as '##s' continues the one before it.
    """
    self.need('fill')
    check_number('k', k)
    texts, ordinary = text_lib.listed(texts), np.flatnonzero(~self.tokenizer.special)
    words = [self.tokenizer.words[i] for i in ordinary]
    masks = (tokens_of(self.tokenizer, texts).ids == self.tokenizer.mask_id).sum(1)
    for text, count in zip(texts, masks, strict=True):
      if count != 1:
        raise TextError(f'{text!r} has {count or "no"} [MASK]: write one, for the hidden word')
    return self._rows('fill', images, texts, lambda row: _best(row[ordinary], words, k))

  def heatmap(self, image: Photo, text: str, method: str = 'attention') -> Heatmap:
    """Computes where each word of a text looks in an image, and where the text's score comes from.

    The score is the logit of the best answer, of the best hidden word (for a text with a [MASK]),
    or of the match; its map is by gradient. docs/predict.md says how the methods compare.

    Args:
      image: one image.
      text: one text.
      method: of the maps of words: 'attention', its mean over heads and layers; 'rollout' of the
        attention through the layers; or 'gradient', the attention weighted by the score's gradient.

    Raises:
      ImageError, TextError: the image or the text cannot be used.
      UserError: the method is none of these, or is 'gradient' and the model scores no single image.
    """
    heatmap.check_method(method, bool(self.heads))
    tokens = tokens_of(self.tokenizer, [text])
    words, places = zip(*self.tokenizer.read(text)[0], strict=True)
    head, names = self.score_of(tokens)
    allowed = ~self.tokenizer.special if head == 'fill' else np.ones(len(names), bool)
    found = self.runner.attention(image, tokens, head, allowed)
    attention, relevance = heatmap.heat(method, found.weights, found.gradients)
    cells, more = heatmap.of_words(attention, places, found.mask), {}
    if relevance is not None:
      read = [tokens.place[0] if head == 'fill' else 0]
      more['score_cells'] = heatmap.of_words(relevance, [read], found.mask)[0]
      more['score'] = names[found.best]
    pixels, cnn = photos_lib.pixels_of(image), self.module.backbone.cnn
    rows, columns = (
      heatmap.cell_places(side, seen, cnn.total_stride, cnn.first_centre)
      for side, seen in zip(pixels.shape[:2], found.placed.size, strict=True)
    )
    return Heatmap(words, cells, pixels, rows, columns, note=self.note, title=text, **more)

  def unknown_words(self, text: str) -> list[str]:
    """Lists the words of a text that its vocabulary lacks, as written, each once."""
    return self.tokenizer.unknown(text)

  def score_of(self, tokens: Tokens) -> tuple[str | None, list[str]]:
    """Returns the head whose best output is the score of a text, and what to call each output.

    The head is None where none scores single images. `tokens` are [1, T].
    """
    if 'fill' in self.heads and (tokens.ids == self.tokenizer.mask_id).any():
      return 'fill', [f'[MASK] is "{word}"' for word in self.tokenizer.words]
    if 'answer' in self.heads:
      return 'answer', [f'answer "{answer}"' for answer in self.answers]
    return ('match', ['match']) if 'match' in self.heads else (None, [])

  def need(self, head: str) -> None:
    """Raises HeadError if it lacks a head, one of HEADS."""
    if head not in self.heads:
      can = ', '.join(f'{name} ({FLAGS[name]})' for name in self.heads)
      raise HeadError(
        f'{self.folder} is of {self.config.name} and cannot {head} ({FLAGS[head]}): it can '
        f'{can or "draw heat maps and encode, from Python"}'
      )

  def pixel_features(self, images: np.ndarray) -> np.ndarray:
    """Computes the CNN's features [B, h, w, C] float32, before the projection.

    Args:
      images: [B, H, W, 3] float, normalised (`input/image.py: normalise`), used at this size.

    Raises:
      ImageError: `images` has another shape or dtype.
    """
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[-1] != 3 or images.dtype.kind != 'f':
      raise ImageError(
        f'pixel_features: expected normalised floats [batch, height, width, 3], got an array '
        f'{list(images.shape)} of {images.dtype}'
      )
    if not images.size or not np.isfinite(images).all():
      fault = 'numbers that are not finite' if images.size else f'no pixels, {list(images.shape)}'
      raise ImageError(f'pixel_features: got an array of {fault}: give whole images')
    return self.runner.features(images.astype(np.float32))

  def encode(self, images: Photos | None, texts: Texts) -> Encoded:
    """Encodes pairs to contextual tokens and pixels.

    Arguments and errors are those of `answer`. With `images=None` the Transformer gets the texts
    alone.
    """
    if images is None:
      tokens = tokens_of(self.tokenizer, text_lib.listed(texts))
      rows = [row for out in self.runner.texts(tokens) for row in zip(*out, strict=True)]
    else:
      rows = self._rows('encode', images, texts)
    if not rows:
      raise TextError('encode: nothing to encode; give a text')
    return Encoded.of(rows)

  def _rows(
    self,
    head: str,
    images: Photos,
    texts: Texts,
    finish: Callable = lambda row: row,
    pairs: bool = True,
  ) -> list[Any]:
    """Runs a head on image n with text n, or on all with all, image by image.

    Applies `finish` to each row as it arrives.
    """
    images, texts = photos_lib.listed(images), text_lib.listed(texts)
    if not pairs:
      image, text = np.indices((len(images), len(texts))).reshape(2, -1)
    elif len(images) == len(texts) or 1 in (len(images), len(texts)):
      image, text = np.broadcast_arrays(np.arange(len(images)), np.arange(len(texts)))
    else:
      raise TextError(
        f'{len(images)} images with {len(texts)} texts: give equal numbers, or one of either'
      )
    if head in HEADS:
      self.need(head)
    images, which = photos_lib.distinct(images)
    image, rows = np.array(which, int)[image], [None] * len(image)
    tokens = tokens_of(self.tokenizer, texts)
    for numbers, out in self.runner.pairs(head, images, tokens, image, text):
      check_finite(out, self.folder)
      several = zip(*out, strict=True) if isinstance(out, tuple) else out
      for number, row in zip(numbers.tolist(), several, strict=True):
        rows[number] = finish(row)
    return rows


def check_number(name: str, value: Any) -> None:
  """Raises UserError if an argument is not a whole number of at least 1."""
  if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
    raise UserError(f'{name}={value!r}: give a whole number of at least 1')


def _check_switch(name: str, value: Any) -> None:
  if not isinstance(value, bool | np.bool_):
    raise UserError(f'{name}={value!r}: give True or False')


def _best(probability: np.ndarray, names: Sequence[str], k: int) -> list[tuple[str, float]]:
  order = np.argsort(-probability, kind='stable')[:k]
  return [(names[i], float(probability[i])) for i in order]
