"""ResNet (He 2015) and ResNeXt (Xie 2017) on padded images, in torchvision's structure.

Images of different sizes lie in the top left corner of one canvas. Zeros in the padding do not
stay zero: BatchNorm turns them into its bias, which 3x3 convolutions carry inwards. Masking every
activation makes the output at real pixels that of the unpadded image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.backend import Backend
from pixelbert_jax.models.convolution import Conv
from pixelbert_jax.models.padded import BatchNorm, max_pool, normalised, only_real, pixel_mask
from pixelbert_jax.models.stem import Stem

Array = jax.Array


class Bottleneck(nn.Module):
  """torchvision's Bottleneck: 1x1, 3x3 (with the stride and the groups) and 1x1 convolutions."""

  width: int
  features: int
  frozen: bool
  stride: int = 1
  groups: int = 1
  dtype: jnp.dtype = jnp.float32
  backend: Backend = Backend()

  @nn.compact
  def __call__(self, x: Array, mask: Array, train: bool) -> Array:
    """Computes a block, up to its last ReLU, which is the next block's to do.

    What is recomputed in the backward pass then needs no last convolution: its output decides
    nothing but that ReLU.

    Args:
      x: [B, h, w, C], before the ReLU; or pairs of columns, [B, h, w / 2, 2 C].
      mask: [B, h, w, 1] bool; or [B, h, w / 2, 2].
      train: as for `ResNet`.

    Returns:
      [B, h / stride, w / stride, features], or pairs of that; not masked.
    """
    columns = mask.shape[-1]

    def conv_bn(x, mask, number, features, size=1, stride=1, groups=1):
      options = {'dtype': self.dtype, 'backend': self.backend, 'name': f'conv{number}'}
      conv = Conv(features, size, stride, groups, pairs=columns == 2, **options)
      norm = BatchNorm(features, self.frozen, name=f'bn{number}')
      return normalised(conv, norm, x, mask, train)

    out_mask = mask[:, :: self.stride, :: self.stride]
    x = only_real(nn.relu(x), mask)
    y = only_real(nn.relu(conv_bn(x, mask, 1, self.width)), mask)
    y = conv_bn(y, out_mask, 2, self.width, size=3, stride=self.stride, groups=self.groups)
    y = only_real(nn.relu(y), out_mask)
    y = conv_bn(y, out_mask, 3, self.features)
    if self.stride > 1 or x.shape[-1] != columns * self.features:
      x = conv_bn(x, out_mask, '_downsample', self.features, stride=self.stride)
    x = x + y
    return kept(x, out_mask) if self.backend.keeps else x


def kept(x: Array, mask: Array) -> Array:
  """Returns x [B, h, w, C], which XLA's fusions on CPU then read instead of computing it anew.

  They repeat all that x is made of but what costs much, such as a division: here by 1, which the
  compiler cannot tell from mask [B, h, w, 1]. It ignores `optimization_barrier`, and a divisor that
  is not a scalar takes away more than this gives.
  """
  return x / jnp.maximum(mask[0, 0, 0, 0], 1).astype(x.dtype)


class Stage(nn.Module):
  """Blocks of one resolution: `first` changes it, `rest` are equal and scanned.

  The scan stacks their parameters on a leading axis. Where it is not unrolled, one block is
  compiled instead of up to 35 (ResNeXt-152).
  """

  blocks: int
  width: int
  features: int
  frozen: bool
  stride: int
  groups: int
  remat: bool
  dtype: jnp.dtype
  backend: Backend

  @nn.compact
  def __call__(self, x: Array, mask: Array, train: bool) -> tuple[Array, Array]:
    block = nn.remat(Bottleneck, static_argnums=(3,)) if self.remat else Bottleneck

    def make(name: str, stride: int) -> Bottleneck:
      return block(
        width=self.width,
        features=self.features,
        frozen=self.frozen,
        stride=stride,
        groups=self.groups,
        dtype=self.dtype,
        backend=self.backend,
        name=name,
      )

    real, columns = mask, self._columns(x, train)
    if columns > 1:
      x, mask = pack(x, columns), pack(mask, columns)
    x = make('first', self.stride)(x, mask, train)
    mask = mask[:, :: self.stride, :: self.stride]
    if self.blocks > 1:
      scan = nn.scan(
        lambda block, x, mask: (block(x, mask, train), None),
        variable_axes={'params': 0, 'batch_stats': 0},
        split_rngs={'params': True},
        in_axes=nn.broadcast,  # Carried, the mask would be saved once more for each block.
        length=self.blocks - 1,
        unroll=self.blocks - 1 if self.backend.unroll else 1,
      )
      x, _ = scan(make('rest', 1), x, mask)
    if columns > 1:
      x = x.reshape(*real.shape[:3], -1)
    return x, real[:, :: self.stride, :: self.stride]

  def _columns(self, x: Array, train: bool) -> int:
    """Returns how many neighbouring columns are computed as channels of one: 1 or 2."""
    best = self.backend
    fixed = best.folded(self.frozen, train)
    fits = 2 * self.width <= best.lanes and x.shape[2] % 2 == 0
    return 2 if best.pairs and fixed and fits and self.stride == self.groups == 1 else 1


