"""The head of retrieval's first stage, which knows texts and images apart."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.bert import Dense

Array = jax.Array


class FirstStage(nn.Module):
  """Maps texts alone and images alone to unit vectors in one space, near where they match.

  The temperature is learnt, as in CLIP (Radford et al. 2021).

  Attributes:
    width: W, of the space.
  """

  SCALE: ClassVar = (1 / 0.07, 100.0)  # the inverse temperature at the start, and at most: CLIP's

  width: int
  init_std: float
  dtype: jnp.dtype

  def setup(self) -> None:
    start = nn.initializers.constant(math.log(self.SCALE[0]))
    self.text = Dense(self.width, self.init_std, self.dtype)
    self.image = Dense(self.width, self.init_std, self.dtype)
    self.log_scale = self.param('log_scale', start, (), jnp.float32)

  def of_text(self, pooled: Array) -> Array:
    """Maps pooled texts [N, D], read without an image, to [N, W]."""
    return _unit(self.text(pooled))

  def of_image(self, pixels: Array, mask: Array) -> Array:
    """Maps the mean of the real pixels of [B, P, D], seen without a text, to [B, W]."""
    mean = jnp.mean(pixels, axis=1, dtype=self.dtype, where=mask[..., None])
    return _unit(self.image(mean))

  def scale(self) -> Array:
    """Returns the factor [] of the cosines in the softmax."""
    return jnp.exp(jnp.minimum(self.log_scale, math.log(self.SCALE[1])))


def _unit(x: Array) -> Array:
  return x * jax.lax.rsqrt(jnp.sum(x * x, axis=-1, keepdims=True) + 1e-12)
