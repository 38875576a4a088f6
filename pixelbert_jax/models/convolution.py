"""Convolutions without bias, with PyTorch's padding."""

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from pixelbert_jax.models.backend import Backend

Array = jax.Array


class Conv(nn.Module):
  """A convolution without bias, padded by half the kernel on every side as in PyTorch.

  XLA's 'SAME' would pad strided convolutions less at the top left, so that outputs would depend on
  the size of the canvas.
  """

  features: int
  size: int
  stride: int = 1
  groups: int = 1
  dtype: jnp.dtype = jnp.float32
  backend: Backend = Backend()

  @nn.compact
  def __call__(self, x: Array) -> Array:
    shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
    init = nn.initializers.variance_scaling(2.0, 'fan_out', 'normal')
    kernel = self.param('kernel', init, shape, jnp.float32).astype(self.dtype)
    x = x.astype(self.dtype)
    if self.size == 1 and self.backend.products:
      return x[:, :: self.stride, :: self.stride] @ kernel[0, 0]
    by_taps = self.groups > 1 and self.backend.taps
    function = convolve_by_taps if by_taps else convolve
    return function(x, kernel, self.stride, self.groups)


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


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve_by_taps(x: Array, kernel: Array, stride: int, groups: int) -> Array:
  """Convolves like `convolve`; computes the gradient of the kernel position by position."""
  return convolve(x, kernel, stride, groups)


def _forward(x: Array, kernel: Array, stride: int, groups: int) -> tuple[Array, tuple]:
  return convolve(x, kernel, stride, groups), (x, kernel)


def _backward(stride: int, groups: int, saved: tuple, dy: Array) -> tuple[Array, Array]:
  x, kernel = saved
  (dx,) = jax.vjp(lambda x: convolve(x, kernel, stride, groups), x)[1](dy)
  return dx, _kernel_gradient(kernel.shape, stride, groups, x, dy)


convolve_by_taps.defvjp(_forward, _backward)


def _kernel_gradient(
  shape: tuple[int, ...], stride: int, groups: int, x: Array, dy: Array
) -> Array:
  """Computes the gradient of a kernel of this shape, as one grouped product per kernel position."""
  size, _, inputs, outputs = shape
  b, h, w, _ = dy.shape
  pad = size // 2
  x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  dy = dy.reshape(b, h, w, groups, outputs // groups)

  def position(i: int, j: int) -> Array:
    inputs_at = x[:, i : i + (h - 1) * stride + 1 : stride, j : j + (w - 1) * stride + 1 : stride]
    inputs_at = inputs_at.reshape(b, h, w, groups, inputs)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    return jnp.einsum('bhwgi,bhwgo->igo', inputs_at, dy, preferred_element_type=wide)

  positions = [position(i, j) for i in range(size) for j in range(size)]
  return jnp.stack(positions).reshape(shape).astype(x.dtype)
