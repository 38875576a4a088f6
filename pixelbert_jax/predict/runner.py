"""Pairs of images and texts, of any sizes and in any number, through a model in fixed shapes.

Images are gathered by canvas, pairs by image; what does not fill a batch is filled up, and its
results thrown away. Evaluation statistics are used throughout, so rows do not touch each other.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from pixelbert_jax.input.image import model_input
from pixelbert_jax.input.text import Tokens
from pixelbert_jax.models.heads import Model
from pixelbert_jax.predict import photos as photos_lib
from pixelbert_jax.predict.photos import Photo, Placed, Reader

Array = jax.Array


class Pairs(NamedTuple):
  """N pairs: tokens [N, T, D] and pixels [N, P, D] with their masks, and a place in each [N]."""

  tokens: Array
  token_mask: Array
  pixels: Array
  pixel_mask: Array
  place: Array


QUIET = 3.0  # seconds, before progress is shown

HEADS: dict[str, Callable[[Model, Pairs], Any]] = {
  'answer': lambda m, pairs: jax.nn.sigmoid(m.answer(pairs.tokens)),
  'match': lambda m, pairs: m.match(pairs.tokens),
  'fill': lambda m, pairs: jax.nn.softmax(
    m.fill(jnp.take_along_axis(pairs.tokens, pairs.place[:, None, None], axis=1)[:, 0])
  ),
  'encode': lambda m, pairs: pairs[:4],
}


@dataclasses.dataclass(frozen=True)
class Encoded:
  """What the Transformer gives for B pairs of T tokens and P pixels (cells of the feature map).

  Attributes:
    text: [B, T, D] float32.
    pixels: [B, P, D] float32; P is that of the largest canvas among the images.
    text_mask, pixel_mask: [B, T] and [B, P] bool: which are real. The others hold zeros.
  """

  text: np.ndarray
  pixels: np.ndarray
  text_mask: np.ndarray
  pixel_mask: np.ndarray

  @classmethod
  def of(cls, rows: Sequence[tuple[np.ndarray, ...]]) -> 'Encoded':
    """Of what the head `encode` gives for each pair."""
    text, text_mask, pixels, pixel_mask = zip(*rows, strict=True)
    most = max(map(len, pixel_mask))
    text_mask = np.stack(text_mask)
    pixel_mask = np.stack([np.pad(mask, (0, most - len(mask))) for mask in pixel_mask])
    pixels = np.stack([np.pad(x, ((0, most - len(x)), (0, 0))) for x in pixels])
    text = np.where(text_mask[..., None], np.stack(text), 0)
    return cls(text, np.where(pixel_mask[..., None], pixels, 0), text_mask, pixel_mask)


class Runner:
  """Runs a module of `models/heads.py`; each shape is compiled once, when it is first met.

  There is one shape for each canvas and each of two sizes of batch: `batch_size`, and 1 for an
  image, or a pair, that is alone.
  """

  def __init__(self, module: Model, variables: dict, reader: Reader, batch_size: int):
    self.reader, self._variables, self._size = reader, variables, batch_size
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

  def pairs(
    self, head: str, photos: Sequence[Photo], tokens: Tokens, image: np.ndarray, text: np.ndarray
  ) -> Iterator[tuple[np.ndarray, Any]]:
    """What a head gives for pairs of image [N] and text [N], numbers of photos and tokens.

    The CNN sees each photo once. Yields, in the order in which they are done, numbers [n] of pairs
    and the head's rows [n, ...].
    """
    order = np.argsort(image, kind='stable')
    start = np.searchsorted(image[order], np.arange(len(photos) + 1))
    bar = {'unit': 'pair', 'delay': QUIET, 'leave': False, 'disable': len(image) <= self._size}
    with tqdm(total=len(image), **bar) as progress:
      for group in photos_lib.gathered(self.reader.stream(photos), self._size):
        pixels, mask = self._see(group)
        ours = [order[start[one.number] : start[one.number + 1]] for one in group]
        row = np.repeat(np.arange(len(group), dtype=np.int32), [len(own) for own in ours])
        numbers = np.concatenate(ours)
        for some, out in self._join(head, pixels, mask, tokens, row, text[numbers]):
          yield numbers[some], out
          progress.update(len(numbers[some]))

  def texts(self, tokens: Tokens) -> Iterator[Any]:
    """What the head `encode` gives for texts without an image, in order."""
    width = self._variables['params']['backbone']['semantic'].shape[0]
    nothing = np.zeros((1, 0, width), np.float32), np.zeros((1, 0), bool)
    number = np.arange(len(tokens.ids))
    for _, out in self._join('encode', *nothing, tokens, np.zeros_like(number), number):
      yield out

  def attention(self, photo: Photo, tokens: Tokens) -> tuple[np.ndarray, np.ndarray, Placed]:
    """Of one text and photo: weights [L, S, S], S = T + P, mean over heads; which cells are real.

    Returns:
      The weights, a mask [h, w] bool, and how the photo was placed.
    """
    placed = self.reader(photo)
    pixels, mask = self._see([placed])
    row = np.zeros(1, np.int32)
    _, kept = self._watched(self._variables, pixels, mask, row, *tokens)
    (weights,) = jax.tree.leaves(kept)
    grid = [-(-side // self.reader.stride) for side in placed.canvas]
    return np.asarray(weights[:, 0].mean(1)), np.asarray(mask[0]).reshape(grid), placed

  def features(self, images: np.ndarray) -> np.ndarray:
    """[B, h, w, C] of normalised images [B, H, W, 3], as many at once as there are."""
    size = np.full((len(images), 2), images.shape[1:3], np.int32)
    return np.asarray(self._features(self._variables, images, size))

  def _see(self, group: Sequence[Placed]) -> tuple[Array, Array]:
    """Pixels [B, P, D] and their mask of images of one shape."""
    batch = photos_lib.batch_of(group, 1 if len(group) == 1 else self._size)
    return self._embed(self._variables, self._resize(batch), batch['size'])

  def _join(
    self,
    head: str,
    pixels: Array | np.ndarray,
    mask: Array | np.ndarray,
    tokens: Tokens,
    row: np.ndarray,
    text: np.ndarray,
  ) -> Iterator[tuple[slice, Any]]:
    """The head's rows for pairs of a row of pixels and a number of tokens, both [n]."""
    size = 1 if len(row) == 1 else self._size
    for first in range(0, len(row), size):
      some = slice(first, min(first + size, len(row)))
      n = some.stop - first
      filled = np.pad(np.stack([row[some], text[some]]), ((0, 0), (0, size - n)))
      own = (x[filled[1]] for x in tokens)
      out = self._heads[head](self._variables, pixels, mask, filled[0].astype(np.int32), *own)
      yield some, jax.tree.map(lambda x, n=n: np.asarray(x)[:n], out)


def _joined(head: Callable[[Model, Pairs], Any]) -> Callable:
  """A head on pairs [N]: rows of pixels [B, P, D], and texts [N, T]."""

  def method(m, pixels, mask, row, ids, token_mask, place):
    mask = mask[row]
    tokens, pixels = m.backbone.join(pixels[row], mask, ids[:, None], token_mask[:, None], False)
    return head(m, Pairs(tokens[:, 0], token_mask, pixels[:, 0], mask, place))

  return method