def pack(x: Array, columns: int) -> Array:
  """Makes neighbouring columns channels of one: [B, h, w, C] to [B, h, w / n, n C]."""
  return x.reshape(*x.shape[:2], x.shape[2] // columns, columns * x.shape[3])


class ResNet(nn.Module):
  """The CNN of Pixel-BERT (paper section 3.1), including its final 2x2 max-pool.

  Attributes:
    stages: blocks in each stage.
    total_stride: of the output, in input pixels; includes the final pool. The paper's is 64;
      smaller values leave the stride of the last stages at 1.
    width: channels of the stem; stages have 4, 8, 16, 32 times as many.
    groups: of the 3x3 convolutions, each of `group_width` channels in the first stage (32x8d
      is groups=32, group_width=8); `group_width` None means plain ResNet.
    stem: '7x7' or 'space_to_depth'.
    frozen: use the running statistics of BatchNorm in training too.
    frozen_stages: 0 trains all; 1 fixes the stem and the first stage, 2 the second too, and so on.
      What is fixed gets no gradient, keeps no activation and uses the running statistics. (SOHO
      and mmdetection count likewise, but theirs is -1 where all is trained and 0 fixes the stem.)
    remat: recompute each block's activations in the backward pass.
    dtype: of the computation; parameters and statistics are float32.
    backend: what the program is compiled for does best.
  """

  stages: Sequence[int]
  total_stride: int = 64
  width: int = 64
  groups: int = 1
  group_width: int | None = None
  stem: str = '7x7'
  frozen: bool = False
  frozen_stages: int = 0
  remat: bool = False
  dtype: jnp.dtype = jnp.float32
  backend: Backend = Backend()

  def stage_strides(self) -> list[int]:
    """Returns the stride of each stage, 1 or 2, for `total_stride`; early stages stride first."""
    possible = [2**i for i in range(3, 3 + len(self.stages))]
    if self.total_stride not in possible:
      raise ValueError(
        f'total_stride is {self.total_stride}, expected one of {possible} with '
        f'{len(self.stages)} stages'
      )
    halvings = possible.index(self.total_stride)
    return [2 if 1 <= i <= halvings else 1 for i in range(len(self.stages))]

  @nn.nowrap
  def stage(self, number: int) -> Stage:
    """Makes a stage, of which the first is 1."""
    wider = 2 ** (number - 1)
    return Stage(
      blocks=self.stages[number - 1],
      width=(self.groups * self.group_width if self.group_width else self.width) * wider,
      features=4 * self.width * wider,
      frozen=self.frozen or number <= self.frozen_stages,
      stride=self.stage_strides()[number - 1],
      groups=self.groups,
      remat=self.remat,
      dtype=self.dtype,
      backend=self.backend,
      name=f'layer{number}',
    )

  @property
  def first_centre(self) -> float:
    """Distance in pixels from the image's edge to the centre of the first cell.

    The centres of cells are `total_stride` apart. Strided convolutions are centred on every other
    input cell; the final pool and the stem's patches are centred between input cells.
    """
    return self.total_stride / 4 + (2.0 if self.stem == 'space_to_depth' else 0.5)

  @nn.compact
  def __call__(self, image: Array, size: Array, train: bool) -> tuple[Array, Array]:
    """Computes the feature maps of images.

    Args:
      image: [B, H, W, 3] normalised float; values in the padding are ignored.
      size: [B, 2] int, real height and width.
      train: whether batch statistics are used (and accumulated), unless frozen.

    Returns:
      Features [B, h, w, C], zero in the padding, and their mask [B, h, w] bool, where
      h = ceil(H / total_stride).
    """
    mask = pixel_mask(size, *image.shape[1:3])
    x = jnp.where(mask, image, 0).astype(self.dtype)
    frozen = self.frozen or self.frozen_stages > 0
    stem = Stem(self.stem, self.width, frozen, self.dtype, self.backend, name='stem')
    x, mask = stem(x, mask, train)
    for number in range(1, len(self.stages) + 1):
      x, mask = self.stage(number)(x, mask, train)
      if number == self.frozen_stages:
        x = jax.lax.stop_gradient(x)
    x, mask = max_pool(nn.relu(x) * mask, mask, 2, before=0, compares=self.backend.compares)
    return x, mask[..., 0]
