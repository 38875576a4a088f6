"""Pixel-BERT (Huang et al. 2020): one Transformer over words and the pixel features of a CNN.

Shapes: B images, K texts per image, T tokens, P pixels, D width.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models import gradients
from pixelbert_jax.models.bert import Dense, Encoder, TextEmbedding
from pixelbert_jax.models.resnet import ResNet

Array = jax.Array

PLACES = 16  # along a side of an image, each with a learnt embedding


def sample_pixels(key: Array, mask: Array, texts: int, count: int) -> tuple[Array, Array]:
  """Draws pixels for every (image, text) pair, uniformly without replacement (section 3.3).

  Args:
    key: a PRNG key.
    mask: [B, P] bool, the real pixels.
    texts: K, number of texts per image; pixels are drawn for each of them.
    count: number of pixels to draw; an image with fewer real pixels gives all of them.

  Returns:
    Pixel indices [B, K, count] int32, and bool [B, K, count] for those that are real.
  """
  b, p = mask.shape
  count = min(count, p)
  noise = jax.random.uniform(key, (b, texts, p))
  # Noise of real pixels is in [0, 1); padding has -1 and is drawn last.
  drawn, index = jax.lax.top_k(jnp.where(mask[:, None], noise, -1.0), count)
  return index, drawn >= 0


class PixelPosition(nn.Module):
  """Embeds the places of feature-map cells; Pixel-BERT itself has none (section 3.1).

  Where a cell is counts as a share of the image's height and width, whatever its size and canvas.
  'learnt' adds an embedding of each, interpolated between PLACES along a side (as ViLT interpolates
  its table). 'sine2d' is DETR's fixed one: half of the features are sines and cosines of the share
  of the height, half of that of the width.

  Attributes:
    kind: 'learnt' or 'sine2d'.
    width: D.
  """

  kind: str
  width: int

  @nn.compact
  def __call__(self, mask: Array) -> Array:
    """Embeds the cells of images, whose real ones [B, h, w] bool are given, as [B, h, w, D]."""
    shares = [_shares(mask.any(axis)) for axis in (2, 1)]
    if self.kind == 'sine2d':
      rows, columns = (_sines(share, self.width // 2) for share in shares)
      rows, columns = jnp.broadcast_arrays(rows[:, :, None], columns[:, None])
      return jnp.concatenate([rows, columns], axis=-1)
    # Of a scale that is heard beside the content of cells from the first step on.
    normal = nn.initializers.normal(1.0)
    tables = [
      nn.Embed(PLACES, self.width, embedding_init=normal, name=n) for n in ('row', 'column')
    ]
    rows, columns = (_between(share) @ t.embedding for share, t in zip(shares, tables, strict=True))
    return rows[:, :, None] + columns[:, None]


def _shares(real: Array) -> Array:
  """Computes the share [B, n] in 0..1 of an image's side at the middle of each cell [B, n] bool."""
  return (jnp.arange(real.shape[1]) + 0.5) / jnp.maximum(real.sum(1, keepdims=True), 1)


def _between(share: Array) -> Array:
  """Computes the weights [..., PLACES] of the two places beside each share in 0..1."""
  return nn.relu(
    1 - jnp.abs((share * PLACES - 0.5).clip(0, PLACES - 1)[..., None] - jnp.arange(PLACES))
  )


def _sines(share: Array, width: int) -> Array:
  """Computes sines and cosines [..., width] of angles: 2 pi `share` over wavelengths up to 1e4."""
  wavelength = 10_000 ** (jnp.arange(0, width, 2) / width)
  angle = 2 * jnp.pi * share[..., None] / wavelength
  return jnp.stack([jnp.sin(angle), jnp.cos(angle)], axis=-1).reshape(*share.shape, width)


