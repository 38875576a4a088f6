"""Pixel-BERT (Huang et al. 2020): a CNN on pixels and a BERT on words, in one Transformer.

Shapes: B images, K texts an image, T tokens, P pixels, D width.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.bert import Encoder, TextEmbedding, dense
from pixelbert_jax.models.resnet import ResNet

Array = jax.Array


def sample_pixels(key: Array, mask: Array, texts: int, count: int) -> tuple[Array, Array]:
  """Draws pixels for every (image, text) pair, uniformly without replacement (section 3.3).

  Args:
    key: a PRNG key.
    mask: [B, P] bool, the real pixels.
    texts: K, how many texts each image has; each gets a draw of its own.
    count: how many to draw; where an image has fewer real pixels, all of them are taken.

  Returns:
    Pixel numbers [B, K, count] int32 and which of them are real, bool.
  """
  b, p = mask.shape
  count = min(count, p)
  noise = jax.random.uniform(key, (b, texts, p))
  # Real pixels lie in [0, 1), the others below them all: they are taken last.
  drawn, index = jax.lax.top_k(jnp.where(mask[:, None], noise, -1.0), count)
  return index, drawn >= 0


class PixelBert(nn.Module):
  """Images and texts in, contextual pixels and tokens out.

  The sequence is [CLS] words [SEP] pixels. Pixels are feature-map cells, projected to the width
  of the Transformer, plus one shared semantic vector; they have no position and no LayerNorm.

  Attributes:
    cnn: the convolutional network.
    text: embeds tokens.
    encoder: the Transformer.
    sampled_pixels: pixels drawn for each pair in training; 0 takes them all.
    mean, deviation: of RGB in 0..1, what images are normalised by before they come in: part of
      what the CNN has learnt. ImageNet's by default.
    tuned_cnn: whether the CNN learns; else no gradient goes into it.
  """

  cnn: ResNet
  text: TextEmbedding
  encoder: Encoder
  sampled_pixels: int = 0
  mean: tuple[float, ...] = (0.485, 0.456, 0.406)
  deviation: tuple[float, ...] = (0.229, 0.224, 0.225)
  tuned_cnn: bool = True

  def setup(self) -> None:
    width, std = self.text.width, self.text.init_std
    self.projection = dense(width, std, self.text.dtype)
    self.semantic = self.param('semantic', nn.initializers.normal(std), (width,), jnp.float32)

  def embed_pixels(self, image: Array, size: Array, train: bool) -> tuple[Array, Array]:
    """Pixel tokens of images.

    Args:
      image: [B, H, W, 3] normalised float.
      size: [B, 2] int, real height and width on the canvas.
      train: whether BatchNorm takes batch statistics.

    Returns:
      [B, P, D] and mask [B, P] bool.
    """
    features, mask = self.cnn(image, size, train)
    if not self.tuned_cnn:
      features = jax.lax.stop_gradient(features)
    b, h, w, c = features.shape
    tokens = self.projection(features.reshape(b, h * w, c))
    return tokens + self.semantic.astype(tokens.dtype), mask.reshape(b, h * w)

  def pair_pixels(self, tokens: Array, mask: Array, texts: int, train: bool) -> tuple[Array, Array]:
    """Pixels for each of an image's texts: [B, P, D] to [B, K, p, D], with mask [B, K, p]."""
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
    """Encodes pairs.

    Args:
      image: [B, H, W, 3] normalised float.
      size: [B, 2] int, real height and width on the canvas.
      token_ids: [B, K, T] int, from [CLS] to [SEP] and padding.
      token_mask: [B, K, T] bool.
      train: dropout, pixel sampling and batch statistics on.

    Returns:
      Tokens [B, K, T, D] and pixels [B, K, p, D].
    """
    return self.join(*self.embed_pixels(image, size, train), token_ids, token_mask, train)

  def join(
    self, pixels: Array, pixel_mask: Array, token_ids: Array, token_mask: Array, train: bool
  ) -> tuple[Array, Array]:
    """Encodes the pixels of `embed_pixels` with texts; arguments and results as of a call."""
    b, k, t = token_ids.shape
    pixels, pixel_mask = self.pair_pixels(pixels, pixel_mask, k, train)
    words = self.text(token_ids.reshape(b * k, t), deterministic=not train)
    x = jnp.concatenate([words, pixels.reshape(b * k, *pixels.shape[2:])], axis=1)
    mask = jnp.concatenate([token_mask, pixel_mask], axis=2).reshape(b * k, -1)
    x = self.encoder(x, mask, deterministic=not train)
    x = x.reshape(b, k, *x.shape[1:])
    return x[:, :, :t], x[:, :, t:]
