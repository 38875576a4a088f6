"""Convolutions without bias, with PyTorch's padding."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models import gradients
from pixelbert_jax.models.backend import Backend

Array = jax.Array


class Conv(nn.Module):
  """A convolution without bias, padded by half the kernel on every side as in PyTorch.

  XLA's 'SAME' would pad strided convolutions less at the top left, so that outputs would depend on
  the size of the canvas.

  Attributes:
    pairs: x holds pairs of neighbouring columns as channels, [B, H, W / 2, 2 I], and so does the
      result; then stride and groups are 1.
  """

  features: int
  size: int
  stride: int = 1
  groups: int = 1
  pairs: bool = False
  dtype: jnp.dtype = jnp.float32
  backend: Backend = Backend()

  @nn.compact
  def __call__(self, x: Array, gain: Array | None = None) -> Array:
    """Convolves x [B, H, W, I]; `gain` [features] multiplies the output by way of the kernel."""
    inputs = x.shape[-1] // (2 if self.pairs else self.groups)
    shape = (self.size, self.size, inputs, self.features)
    init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
    kernel = self.param('kernel', init, shape, jnp.float32)
    if gain is not None:
      kernel = kernel * gain
    x = x.astype(self.dtype)
    if self.pairs:
      return convolve_wide(x, over_pairs(kernel), 1, 1)
    if self.size == 1 and self.backend.products:
      return gradients.multiply(x[:, :: self.stride, :: self.stride], kernel[0, 0])
    merged = groups_to_merge(self.groups, inputs, self.backend.lanes)
    kernel, groups = merge_groups(kernel, self.groups, merged), self.groups // merged
    by_rows = groups > 1 and self.backend.rows
    function = convolve_by_rows if by_rows else convolve_wide
    return function(x, kernel, self.stride, groups)


def convolve(x: Array, kernel: Array, stride: int, groups: int) -> Array:
  """Convolves x [B, H, W, I] with kernel [k, k, I / groups, O].

  Returns:
    [B, ceil(H / stride), ceil(W / stride), O].
  """
  pad = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    window_strides=(stride, stride),
    padding=((pad, pad), (pad, pad)),
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    feature_group_count=groups,
  )


def convolve_wide(x: Array, kernel: Array, stride: int, groups: int) -> Array:
  """Convolves like `convolve`, in x's type; sums the kernel's gradient in the kernel's type."""
  operation = functools.partial(convolve, stride=stride, groups=groups)
  like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)
  gradient = functools.partial(_kernel_gradient, like, stride, groups)
  return gradients.apply_wide(operation, gradient, x, kernel)


def convolve_by_rows(x: Array, kernel: Array, stride: int, groups: int) -> Array:
  """Convolves like `convolve_wide`, by one product of unfolded rows for each group."""
  operation = functools.partial(_products_of_rows, stride=stride, groups=groups)
  like = jax.ShapeDtypeStruct(kernel.shape, kernel.dtype)

  def gradient(x: Array, dy: Array) -> Array:
    # It is linear in the kernel, which may then be anything.
    wide = functools.partial(operation, x.astype(like.dtype))
    return jax.vjp(wide, jnp.zeros(like.shape, like.dtype))[1](dy.astype(like.dtype))[0]

  return gradients.apply_wide(operation, gradient, x, kernel)


def _products_of_rows(x: Array, kernel: Array, *, stride: int, groups: int) -> Array:
  """Multiplies the k rows of each window by all k columns of the kernel, then adds up columns.

  Unfolding rows alone takes a third of the memory that unfolding whole windows takes.
  """
  size, _, inputs, outputs = kernel.shape
  (b, h, w, _), pad = x.shape, size // 2
  h, w = (-(-side // stride) for side in (h, w))
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  rows = [x[:, i : i + (h - 1) * stride + 1 : stride] for i in range(size)]
  rows = [row.reshape(*row.shape[:3], groups, inputs) for row in rows]
  kernel = kernel.reshape(size, size, inputs, groups, outputs // groups)
  kernel = kernel.transpose(3, 0, 2, 1, 4).reshape(groups, size * inputs, -1)
  wide = jnp.promote_types(x.dtype, jnp.float32)
  y = jnp.einsum('bhwgi,gio->gbhwo', jnp.concatenate(rows, -1), kernel, preferred_element_type=wide)
  y = y.reshape(*y.shape[:4], size, -1)
  columns = [y[:, :, :, j : j + (w - 1) * stride + 1 : stride, j] for j in range(size)]
  y = functools.reduce(jnp.add, columns)
  return jnp.moveaxis(y, 0, 3).reshape(b, h, w, outputs).astype(x.dtype)


# --- Groups --------------------------------------------------------------------------------


def groups_to_merge(groups: int, width: int, lanes: int) -> int:
  """Returns how many neighbouring groups of `width` channels are convolved as one; 1 is none.

  As many as fill the lanes, where a group by itself fills a quarter of them or less. Merged ones
  multiply by zeros as well: of half the lanes, that costs more than it saves.
  """
  if groups == 1 or 4 * width > lanes:
    return 1
  return max(n for n in range(1, lanes // width + 1) if groups % n == 0)


def merge_groups(kernel: Array, groups: int, merged: int) -> Array:
  """Makes the kernel of fewer, wider groups that computes the same as one of `groups`.

  Args:
    kernel: [k, k, I, O], where I is the width of a group.
    groups: their number.
    merged: neighbours that become one.

  Returns:
    [k, k, merged * I, O]; of the inputs of its group, an output's weights are 0 but for I.
  """
  if merged == 1:
    return kernel
  inputs, outputs = kernel.shape[2:]
  of_input = jnp.arange(merged * inputs)[:, None] // inputs
  of_output = jnp.arange(outputs) // (outputs // groups) % merged
  # Outputs stay the last axis throughout: others would be copied from lane to lane on a TPU.
  return jnp.where(of_input == of_output, jnp.tile(kernel, (1, 1, merged, 1)), 0)


# --- Pairs of columns ----------------------------------------------------------------------


def over_pairs(kernel: Array) -> Array:
  """Makes the kernel [k, k, 2 I, 2 O] over pairs of columns that one [k, k, I, O] is over columns.

  k is 1 or 3. Half of its weights are zeros, which cost no time where I and O fill half the lanes.
  """
  size, _, inputs, outputs = kernel.shape

  def column(at: int) -> Array:
    # The window of a pair's column `at` among the columns of `size` pairs.
    before = size // 2 + at
    edges = ((0, 0), (before, size - before), (0, 0), (0, 0))
    return jnp.pad(kernel, edges).reshape(size, size, 2 * inputs, outputs)

  return jnp.concatenate([column(0), column(1)], axis=-1)


# --- Gradients of kernels ------------------------------------------------------------------


def _kernel_gradient(
  kernel: jax.ShapeDtypeStruct, stride: int, groups: int, x: Array, dy: Array
) -> Array:
  """Computes the gradient of a kernel as a convolution of x by dy, summed in the kernel's type."""
  size = kernel.shape[0]
  low = size // 2
  # Such that dy, with its rows `stride` apart, fits in as many places as the kernel has rows.
  sides = zip(x.shape[1:3], dy.shape[1:3], strict=True)
  return jax.lax.conv_general_dilated(
    x,
    dy,
    window_strides=(1, 1),
    padding=[(low, (places - 1) * stride + size - rows - low) for rows, places in sides],
    rhs_dilation=(stride, stride),
    dimension_numbers=('CHWN', 'IHWO', 'HWNC'),
    batch_group_count=groups,
    preferred_element_type=kernel.dtype,
  )