class PixelBert(nn.Module):
  """The encoder of image-text pairs, which returns contextual tokens and pixels.

  The sequence is [CLS] words [SEP] pixels. Pixels are feature-map cells, projected to the width
  of the Transformer, plus one shared semantic vector, without LayerNorm and, in the paper, without
  position embedding.

  Attributes:
    cnn: the convolutional network.
    text: embeds tokens.
    encoder: the Transformer.
    sampled_pixels: pixels drawn for each pair in training; 0 uses all.
    pixel_position: 'none', or the kind of `PixelPosition`.
    mean, deviation: of RGB in 0..1, the normalisation of images that the CNN was trained with;
      applied before the call. ImageNet's by default.
    tuned_cnn: whether gradients reach the CNN.
    gradient_dtype: of kernels' gradients, summed over positions and devices; applied by `forward`.
  """

  cnn: ResNet
  text: TextEmbedding
  encoder: Encoder
  sampled_pixels: int = 0
  pixel_position: str = 'none'
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
  tuned_cnn: bool = True
  gradient_dtype: jnp.dtype = jnp.float32

  def setup(self) -> None:
    width, std = self.text.width, self.text.init_std
    self.projection = Dense(width, std, self.text.dtype)
    self.semantic = self.param('semantic', nn.initializers.normal(std), (width,), jnp.float32)
    if self.pixel_position != 'none':
      self.cell_position = PixelPosition(self.pixel_position, width)

  def embed_pixels(self, image: Array, size: Array, train: bool) -> tuple[Array, Array]:
    """Encodes images as pixel tokens.

    Args:
      image: [B, H, W, 3] normalised float.
      size: [B, 2] int, real height and width on the canvas.
      train: whether BatchNorm uses batch statistics.

    Returns:
      [B, P, D] and mask [B, P] bool.
    """
    features, mask = self.cnn(image, size, train)
    if not self.tuned_cnn:
      features = jax.lax.stop_gradient(features)
    b, h, w, c = features.shape
    tokens = self.projection(features.reshape(b, h * w, c))
    tokens = gradients.shift(tokens, self.semantic)
    if self.pixel_position != 'none':
      tokens += self.cell_position(mask).astype(tokens.dtype).reshape(-1, h * w, tokens.shape[-1])
    return tokens, mask.reshape(b, h * w)

  def pair_pixels(self, tokens: Array, mask: Array, texts: int, train: bool) -> tuple[Array, Array]:
    """Repeats or samples pixels for each text: [B, P, D] to [B, K, p, D], with mask [B, K, p]."""
    if train and self.sampled_pixels:
      key = self.make_rng('pixels')
      index, mask = sample_pixels(key, mask, texts, self.sampled_pixels)
      return jnp.take_along_axis(tokens[:, None], index[..., None], axis=2), mask
    b, p, d = tokens.shape
    pixels = jnp.broadcast_to(tokens[:, None], (b, texts, p, d))
    return pixels, jnp.broadcast_to(mask[:, None], (b, texts, p))

  def __call__(
    self, image: Array, size: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> tuple[Array, Array]:
    """Encodes image-text pairs.

    Args:
      image: [B, H, W, 3] normalised float.
      size: [B, 2] int, real height and width on the canvas.
      token_ids: [B, K, T] int, [CLS] ... [SEP], then padding.
      token_mask: [B, K, T] bool.
      train: enables dropout, pixel sampling and batch statistics.

    Returns:
      Tokens [B, K, T, D] and pixels [B, K, p, D].
    """
    return self.join(*self.embed_pixels(image, size, train), token_ids, token_mask, train)

  def read(self, token_ids: Array, token_mask: Array, train: bool) -> Array:
    """Encodes texts [N, T] without any image, as tokens [N, T, D]."""
    words = self.text(token_ids, deterministic=not train)
    return self.encoder(words, token_mask, deterministic=not train)

  def look(self, pixels: Array, mask: Array, train: bool) -> Array:
    """Encodes pixels [B, P, D] from `embed_pixels`, mask [B, P], without any text, as [B, P, D]."""
    return self.encoder(pixels, mask, deterministic=not train)

  def join(
    self, pixels: Array, pixel_mask: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> tuple[Array, Array]:
    """Encodes pixels from `embed_pixels` with texts; arguments and results as in `__call__`."""
    b, k, t = token_ids.shape
    pixels, pixel_mask = self.pair_pixels(pixels, pixel_mask, k, train)
    words = self.text(token_ids.reshape(b * k, t), deterministic=not train)
    x = jnp.concatenate([words, pixels.reshape(b * k, *pixels.shape[2:])], axis=1)
    mask = jnp.concatenate([token_mask, pixel_mask], axis=2).reshape(b * k, -1)
    x = self.encoder(x, mask, deterministic=not train)
    x = x.reshape(b, k, *x.shape[1:])
    return x[:, :, :t], x[:, :, t:]
