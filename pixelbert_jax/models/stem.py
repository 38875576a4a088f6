"""The first layers of the CNN, from pixels to features of stride 4."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.backend import Backend
from pixelbert_jax.models.convolution import Conv
from pixelbert_jax.models.padded import BatchNorm, max_pool, normalised

Array = jax.Array


class Stem(nn.Module):
  """torchvision's 7x7 convolution and max-pool, or a 3x3 convolution over 4x4 patches.

  Patches (`space_to_depth`) are for small images: 4x4x3 values become channels.
  """

  kind: str
  features: int
  frozen: bool
  dtype: jnp.dtype
  backend: Backend = Backend()

  @nn.compact
  def __call__(self, x: Array, mask: Array, train: bool) -> tuple[Array, Array]:
    """Maps x [B, H, W, 3] and mask [B, H, W, 1] to [B, ceil(H / 4), ceil(W / 4), features]."""
    norm = BatchNorm(self.features, self.frozen, name='bn1')
    conv = functools.partial(
      Conv, self.features, dtype=self.dtype, backend=self.backend, name='conv1'
    )
    real = mask[:, ::4, ::4]
    if self.kind == 'space_to_depth':
      x = normalised(conv(size=3), norm, space_to_depth(x, 4), real, train)
      return nn.relu(x) * real, real
    if self.kind != '7x7':
      raise ValueError(f"stem is {self.kind!r}, expected '7x7' or 'space_to_depth'")
    strips, columns = self._strips(x, train), real.shape[2]
    if strips > 1:
      x, mask = cut(x, strips), cut(mask, strips)
    mask = mask[:, ::2, ::2]
    # ReLU of a maximum is the maximum of ReLUs, with a quarter of the work.
    pool = functools.partial(
      max_pool, mask=mask, window=3, before=1, compares=self.backend.compares
    )
    x = normalised(conv(size=7, stride=2), norm, x, mask, train, pool=lambda y: pool(y)[0])
    if strips > 1:
      x = joined(x, strips, columns)
    return nn.relu(x) * real, real

  def _strips(self, x: Array, train: bool) -> int:
    """Returns into how many strips images are cut: none of less than 32 columns."""
    best = self.backend
    wide = x.shape[2] >= 32 * best.strips
    return best.strips if wide and best.folded(self.frozen, train) else 1


# Pixels that a strip has beside its own columns. What the pool's window makes of 4 columns depends
# on 5 more before them and 2 after.
BEFORE, AFTER = 8, 4


def cut(x: Array, strips: int) -> Array:
  """Cuts [B, H, W, C] into strips side by side, [B * strips, H, w, C], which overlap.

  The images are filled up with zeros to a multiple of 4 columns for each strip.
  """
  b, h, columns, c = x.shape
  own = 4 * -(-columns // (4 * strips))
  x = jnp.pad(x, ((0, 0), (0, 0), (BEFORE, strips * own - columns + AFTER), (0, 0)))
  parts = [x[:, :, i * own : (i + 1) * own + BEFORE + AFTER] for i in range(strips)]
  # The images first, so that these stay where they are if a batch is split among devices.
  return jnp.stack(parts, axis=1).reshape(b * strips, h, own + BEFORE + AFTER, c)


def joined(x: Array, strips: int, columns: int) -> Array:
  """Joins features of strips, of stride 4, to those of images [B, h, columns, C]."""
  x = x[:, :, BEFORE // 4 : x.shape[2] - AFTER // 4]
  _, h, own, c = x.shape
  x = x.reshape(-1, strips, h, own, c).swapaxes(1, 2)
  return x.reshape(-1, h, strips * own, c)[:, :, :columns]


def space_to_depth(x: Array, patch: int) -> Array:
  """Reshapes [B, H, W, C] to [B, ceil(H/p), ceil(W/p), p*p*C]; zero-pads at the bottom right."""
  b, h, w, c = x.shape
  x = jnp.pad(x, ((0, 0), (0, -h % patch), (0, -w % patch), (0, 0)))
  h, w = -(-h // patch), -(-w // patch)
  x = x.reshape(b, h, patch, w, patch, c).transpose(0, 1, 3, 2, 4, 5)
  return x.reshape(b, h, w, patch * patch * c)
