"""Operations on padded images: masks, pooling, BatchNorm.

Images of different sizes lie in the top left corner of one canvas; the mask says where.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models import gradients
from pixelbert_jax.models.convolution import Conv

Array = jax.Array


def pixel_mask(size: Array, height: int, width: int) -> Array:
  """Computes the mask of real pixels of a canvas.

  Args:
    size: [B, 2] int, height and width of each image on its canvas.
    height: of the canvas.
    width: of the canvas.

  Returns:
    [B, height, width, 1] bool.
  """
  rows = jnp.arange(height)[None, :, None, None] < size[:, 0, None, None, None]
  columns = jnp.arange(width)[None, None, :, None] < size[:, 1, None, None, None]
  return rows & columns


def max_pool(
  x: Array, mask: Array, window: int, before: int, compares: bool = False
) -> tuple[Array, Array]:
  """Max-pools real pixels with stride 2; sizes are halved and rounded up.

  The gradient goes to the first of equal maxima, in the order of rows, as in PyTorch.

  Args:
    x: [B, h, w, C].
    mask: [B, h, w, 1] bool.
    window: side of the square window.
    before: rows and columns of padding at the top left; the bottom right gets as many as the last
      window needs.
    compares: as in `Backend`.

  Returns:
    Pooled [B, ceil(h/2), ceil(w/2), C], zero in the padding, and its mask.
  """
  lowest = jnp.finfo(x.dtype).min
  # The last of ceil(n / 2) windows starts at row 2 (ceil(n / 2) - 1) - before.
  padding = [(before, 2 * (-(-n // 2) - 1) + window - before - n) for n in x.shape[1:3]]
  x = jnp.where(mask, x, lowest)
  if compares:
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)), constant_values=lowest)
    pooled = maxima(maxima(x, window, axis=2), window, axis=1)
  else:
    pooled = nn.max_pool(x, (window, window), (2, 2), padding)
  mask = mask[:, ::2, ::2]
  return jnp.where(mask, pooled, 0), mask


def maxima(x: Array, window: int, axis: int) -> Array:
  """Computes the maxima over windows along an axis, 2 apart, by comparing slices of x."""
  places = (x.shape[axis] - window) // 2 + 1

  def at(start: int) -> Array:
    return jax.lax.slice_in_dim(x, start, start + 2 * places - 1, 2, axis)

  def larger(a: Array, b: Array) -> Array:
    return jnp.where((a >= b) | jnp.isnan(a), a, b)  # NaN if one of them is

  return functools.reduce(larger, map(at, range(window)))


def only_real(x: Array, mask: Array) -> Array:
  """Sets the padding of x [..., n C] to zero, by a mask [..., n] of n = 1 or 2 columns."""
  if mask.shape[-1] == 1:
    return x * mask
  first = jnp.arange(x.shape[-1]) < x.shape[-1] // 2
  return x * jnp.where(first, mask[..., :1], mask[..., 1:])


class BatchNorm(nn.Module):
  """BatchNorm over real pixels only, with PyTorch's constants.

  Statistics are at least float32 and, under jit, of the global batch. The running variance is
  unbiased, as in PyTorch. `frozen` uses the running statistics in training too and never updates
  them; scale and bias are trained either way.
  """

  features: int
  frozen: bool
  momentum: float = 0.9
  epsilon: float = 1e-5
  scale_init: Callable = nn.initializers.ones

  def setup(self) -> None:
    shape = (self.features,)
    self.mean = self.variable('batch_stats', 'mean', jnp.zeros, shape, jnp.float32)
    self.var = self.variable('batch_stats', 'var', jnp.ones, shape, jnp.float32)
    self.scale = self.param('scale', self.scale_init, shape, jnp.float32)
    self.bias = self.param('bias', nn.initializers.zeros, shape, jnp.float32)

  def __call__(self, x: Array, mask: Array, train: bool) -> Array:
    """Normalises x [B, h, w, C] with mask [B, h, w, 1] bool; does not mask the output."""
    batch = train and not self.frozen
    gain, bias = self._affine(*self._statistics(x, mask)) if batch else self.running()
    return gradients.shift(gradients.scale(x, gain), bias)

  def running(self) -> tuple[Array, Array]:
    """Returns gain and bias [C] that normalise with the running statistics."""
    return self._affine(self.mean.value, self.var.value)

  def _affine(self, mean: Array, var: Array) -> tuple[Array, Array]:
    gain = self.scale * jax.lax.rsqrt(var + self.epsilon)
    return gain, self.bias - mean * gain

  def _statistics(self, x: Array, mask: Array) -> tuple[Array, Array]:
    """Computes mean and variance of the batch, and updates the running ones."""
    wide = jnp.promote_types(x.dtype, jnp.float32)
    exact, count = x.astype(wide), jnp.sum(mask, dtype=wide)
    m = jnp.sum(exact, (0, 1, 2), where=mask) / count
    v = jnp.sum(jnp.square(exact - m), (0, 1, 2), where=mask) / count
    if not self.is_initializing():
      unbiased = v * (count / jnp.maximum(count - 1, 1))
      self.mean.value = self.momentum * self.mean.value + (1 - self.momentum) * m
      self.var.value = self.momentum * self.var.value + (1 - self.momentum) * unbiased
    return m, v


def normalised(
  conv: Conv,
  norm: BatchNorm,
  x: Array,
  mask: Array,
  train: bool,
  pool: Callable[[Array], Array] = lambda x: x,
) -> Array:
  """Convolves x, normalises the result and pools it.

  Args:
    conv: the convolution.
    norm: the BatchNorm of its result.
    x: [B, H, W, I].
    mask: of the result before it is pooled, see `BatchNorm`.
    train: as for `BatchNorm`.
    pool: a maximum, which is then taken before the bias is added where that saves work.
  """
  if conv.backend.folded(norm.frozen, train):
    gain, bias = norm.running()
    return gradients.shift(pool(conv(x, gain)), jnp.tile(bias, 2 if conv.pairs else 1))
  return pool(norm(conv(x), mask, train))
