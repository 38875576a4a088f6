"""The runner: runs a model in fixed shapes over any number of images and texts of any sizes.

Images are grouped by canvas, pairs by image. Partial batches are padded, and the results of the
padding are discarded. BatchNorm uses running statistics, so rows do not influence each other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from pixelbert_jax import UserError
from pixelbert_jax.checkpoints.checksum import not_finite
from pixelbert_jax.input.image import model_input
from pixelbert_jax.input.text import Tokens
from pixelbert_jax.models.heads import Model
from pixelbert_jax.predict import photos as photos_lib
from pixelbert_jax.predict.photos import Photo, Placed, Reader

Array = jax.Array
Seen = tuple[Array | np.ndarray, Array | np.ndarray]  # pixels [B, P, D] and their mask [B, P]


class Pairs(NamedTuple):
  """N encoded pairs: tokens [N, T, D] and pixels [N, P, D] with their masks.

  `place` [N] is the position of the [MASK] in each text.
  """

  tokens: Array
  token_mask: Array
  pixels: Array
  pixel_mask: Array
  place: Array


QUIET = 3.0  # seconds before progress is shown

# By head: the logits [N, C] of what it chooses from.
LOGITS: dict[str, Callable[[Model, Pairs], Array]] = {
  'answer': lambda m, pairs: m.answer(pairs.tokens),
  'match': lambda m, pairs: m.match(pairs.tokens)[:, None],
  'fill': lambda m, pairs: m.fill(
    jnp.take_along_axis(pairs.tokens, pairs.place[:, None, None], axis=1)[:, 0]
  ),
}
HEADS: dict[str, Callable[[Model, Pairs], Any]] = {
  'answer': lambda m, pairs: jax.nn.sigmoid(LOGITS['answer'](m, pairs)),
  'match': lambda m, pairs: LOGITS['match'](m, pairs)[:, 0],
  'fill': lambda m, pairs: jax.nn.softmax(LOGITS['fill'](m, pairs)),
  'encode': lambda m, pairs: pairs[:4],
}


@dataclasses.dataclass(frozen=True)
class Encoded:
  """The Transformer's outputs for B pairs of T tokens and P pixels (cells of the feature map).

  Attributes:
    text: [B, T, D] float32.
    pixels: [B, P, D] float32; P is that of the largest canvas among the images.
    text_mask, pixel_mask: [B, T] and [B, P] bool, False for padding, where the outputs are 0.
  """

  text: np.ndarray
  pixels: np.ndarray
  text_mask: np.ndarray
  pixel_mask: np.ndarray

  @classmethod
  def of(cls, rows: Sequence[tuple[np.ndarray, ...]]) -> 'Encoded':
    """Stacks the rows that the head `encode` returns, padded to one number of pixels."""
    text, text_mask, pixels, pixel_mask = zip(*rows, strict=True)
    length = max(map(len, pixel_mask))
    text_mask = np.stack(text_mask)
    pixel_mask = np.stack([np.pad(mask, (0, length - len(mask))) for mask in pixel_mask])
    pixels = np.stack([np.pad(x, ((0, length - len(x)), (0, 0))) for x in pixels])
    text = np.where(text_mask[..., None], np.stack(text), 0)
    return cls(text, np.where(pixel_mask[..., None], pixels, 0), text_mask, pixel_mask)


class Watched(NamedTuple):
  """The attention of one text and one photo.

  Attributes:
    weights: [L, H, S, S] with S = T + P.
    gradients: of the best logit with respect to them; None without a head.
    best: the number of the best logit's output; 0 without a head.
    mask: [h, w] bool, False for padding.
    placed: the photo.
  """

  weights: np.ndarray
  gradients: np.ndarray | None
  best: int
  mask: np.ndarray
  placed: Placed


class Runner:
  """A runner of a module of `models/heads.py`, compiled once per shape.

  The shapes are one per canvas and batch size, which is `batch_size`, or 1 for a single image or
  pair.

  Attributes:
    reader: places images.
    size: `batch_size`.
  """

  def __init__(self, module: Model, variables: dict, reader: Reader, batch_size: int):
    self.reader, self.size, self._variables = reader, batch_size, variables
    backbone = module.backbone
    self._resize = jax.jit(
      functools.partial(model_input, mean=backbone.mean, deviation=backbone.deviation)
    )

    def compiled(method: Callable, **options: Any) -> Callable:
      return jax.jit(functools.partial(module.apply, method=method, **options))

    self._embed = compiled(lambda m, image, size: m.backbone.embed_pixels(image, size, False))
    self._features = compiled(lambda m, image, size: m.backbone.cnn(image, size, False)[0])
    self._heads = {name: compiled(_joined(head)) for name, head in HEADS.items()}
    self._watched = compiled(_joined(HEADS['encode']), mutable=['attention'])
    # Of a model with a first stage.
    self._image_vector = compiled(lambda m, *seen: m.image_vector(*seen, False))
    self._text_vector = compiled(lambda m, *words: m.text_vector(*words, False))
    self._graded = {
      name: jax.jit(_graded(functools.partial(module.apply, method=_joined(logits))))
      for name, logits in LOGITS.items()
    }

  def pairs(
    self, head: str, photos: Sequence[Photo], tokens: Tokens, image: np.ndarray, text: np.ndarray
  ) -> Iterator[tuple[np.ndarray, Any]]:
    """Runs a head on pairs, given as indices [N] into `photos` and [N] into `tokens`.

    The CNN runs once per photo.

    Yields:
      Indices [n] of pairs, in the order in which they are finished, and the head's rows [n, ...].
    """
    order = np.argsort(image, kind='stable')
    start = np.searchsorted(image[order], np.arange(len(photos) + 1))
    bar = {'unit': 'pair', 'delay': QUIET, 'leave': False, 'disable': len(image) <= self.size}
    with tqdm(total=len(image), **bar) as progress:
      for shown, seen in self.see(photos):
        members = [order[start[number] : start[number + 1]] for number in shown]
        row = np.repeat(np.arange(len(shown), dtype=np.int32), [len(m) for m in members])
        numbers = np.concatenate(members)
        for part, out in self.join(head, seen, tokens, row, text[numbers]):
          yield numbers[part], out
          progress.update(len(numbers[part]))

  def see(
    self, photos: Sequence[Photo], unreadable: dict[int, str] | None = None
  ) -> Iterator[tuple[list[int], Seen]]:
    """Embeds photos, `size` at a time, in the order in which groups of one shape are full.

    Args:
      photos: of any sizes.
      unreadable: gets the reason for each photo that cannot be read, by its index; without it such
        a photo raises ImageError.

    Yields:
      The indices [n] of the photos of a group, and their pixels [B, P, D] with mask [B, P]; B is
      `size` or 1, and rows from n on are padding.
    """
    for group in photos_lib.gathered(self.reader.stream(photos, unreadable), self.size):
      yield [photo.number for photo in group], self._see(group)

  def image_vectors(self, seen: Seen) -> np.ndarray:
    """Computes the first stage's unit vectors [B, W] of what `see` yields."""
    return np.asarray(self._image_vector(self._variables, *seen))

  def text_vectors(self, tokens: Tokens) -> np.ndarray:
    """Computes the first stage's unit vectors [N, W] of texts."""
    number, parts = np.arange(len(tokens.ids)), []
    size = 1 if len(number) == 1 else self.size
    for first in range(0, len(number), size):
      rows = np.resize(number[first : first + size], size)
      parts.append(np.asarray(self._text_vector(self._variables, *(x[rows] for x in tokens[:2]))))
    return np.concatenate(parts)[: len(number)]

  def texts(self, tokens: Tokens) -> Iterator[Any]:
    """Runs the head `encode` on texts without an image; yields its rows in order."""
    width = self._variables['params']['backbone']['semantic'].shape[0]
    no_pixels = np.zeros((1, 0, width), np.float32), np.zeros((1, 0), bool)
    number = np.arange(len(tokens.ids))
    for _, out in self.join('encode', no_pixels, tokens, np.zeros_like(number), number):
      yield out

  def attention(
    self, photo: Photo, tokens: Tokens, head: str | None = None, allowed: np.ndarray | None = None
  ) -> Watched:
    """Computes the attention of one text and one photo; with a head also what its best depends on.

    `allowed` [C] bool says which of the head's outputs may be the best.
    """
    placed = self.reader(photo)
    pixels, mask = self._see([placed])
    inputs = pixels, mask, np.zeros(1, np.int32), *tokens
    if head is None:
      _, kept = self._watched(self._variables, *inputs)
      weights, gradients, best = jax.tree.leaves(kept)[0][:, 0], None, 0
    else:
      weights, gradients, best = self._graded[head](self._variables, allowed, *inputs)
    weights, gradients = jax.device_get((weights, gradients))
    grid = [-(-side // self.reader.stride) for side in placed.canvas]
    return Watched(weights, gradients, int(best), np.asarray(mask[0]).reshape(grid), placed)

  def features(self, images: np.ndarray) -> np.ndarray:
    """Computes the CNN's features [B, h, w, C] of normalised images [B, H, W, 3] in one batch."""
    size = np.full((len(images), 2), images.shape[1:3], np.int32)
    return np.asarray(self._features(self._variables, images, size))

  def _see(self, group: Sequence[Placed]) -> Seen:
    """Embeds images of one shape as pixels [B, P, D], with their mask [B, P]."""
    batch = photos_lib.batch_of(group, 1 if len(group) == 1 else self.size)
    return self._embed(self._variables, self._resize(batch), batch['size'])

  def join(
    self, head: str, seen: Seen, tokens: Tokens, row: np.ndarray, text: np.ndarray
  ) -> Iterator[tuple[slice, Any]]:
    """Runs a head on pairs, given as indices `row` [n] into `seen` and `text` [n] into `tokens`.

    Yields:
      The slice of the pairs that are finished, and the head's rows for them.
    """
    size = 1 if len(row) == 1 else self.size
    for first in range(0, len(row), size):
      part = slice(first, min(first + size, len(row)))
      n = part.stop - first
      rows, texts = np.pad(np.stack([row[part], text[part]]), ((0, 0), (0, size - n)))
      inputs = (x[texts] for x in tokens)
      out = self._heads[head](self._variables, *seen, rows.astype(np.int32), *inputs)
      yield part, jax.tree.map(lambda x, n=n: np.asarray(x)[:n], out)


def check_finite(computed: Any, folder: object) -> None:
  """Raises UserError if an array that the model of a folder computed is not finite."""
  if not_finite(computed):
    raise UserError(f'{folder}: what it computes is not finite: take another step of it')


def probability(logits: np.ndarray) -> np.ndarray:
  """Computes sigmoids of logits."""
  return 0.5 + 0.5 * np.tanh(0.5 * logits)


def _joined(head: Callable[[Model, Pairs], Any]) -> Callable:
  """Wraps a head as a method that takes pixels [B, P, D], a row of them per pair [N], and texts."""

  def method(m, pixels, mask, row, ids, token_mask, place):
    mask = mask[row]
    tokens, pixels = m.backbone.join(pixels[row], mask, ids[:, None], token_mask[:, None], False)
    return head(m, Pairs(tokens[:, 0], token_mask, pixels[:, 0], mask, place))

  return method


def _graded(apply: Callable) -> Callable:
  """Wraps a method that gives logits [1, C] as one that gives what the best depends on.

  The result is a function of variables, `allowed` [C] bool and the method's inputs. It returns the
  attention weights [L, H, S, S], the gradients of the best allowed logit with respect to them, and
  the number of that logit.
  """

  def graded(variables, allowed, *inputs):
    def best(change):
      logits, kept = apply(variables | change, *inputs, mutable=['attention'])
      logits = jnp.where(allowed, logits[0], -jnp.inf)
      return logits.max(), (kept, logits.argmax())

    shapes = jax.eval_shape(lambda: apply(variables, *inputs, mutable=['attention_change'])[1])
    no_change = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    gradients, (kept, number) = jax.grad(best, has_aux=True)(no_change)
    (weights,), (gradients,) = jax.tree.leaves(kept), jax.tree.leaves(gradients)
    return weights[:, 0], gradients[:, 0], number

  return graded
